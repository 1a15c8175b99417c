"""Odd and damaged images, one at a time, through data check, pretrain, finetune, evaluate and predict.

    python benchmarks/trust/images.py [--step 1] [--out results/trust/images.json]

Whole images must be used by every verb, damaged ones refused by every verb in one line that names the file. With
``data.on_error=skip`` the trainings leave out exactly those, and list them. An image that is neither (bits flipped, or
very large) must be the same to all verbs. ``--step``: every n-th image only.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import TINY, Tally, options, verdict
from PIL import Image

from sweet.data.skips import FILE, skipped

SECONDS = 30.0
KEYS = "device=cpu workers=0 optim.precision=fp32 batch_size=8 max_steps=1 -q".split()
PIXELS = np.random.default_rng(0)
FLIPPED = 40  # images in which some bits are flipped


def picture(width: int = 24, height: int = 24, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(PIXELS.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def huge(width: int, height: int) -> bytes:
    """A small PNG file that says it has so many pixels, one bit each."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * (width // 8 + 1)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def cases() -> Iterator[tuple[str, bytes, bool | None]]:
    """(file name, bytes, whether it can be used; None: both are right, if all verbs agree)."""
    jpg, png, webp = (encoded(picture(64, 48), kind) for kind in ("JPEG", "PNG", "WEBP"))
    gif, bmp, tif, ppm = (encoded(picture(), kind) for kind in ("GIF", "BMP", "TIFF", "PPM"))
    for cut in (1, 2, 10, 100, len(jpg) // 4, len(jpg) // 2, len(jpg) - 100, len(jpg) - 10):
        yield f"cut{cut}.jpg", jpg[:cut], False
    for cut in (2, 1):  # only the marker of the end is missing
        yield f"end{cut}.jpg", jpg[:-cut], None
    for cut in (8, 33, len(png) // 2):
        yield f"cut{cut}.png", png[:cut], False
    for cut in (13, 1):
        yield f"end{cut}.png", png[:-cut], None
    for suffix, data in (("gif", gif), ("webp", webp), ("bmp", bmp), ("tiff", tif), ("ppm", ppm)):
        yield f"half.{suffix}", data[: len(data) // 2], False
        yield f"whole.{suffix}", data, True
    for name, data in (
        ("zero.jpg", b""), ("text.jpg", b"hello world\n"), ("html.jpg", b"<html>404</html>"), ("json.png", b"{}"),
        ("nulls.png", b"\0" * 1000), ("program.jpg", Path(os.__file__).read_bytes()[:5000]),
    ):  # fmt: skip
        yield name, data, False
    yield "png_named.jpg", png, True
    yield "jpg_named.png", jpg, True
    draw = random.Random(6)
    sources = [(jpg, "jpg"), (png, "png"), (webp, "webp"), (gif, "gif"), (tif, "tif"), (bmp, "bmp")]
    for number in range(FLIPPED):
        data, suffix = draw.choice(sources)
        changed = bytearray(data)
        for _ in range(draw.randint(1, 8)):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        yield f"flipped{number}.{suffix}", bytes(changed), None
    yield from modes()
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"exif{orientation}.jpg", encoded(picture(30, 20), "JPEG", exif=exif), True
    yield "exif_garbage.jpg", encoded(picture(), "JPEG", exif=b"Exif\0\0garbagegarbage"), True
    yield "exif_loop.jpg", encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), True
    for width, height in ((1, 1), (1, 5000), (5000, 1), (2, 2)):
        yield f"{width}x{height}.png", encoded(picture(width, height), "PNG"), True
    for kind, suffix in (("GIF", "gif"), ("WEBP", "webp"), ("TIFF", "tif"), ("PNG", "png")):
        yield f"frames.{suffix}", encoded(picture(), kind, save_all=True, append_images=[picture(), picture()]), True
    for side in (9_500, 12_800, 30_000):
        yield f"huge{side}.png", huge(side, side), None
    for name in (
        " leading space.jpg", "sp ace.jpg", "ünï 图.jpg", "new\nline.jpg", "tab\t.jpg", "quote'\".jpg", "-dash.jpg",
        "UPPER.JPG", "two.dots.jpg", "esc\x1b[31m.jpg", os.fsdecode(b"latin\xe9.jpg"), "\u202egpj.jpg",
    ):  # fmt: skip
        yield name, jpg, True


def modes() -> Iterator[tuple[str, bytes, bool]]:
    """Colour modes and compressions."""
    for name, kind, mode in (
        ("grey.jpg", "JPEG", "L"), ("cmyk.jpg", "JPEG", "CMYK"), ("ycc.jpg", "JPEG", "YCbCr"),
        ("cmyk.tif", "TIFF", "CMYK"), ("lab.tif", "TIFF", "LAB"), ("palette.png", "PNG", "P"),
        ("rgba.png", "PNG", "RGBA"), ("la.png", "PNG", "LA"), ("one_bit.png", "PNG", "1"),
    ):  # fmt: skip
        yield name, encoded(picture(mode=mode), kind), True
    yield "transparent.png", encoded(picture(mode="P"), "PNG", transparency=0), True
    yield "lzw.tif", encoded(picture(), "TIFF", compression="tiff_lzw"), True
    yield "progressive.jpg", encoded(picture(), "JPEG", progressive=True), True
    for name, values, kind, usable in (
        ("16.png", PIXELS.integers(0, 65536, (24, 24), dtype=np.uint16), "PNG", True),
        ("32.tif", PIXELS.integers(0, 2**31 - 1, (24, 24), dtype=np.int32), "TIFF", False),  # which value is white?
        ("float.tif", PIXELS.random((24, 24), dtype=np.float32), "TIFF", True),
    ):
        yield name, encoded(Image.fromarray(values), kind), usable


def make_set(place: Path, name: str, data: bytes) -> Path:
    """Two classes of good images in two splits, and the odd one among the first class of both. Returns its place."""
    shutil.rmtree(place, ignore_errors=True)
    for split, label in ((split, label) for split in ("train", "val") for label in "ab"):
        folder = place / split / label
        folder.mkdir(parents=True)
        for number in range(8):
            (folder / f"good{number}.png").write_bytes(encoded(picture(), "PNG"))
    for split in ("train", "val"):
        (place / split / "a" / name).write_bytes(data)
    return place / "val" / "a" / name


def prepare(place: Path) -> None:
    """A model and a classifier of classes a and b, for :func:`judge`."""
    make_set(place / "set", "one.png", encoded(picture(), "PNG"))
    source = f"data.source=folder:{place / 'set'}"
    for words in (
        ["pretrain", str(TINY), source, *KEYS, "--out", str(place / "template")],
        ["init", str(place / "template"), "--depth", "2", "--heads", "2", "--out", str(place / "model")],
        ["finetune", str(place / "model"), source, *KEYS, "--out", str(place / "classifier")],
    ):
        assert (found := verdict(words, 300)) == "right", (words, found)


def refusals(findings: list[dict[str, str]]) -> list[str]:
    """What data check says that a training will refuse: values of which nobody says what is white."""
    return [one["found"] for one in findings if one["what sweet does"].startswith("refused unless")]


def judge(name: str, data: bytes, usable: bool | None, place: Path, tally: Tally) -> None:
    """Put an image among good ones, run every verb on them, and add what came out."""
    image = make_set(place / "set", name, data)
    source, model, out = f"folder:{place / 'set'}", place / "model", place / "out"
    printed = io.StringIO()
    found = verdict(["data", "check", source, "--json"], SECONDS, printed=printed)
    report = json.loads(printed.getvalue()) if found == "right" else None
    corrupt = [] if report is None else [*report["splits"]["val"]["corrupt"], *refusals(report["findings"])]
    readable = not corrupt
    if found == "right" and usable not in (None, readable):
        found = f"wrong: {'whole' if readable else 'damaged'}, {corrupt}"
    tally.add(name, "data check", found)
    verbs = {
        "pretrain": ["pretrain", str(TINY), f"data.source={source}", "--out", str(out), *KEYS],
        "finetune": ["finetune", str(model), "--data", source, "--out", str(out), *KEYS],
        "evaluate": ["evaluate", str(place / "classifier"), "--data", source, "--device", "cpu"],
        "predict": ["predict", str(place / "classifier"), "--device", "cpu", "--", str(image)],
    }
    for verb, words in verbs.items():
        shutil.rmtree(out, ignore_errors=True)
        found = verdict(words, SECONDS)
        if found in ("right", "line") and (found == "right") != readable:
            found = f"wrong: {found}, but data check says {corrupt or 'whole'}"
        tally.add(name, f"{verb}, fail" if verb in ("pretrain", "finetune") else verb, found)
    for verb in ("pretrain", "finetune"):
        shutil.rmtree(out, ignore_errors=True)
        found = verdict([*verbs[verb], "data.on_error=skip"], SECONDS)
        if found == "right":
            listed = skipped(out / FILE)
            if len(listed) != (0 if readable else {"pretrain": 1, "finetune": 2}[verb]):
                found = f"wrong: skipped {listed}"
        elif found == "line":
            found = "wrong: not skipped"
        tally.add(name, f"{verb}, skip", found)


def main() -> None:
    given = options("images", step=1)
    tally, chosen = Tally(), list(cases())[:: given.step]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        prepare(place)
        for number, (file, data, usable) in enumerate(chosen):
            judge(file, data, usable, place, tally)
            if number % 20 == 0:
                print(number, file.encode(errors="backslashreplace"), tally.wrong[-3:], flush=True)
    tally.write(given.out, images=len(chosen))


if __name__ == "__main__":
    main()
