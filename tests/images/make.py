"""Small images of every kind that `--dataset folder` reads, and what Pillow makes of each.

    pip install pillow && python tests/images/make.py

writes the files beside this script, and `expected.json`: name -> [height, width, channels, pixels],
grey or RGB, turned as EXIF says, what is transparent over white.
"""
import json
import pathlib

from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
W, H = 20, 12

# Smooth, so that lossy formats change little.
colour = Image.new("RGB", (W, H))
colour.putdata([(12 * x, 20 * y, 255 - 6 * (x + y)) for y in range(H) for x in range(W)])
grey = colour.convert("L")
alpha = colour.copy()
alpha.putalpha(Image.linear_gradient("L").resize((W, H)))
grey_alpha = Image.merge("LA", (grey, Image.linear_gradient("L").resize((W, H))))
grey16 = Image.new("I;16", (W, H))
grey16.putdata([257 * v for v in grey.tobytes()])
exif = Image.Exif()

files = {
    "plain.png": (colour, {}),
    "grey.png": (grey, {}),
    "grey16.png": (grey16, {}),
    "palette.png": (colour.quantize(16), {}),
    "alpha.png": (alpha, {}),
    "grey_alpha.png": (grey_alpha, {}),
    "baseline.jpg": (colour, {"quality": 95, "subsampling": 0}),
    "progressive.jpg": (colour, {"quality": 95, "subsampling": 0, "progressive": True}),
    "grey.jpg": (grey, {"quality": 95}),
    "cmyk.jpg": (colour.convert("CMYK"), {"quality": 95, "subsampling": 0}),
    "lossless.webp": (colour, {"lossless": True}),
    "lossy.webp": (colour, {"quality": 95}),
    "plain.bmp": (colour, {}),
    "two_frames.gif": (colour.quantize(16), {"save_all": True, "append_images": [grey.quantize(4)]}),
    "plain.tiff": (colour, {}),
    "plain.ppm": (colour, {}),
}
for turn in range(2, 9):
    files[f"exif{turn}.jpg"] = (colour, {"quality": 95, "subsampling": 0, "turn": turn})

expected = {}
for name, (image, how) in files.items():
    if turn := how.pop("turn", None):
        exif[0x0112] = turn
        how["exif"] = exif
    image.save(HERE / name, **how)
    read = ImageOps.exif_transpose(Image.open(HERE / name))
    if read.mode == "I;16":
        read = grey
    if read.mode in ("RGBA", "LA"):
        white = Image.new("RGBA", read.size, "white")
        read = Image.alpha_composite(white, read.convert("RGBA")).convert("L" if read.mode == "LA" else "RGB")
    if read.mode not in ("L", "RGB"):
        read = read.convert("RGB")
    expected[name] = [read.height, read.width, len(read.getbands()), list(read.tobytes())]
# What a camera puts behind a picture: a film, with bytes that look like a JPEG's.
film = (HERE / "baseline.jpg").read_bytes() + b"\x00\x00\x00\x18ftypmp42" + b"\xff\xda\x00\x08" * 40
(HERE / "motion.jpg").write_bytes(film)
expected["motion.jpg"] = expected["baseline.jpg"]
(HERE / "expected.json").write_text(json.dumps(expected) + "\n")
