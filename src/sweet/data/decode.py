"""From the bytes of a file to an upright RGB image: what a camera, a depth or a palette changes, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageOps

from sweet.errors import UserError

ORIENTATION = 0x0112  # the EXIF tag that says how a camera was held
SIDEWAYS = 5  # from this orientation on, width and height change places


@contextmanager
def readable(where: str, what: str = "image") -> Iterator[None]:
    """Whatever goes wrong inside becomes a UserError that names the file; on damaged bytes Pillow raises anything."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as problem:
        raise UserError(f"{where}: not a readable {what} ({problem})") from problem


def to_rgb(image: Image.Image) -> Image.Image:
    """A decoded upright RGB copy."""
    if image.mode.startswith("I;16"):
        # Pillow clips 16-bit grey at 255 instead of scaling it.
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # directly to RGB, Pillow warns
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return image.convert("RGB")


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) that :func:`to_rgb` gives, read from the header."""
    sideways = image.getexif().get(ORIENTATION, 1) >= SIDEWAYS
    return (image.height, image.width) if sideways else image.size
