"""From the bytes of a file to upright pixels of 8 bits: what a camera, a depth or a palette changes, in one place.

Pixels reach a model as 8 bits a channel. Images of 8 bits are taken as they are. Others are mapped by ``value_range``:
its two values become 0 and 255, what lies outside is clipped. Without one, 16 bits keep their upper 8, floating-point
values are 0 to 1, and any other range is refused rather than guessed.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from sweet.errors import UserError
from sweet.template.image_size import ImageSize

from .bands import Bands, Picture, Stored, StoredBands

ORIENTATION = 0x0112  # the EXIF tag that says how a camera was held
SAMPLES = 0x0115  # the TIFF tag that counts the channels
SIDEWAYS = 5  # from this orientation on, width and height change places
NPY, TIFF = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DEEP = ("I", "F")  # Pillow's modes of 32 bits a pixel
KERNELS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
ORDINARY = (1, 3)  # channels of models that take RGB images; with one, the images become grey

# Of large images, odd tags and palettes Pillow warns by two raw lines and without the file's name; what it cannot read,
# and what is past its limit, it refuses. Somebody's own filters come first.
warnings.filterwarnings("ignore", module=r"PIL\.", append=True)


class HasPixels(Protocol):
    """What says how pixels reach a model: the data keys of a recipe, or what travels with a model."""

    @property
    def img_size(self) -> ImageSize: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...
    @property
    def value_range(self) -> tuple[float, float] | None: ...
    @property
    def interpolation(self) -> str: ...


@dataclass(frozen=True)
class PixelFormat:
    """Channels that a model takes, and the values of a file that become 0 and 255 (None: see the head of this file).

    ``interpolation`` (of :data:`KERNELS`) is how the centre of an image is brought to the model's size.
    """

    channels: int = 3
    value_range: tuple[float, float] | None = None
    interpolation: str = "bicubic"

    @classmethod
    def of(cls, keys: HasPixels | None) -> PixelFormat:
        """What a recipe or a model says; RGB for None."""
        return cls() if keys is None else cls(len(keys.mean), keys.value_range, keys.interpolation)

    @property
    def stored_channels(self) -> int:
        """Channels of a decoded image: grey is made from RGB on the device."""
        return 3 if self.channels in ORDINARY else self.channels

    def key(self) -> tuple[object, ...]:
        """For a checksum; nothing for ordinary images."""
        ordinary = self.stored_channels == 3 and self.value_range is None
        pixels = () if ordinary else (self.stored_channels, self.value_range)
        return pixels if self.interpolation == "bicubic" else (*pixels, self.interpolation)


class Unfit(Exception):
    """An image that is whole, but of another sort than is needed; its file is named by :func:`readable`."""


@contextmanager
def readable(where: str, what: str = "image") -> Iterator[None]:
    """Whatever goes wrong inside becomes a UserError that names the file; on damaged bytes Pillow raises anything."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Unfit as problem:
        raise UserError(f"{where}: {problem}") from None
    except Exception as problem:
        raise UserError(f"{where}: not a readable {what} ({problem})") from problem


def open_stored(file: str | bytes) -> Stored:
    """A file (its path, or its bytes) as stored: by Pillow, or as numbers where Pillow does not know its channels.

    That are ``.npy`` files of (H, W), (H, W, C) or (C, H, W), and TIFF. Raises anything if the file is damaged.
    """
    if isinstance(file, bytes):
        head = file[:6]
    elif Path(file).is_file():
        with open(file, "rb") as opened:
            head = opened.read(6)
    else:
        raise FileNotFoundError("no such file" if not Path(file).is_symlink() else "a link to nothing")
    source: Any = io.BytesIO(file) if isinstance(file, bytes) else file
    if head == NPY:
        return StoredBands(channels_last(np.load(source)))  # objects are refused by default
    if head[:4] not in TIFF:
        return Image.open(source)
    try:
        image = Image.open(source)
    except UnidentifiedImageError:
        return open_tiff(source)
    if image.tag_v2.get(SAMPLES, 1) <= len(image.getbands()):  # type: ignore[attr-defined]  # of TIFF images
        return image
    image.close()  # of a second channel that it cannot name, Pillow says nothing
    return open_tiff(source)


def open_tiff(source: Any) -> StoredBands:
    """The first page of a TIFF file of any number of channels."""
    from tifffile import TiffFile

    if isinstance(source, io.BytesIO):
        source.seek(0)
    with TiffFile(source) as file:
        page: Any = file.pages[0]
        tag = page.tags.get(ORIENTATION)
        values = page.asarray()
        if page.planarconfig == 2 and values.ndim == 3:  # a plane for each channel
            values = np.moveaxis(values, 0, 2)
        return StoredBands(channels_last(values), 1 if tag is None else int(tag.value), "TIFF", len(file.pages))


def channels_last(values: NDArray[Any]) -> NDArray[Any]:
    """(H, W, C) of (H, W), (H, W, C) or (C, H, W): the shorter end holds the channels. Raises Unfit."""
    if values.dtype.kind not in "buif":
        raise Unfit(f"holds {values.dtype}, not numbers")
    if values.ndim == 2:
        return values[:, :, None]
    if values.ndim != 3 or not values.size:
        raise Unfit(f"has the shape {values.shape}, not (height, width, channels)")
    return np.moveaxis(values, 0, 2) if values.shape[0] < values.shape[2] else values


def to_picture(stored: Stored, pixels: PixelFormat) -> Picture:
    """A decoded, upright copy: RGB for models of 1 or 3 channels, else all channels. Raises Unfit for others."""
    wanted = pixels.channels
    if isinstance(stored, StoredBands):
        values = to_bytes(stored.upright(), pixels.value_range)
        found = values.shape[2]
        if wanted in ORDINARY and found in ORDINARY:
            grey = np.ascontiguousarray(values[..., 0] if found == 1 else values)
            return Image.fromarray(grey).convert("RGB")
    else:
        image = upright(stored)
        if wanted in ORDINARY:
            return to_rgb(image, pixels.value_range)
        image = eight_bits(image, pixels.value_range)
        if image.mode in ("P", "1"):
            image = image.convert("RGBA" if wanted == 4 else "LA" if wanted == 2 else "RGB")
        values = np.atleast_3d(np.array(image))
        found = values.shape[2]
    if found != wanted:
        raise Unfit(f"has {found} channels, the model takes {wanted} (sweet data stats says which keys fit)")
    return Bands(values)


def upright(image: Image.Image) -> Image.Image:
    """Loaded, and turned as its camera was held; Pillow turns a TIFF itself, while it loads."""
    image.load()
    return ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image


def to_rgb(image: Image.Image, value_range: tuple[float, float] | None = None) -> Image.Image:
    """A decoded upright image as RGB of 8 bits."""
    image = eight_bits(image, value_range)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # directly to RGB, Pillow warns
    if image.mode == "LAB":
        from PIL import ImageCms

        return ImageCms.profileToProfile(  # type: ignore[return-value]  # None only with inPlace
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    return image.convert("RGB")


def eight_bits(image: Image.Image, value_range: tuple[float, float] | None) -> Image.Image:
    """Grey of more than 8 bits as grey of 8; Pillow itself would clip it at 255. Others as they are."""
    values = deep_values(image)
    return image if values is None else Image.fromarray(to_bytes(values, value_range))


def deep_values(image: Image.Image) -> NDArray[Any] | None:
    """(H, W) of grey of more than 8 bits, in the type of the file; None for other images."""
    if not (image.mode.startswith("I;16") or image.mode in DEEP):
        return None
    values = np.asarray(image)
    # of PPM and PNG Pillow has 16 bits in 32
    return values.astype(np.uint16) if image.mode == "I" and image.format in ("PPM", "PNG") else values


def to_bytes(values: NDArray[Any], value_range: tuple[float, float] | None) -> NDArray[np.uint8]:
    """Numbers of any type as 8 bits, see the head of this file. Raises Unfit for a range that is not known."""
    kind = values.dtype.newbyteorder("=")
    if kind == np.uint8:
        return values
    if kind == np.bool_:
        return values.astype(np.uint8) * 255
    if value_range is None:
        if kind == np.uint16:
            return (values >> np.uint16(8)).astype(np.uint8)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        if kind.kind != "f" or not (low >= 0 and high <= 1):
            raise Unfit(
                f"holds {kind} from {low:.6g} to {high:.6g}, and what is black and what is white is not known: "
                "set data.value_range=[LOW,HIGH], in packing --value-range LOW,HIGH (sweet data stats measures it)"
            )
        value_range = (0.0, 1.0)
    low, high = value_range
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.nan_to_num(scaled, nan=0.0).clip(0, 255).round().astype(np.uint8)


def frames(image: Stored) -> int:
    """Images in a file, of which the first is taken: frames of a GIF, pages of a TIFF. This may read all of it."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # what lies behind the first one is damaged
        return 1


def is_rotated(image: Stored) -> bool:
    """Whether the camera was held sideways or upside down."""
    orientation = image.orientation if isinstance(image, StoredBands) else image.getexif().get(ORIENTATION, 1)
    return bool(orientation != 1)


def upright_size(image: Stored) -> tuple[int, int]:
    """(width, height) that :func:`to_picture` gives; read from the header, but of a TIFF."""
    if isinstance(image, StoredBands):
        height, width = image.upright().shape[:2]
        return width, height
    if image.format == "TIFF":  # versions of Pillow differ in whether its header's size is turned already
        return upright(image).size
    sideways = image.getexif().get(ORIENTATION, 1) >= SIDEWAYS
    return (image.height, image.width) if sideways else image.size
