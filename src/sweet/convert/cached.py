"""A SOURCE of any verb as a folder of sweet: a checkpoint of others is converted on the way, once for its checksum."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sweet.console import say
from sweet.data import open_images
from sweet.data.images import digest
from sweet.errors import UserError
from sweet.files import cache_folder
from sweet.storage import hub
from sweet.storage.ownership import BEGUN
from sweet.storage.paths import check_patches
from sweet.storage.records import FOREIGN
from sweet.template.image_size import ImageSize

from .checkpoints import Checkpoint
from .convert import ConvertOptions, convert_checkpoint
from .order_images import note_size
from .read import read, repository
from .snapshot import config_of

CONVERTED = "converted"  # in the cache folder
FORMAT = 2  # part of the key: raise it when the same checkpoint becomes another template


def as_source(
    source: str | Path,
    *,
    data: str | None = None,
    img_size: ImageSize | None = None,
    patch_size: int | None = None,
    device: str = "auto",
) -> Path:
    """The folder of sweet that ``source`` is, or the one that is converted from it and kept in the cache.

    A source of sweet is taken as it is. ``timm:NAME``, ``hub:USER/NAME``, a file of weights or a folder of timm or
    transformers is converted: ``data`` are images for the principal order. ``img_size`` and ``patch_size`` are those of
    the models, where not the checkpoint's; images are seen at that size unless patches change as well. Raises UserError
    for what is neither, and for ``data`` without use.
    """
    if is_source(source):
        if data is not None:
            raise UserError(f"--data {data}: is for a checkpoint that is converted on the way; {source} is none")
        return hub.local_folder(source)
    seen_at = img_size if patch_size is None else None  # as in at_size_of_use
    chosen = ConvertOptions(data=data, img_size=seen_at, device=device)
    chosen.check_images()
    return _converted(str(source), chosen, img_size)


def is_source(source: str | Path) -> bool:
    """Whether it is no checkpoint of others: a folder of sweet, its exports included, or one that is not there or
    holds nothing known."""
    text = str(source)
    if text.startswith("timm:"):
        return False
    folder = repository(text) if hub.is_hub_name(text) else Path(source).expanduser()
    if folder.is_file():
        return False
    keys = config_of(folder).keys()
    return bool({"kind", "sweet"} & keys) or not FOREIGN & keys


def _converted(source: str, options: ConvertOptions, img_size: ImageSize | None) -> Path:
    checkpoint, order = read(source)
    if options.img_size is not None:
        check_patches(options.img_size, checkpoint.config.patch_size)
    note_size(checkpoint, img_size)
    out = cache_folder() / CONVERTED / _name(checkpoint, options)
    if (out / "config.json").is_file():
        with suppress(OSError):  # in a cache of somebody else's that may only be read
            os.utime(out)  # when it was last used
        return out
    say(f"{source}: is converted once, to be kept in {out}")
    if options.data is None:
        say("note: its principal order is computed from synthetic scenes; --data SRC, images of your kind, keeps more")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=BEGUN, dir=out.parent) as place:
        made = Path(place) / "template"
        made.mkdir()
        convert_checkpoint(checkpoint, order, made, options)
        if (out / "config.json").is_file():  # another process was faster, and reads it
            return out
        shutil.rmtree(out, ignore_errors=True)
        try:
            os.replace(made, out)
        except OSError:  # one was faster by less
            if not (out / "config.json").is_file():
                raise
    return out


def _name(checkpoint: Checkpoint, options: ConvertOptions) -> str:
    """Readable, and another one for other weights, images, sizes of images, or another licence."""
    stem = re.sub(r"[^\w.]+", "-", Path(checkpoint.name.removeprefix("timm:")).name)
    images: Sequence[object] = ()
    if options.data is not None:
        found = open_images(options.data, "train", val_share=0.0)
        images = (options.data, found.fingerprint())
    described = checkpoint.config, checkpoint.data, checkpoint.mae, checkpoint.origin
    key = digest(FORMAT, checkpoint.sha256, *described, *images, options.img_size)
    return f"{stem}-{key[:12]}"
