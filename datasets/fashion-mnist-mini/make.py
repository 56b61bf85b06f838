"""Cuts the first images and labels out of the full Fashion-MNIST files, in their original order.

    python3 make.py SOURCE [DESTINATION]

SOURCE holds the four original files (`train-images-idx3-ubyte.gz`, ...); the four files made, of the same
names, go to DESTINATION (this script's folder unless given). Standard library only. The same input gives the same
bytes: no file name and no time are stored in the gzip header (the compressed bytes also depend on the
zlib that Python is linked to; the unpacked ones do not).
"""

import gzip
import hashlib
import io
import pathlib
import struct
import sys

# How many images of each part are kept.
KEPT = {"train": 10_000, "t10k": 5_000}


def cut(content: bytes, magic: int, keep: int) -> bytes:
    """The first `keep` records of an IDX file of unsigned bytes, under a header that says so."""
    dims = magic & 0xFF
    found, count, *shape = struct.unpack_from(f">{1 + dims}I", content)
    if found != magic or count < keep:
        raise SystemExit(f"magic {found:#010x} with {count} records: expected {magic:#010x} with at least {keep}")
    record = 1
    for length in shape:
        record *= length
    start = 4 * (1 + dims)
    return struct.pack(f">{1 + dims}I", magic, keep, *shape) + content[start : start + keep * record]


def pack(content: bytes) -> bytes:
    """gzip at the highest level, without a name and with time 0."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(content)
    return buffer.getvalue()


def main() -> None:
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    source = pathlib.Path(sys.argv[1])
    destination = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else pathlib.Path(__file__).parent
    for part, keep in KEPT.items():
        for name, magic in (("images-idx3", 0x00000803), ("labels-idx1", 0x00000801)):
            path = f"{part}-{name}-ubyte.gz"
            content = cut(gzip.decompress((source / path).read_bytes()), magic, keep)
            packed = pack(content)
            (destination / path).write_bytes(packed)
            print(f"{path}  {hashlib.sha256(packed).hexdigest()}  unpacked {hashlib.sha256(content).hexdigest()}")


main()
