"""Little data sets of every kind, whole or senseless, for `abuse.py`."""

import gzip
import io
import json
import struct
import zipfile
import zlib

# As few samples as every flag allows, so that a run takes a fraction of a second.
SMALL = ["--model", "mlp", "--noise", "none", "--batch", "4", "--threads", "1", "--epochs", "1"]
# A folder's name and the kind that it is read as.
KINDS = {"folder": "folder", "metadata": "folder", "mnist": "mnist", "gzipped": "mnist", "cifar": "cifar10", "npz": "arrays",
         "npy": "arrays", "safetensors": "arrays", "csv": "csv"}


def png(width, height, value):
    """A grey image of 8 bits."""
    rows = b"".join(b"\0" + bytes(value(x, y) % 256 for x in range(width)) for y in range(height))

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def npy(kind, shape, content):
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({''.join(f'{n},' for n in shape)}), }}"
    header += " " * (63 - (len(header) + 10) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content


def idx(shape, content):
    return struct.pack(">HBB", 0, 8, len(shape)) + b"".join(struct.pack(">I", n) for n in shape) + bytes(content)


def safetensors(tensors):
    head, body = {}, b""
    for name, (kind, shape, content) in tensors.items():
        head[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(body), len(body) + len(content)]}
        body += content
    head = json.dumps(head).encode()
    return struct.pack("<Q", len(head)) + head + body


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def pixels(i, n):
    return bytes((37 * i + 11 * j + i * j) % 256 for j in range(n))


def arrays(n, d=6, classes=3):
    """Features f32 `[n, d]` and labels i64 `[n]`."""
    x = struct.pack(f"<{n * d}f", *[((7 * i + 3 * j) % 13) / 13 + (i % classes) for i in range(n) for j in range(d)])
    return x, struct.pack(f"<{n}q", *[i % classes for i in range(n)])


def zipped(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def table(n, classes=3):
    rows = [f"{(7 * i % 13) / 13 + i % classes:.3f},{(5 * i % 11) / 11:.3f},{'abc'[i % classes]}" for i in range(n)]
    return "\n".join(["one,two,label", *rows]) + "\n"


def bombs():
    """Small files that become large when they are unpacked."""
    zeroes, n = bytes(1 << 29), 1 << 23
    x, y = npy("|i1", [n, 64], zeroes), npy("<i8", [n], zeroes[:8 * n])
    return {"gzipped/train-images-idx3-ubyte.gz": gzip.compress(idx([n, 8, 8], b"") + zeroes, 1),
            "npz/train.npz": zipped({"x.npy": x, "y.npy": y})}


def make_all(data):
    for part, n in (("train", 24), ("test", 9)):
        for i in range(n):
            image = png(6, 6, lambda x, y: 40 * (i % 3) + 5 * x + y + i)
            put(data / f"folder/{part}/{'abc'[i % 3]}/{i}.png", image)
            put(data / f"metadata/{part}-{i}.png", image)
        x, y = arrays(n)
        put(data / f"npz/{part}.npz", zipped({"x.npy": npy("<f4", [n, 6], x), "y.npy": npy("<i8", [n], y)}))
        put(data / f"npy/{part}_x.npy", npy("<f4", [n, 6], x))
        put(data / f"npy/{part}_y.npy", npy("<i8", [n], y))
        put(data / f"safetensors/{part}.safetensors", safetensors({"x": ("F32", [n, 6], x), "y": ("I64", [n], y)}))
        put(data / f"csv/{part}.csv", table(n))
    rows = [f"{part}-{i}.png,{'abc'[i % 3]},{part}" for part, n in (("train", 24), ("test", 9)) for i in range(n)]
    put(data / "metadata/metadata.csv", "\n".join(["file_name,label,split", *rows]) + "\n")
    for part, n in (("train", 40), ("t10k", 10)):
        images = idx([n, 5, 5], b"".join(pixels(i, 25) for i in range(n)))
        labels = idx([n], bytes(i % 10 for i in range(n)))
        put(data / f"mnist/{part}-images-idx3-ubyte", images)
        put(data / f"mnist/{part}-labels-idx1-ubyte", labels)
        put(data / f"gzipped/{part}-images-idx3-ubyte.gz", gzip.compress(images))
        put(data / f"gzipped/{part}-labels-idx1-ubyte.gz", gzip.compress(labels))
    for i, name in enumerate(["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]):
        put(data / f"cifar/{name}.bin", b"".join(bytes([label]) + pixels(10 * i + label, 3072) for label in range(10)))


# --- Whole files that make no sense: what they are, the flags, and what the error names. ----------


def csv_of(text, what, *parts):
    def make(rng, folder):
        put(folder / "t/train.csv", text)
        put(folder / "t/test.csv", table(9))
        return f"a table with {what}", ["--dataset", "csv", "--data-dir", "t"], list(parts)
    return make


def arrays_of(what, parts, x=None, y=None):
    def make(rng, folder):
        for part in ("train", "test"):
            fine = arrays(24)
            broken = part == "train"
            put(folder / f"t/{part}_x.npy", x if broken and x else npy("<f4", [24, 6], fine[0]))
            put(folder / f"t/{part}_y.npy", y if broken and y else npy("<i8", [24], fine[1]))
        return f"arrays with {what}", ["--dataset", "arrays", "--data-dir", "t"], parts
    return make


def model_of(text, what):
    def make(rng, folder):
        put(folder / "net.toml", text)
        put(folder / "t/train.csv", table(24))
        put(folder / "t/test.csv", table(9))
        words = ["--dataset", "csv", "--data-dir", "t", "--model", "net.toml"]
        return f"a network with {what}", words, ["net.toml", "--model", "layer"]
    return make


def folder_of(files, what, *parts, flags=()):
    def make(rng, folder):
        for name, content in files.items():
            put(folder / "t" / name, content)
        return f"a folder with {what}", ["--dataset", "folder", "--data-dir", "t", *flags], list(parts)
    return make


GREY = png(6, 6, lambda x, y: 9 * x + y)
WIDE = png(7, 6, lambda x, y: x)
HUGE = GREY[:16] + struct.pack(">II", 60_000, 60_000) + GREY[24:29] + struct.pack(
    ">I", zlib.crc32(b"IHDR" + struct.pack(">II", 60_000, 60_000) + GREY[24:29])) + GREY[33:]
# Headers of images that no memory holds, of formats that have no limit of their own.
BOMBS = {
    "pgm": b"P5 3000000 3000000 255\n" + bytes(100),
    "ppm": b"P6 20000 20000 255\n" + bytes(100),
    "gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6) + b"," +
           struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\0;",
    "tif": b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in [
        (256, 2_000_000), (257, 2_000_000), (258, 8), (259, 1), (262, 1), (273, 200), (277, 1), (278, 2_000_000),
        (279, 4_000_000_000)]) + bytes(200),
}
CLASSES = {f"{part}/{name}/{i}.png": GREY for part in ("train", "test") for name in "abc" for i in range(6)}

NONSENSE = [
    csv_of("", "nothing in it", "train.csv"),
    csv_of("one,two,label\n", "no rows", "train", "sample"),
    csv_of("one,two,label\n1,2\n", "a short row", "train.csv"),
    csv_of("one,two,label\n1,x,a\n", "a word for a number", "train.csv", "two"),
    csv_of("one,two,label\n1,inf,a\n", "no finite number", "train.csv", "two"),
    csv_of("one,two,label\n1,2,\n", "no label", "train.csv"),
    csv_of("one,two\n1,2\n", "no column of labels", "train.csv", "label"),
    csv_of("label\na\nb\n", "labels alone", "train.csv"),
    csv_of("one,two,label\n" + "1,2,a\n" * 24, "one class", "class", "train"),
    csv_of(b"one,two,label\n\xff\xfe,2,a\n", "no UTF-8", "train.csv"),
    csv_of('one,two,label\n1,2,"a\n', "an open quote", "train.csv", "class", "--batch", "sample"),
    csv_of(table(24).replace("one", "uno"), "other columns", "test.csv", "column"),
    arrays_of("too few labels", ["train_y.npy"], y=npy("<i8", [3], bytes(24))),
    arrays_of("a negative label", ["train_y.npy"], y=npy("<i8", [24], struct.pack("<24q", *[-1] * 24))),
    arrays_of("a huge label", ["train_y.npy", "label", "class"], y=npy("<i8", [24], struct.pack("<24q", *[999_999] * 24))),
    arrays_of("a shape that overflows", ["train_x.npy"], x=npy("<f4", [2**40, 2**40], b"")),
    arrays_of("more announced than there is", ["train_x.npy"], x=npy("<f4", [24, 600], bytes(24))),
    arrays_of("NaN", ["train_x.npy"], x=npy("<f4", [24, 6], struct.pack("<f", float("nan")) * 144)),
    arrays_of("five dimensions", ["train_x.npy"], x=npy("|u1", [24, 1, 1, 1, 6], bytes(144))),
    arrays_of("complex numbers", ["train_x.npy"], x=npy("<c8", [24, 3], bytes(24 * 24))),
    arrays_of("no columns", ["train", "sample", "x"], x=npy("<f4", [24, 0], b"")),
    model_of("", "nothing in it"),
    model_of("[[layer]]\nkind = \"dense\"\n", "no extents"),
    model_of("layers = 3\n", "a number for layers"),
    model_of("\x00", "a zero byte"),
    model_of("[[layers]]\nkind = \"conv\"\nchannels = 99999999999\n", "channels without end"),
    folder_of({}, "nothing", "t"),
    folder_of({"train/a/1.png": GREY}, "one class", "class", "test"),
    folder_of({**CLASSES, "train/a/9.png": WIDE}, "two sizes", "9.png"),
    folder_of({**CLASSES, "train/a/9.png": HUGE}, "a header of 60000×60000", "9.png"),
    *[folder_of({**CLASSES, f"train/a/9.{kind}": bomb}, f"a {kind} of a huge size", f"9.{kind}") for kind, bomb in BOMBS.items()],
    folder_of({**CLASSES, "train/a/9.png": png(1, 60_000, lambda x, y: y)}, "a line to be resized", "9.png",
              flags=["--image-size", "2000"]),
    folder_of({**CLASSES, "train/a/9.jpg": b"\xff\xd8\xff\xd9"}, "a JPEG without an image", "9.jpg"),
    folder_of({**CLASSES, "train/9.png": GREY}, "an image in no class", "9.png"),
    folder_of({**CLASSES, "train/d/x.txt": "x"}, "an empty class", "train/d"),
    folder_of({**CLASSES, "test/d/1.png": GREY}, "a class that is only tested", "test/d"),
    folder_of({**CLASSES, "metadata.csv": "file_name,label\nno.png,a\n"}, "a table that names no file", "no.png"),
    folder_of({**CLASSES, "metadata.csv": "file,label\nx,a\n"}, "a table without file names", "metadata.csv"),
    folder_of({**CLASSES, "metadata.csv": "file_name,label,split\ntrain/a/1.png,a,tset\n"}, "a part of no name", "tset"),
    folder_of(CLASSES, "labels of another number", "labels.txt", flags=["--train-labels", "t/labels.txt"]),
]
