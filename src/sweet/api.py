"""The Python interface: load a folder, build a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sweet.data import ImageSource, open_images
from sweet.files import TENSORS
from sweet.initialise import initialise, switches
from sweet.models.store import StoredSource, load_model, load_source, read_config, source_tensors
from sweet.models.vit import build_vit
from sweet.template.sizes import Size


@dataclass
class SourceModel:
    """A template or dense source in memory, ready to build models of any size."""

    stored: StoredSource

    def build(
        self,
        depth: int,
        heads: int,
        num_classes: int = 0,
        *,
        method: str = "sweet",
        order: str | None = None,
        layers: str | None = None,
        data: ImageSource | str | None = None,
        budget: int | None = None,
        img_size: int | None = None,
        patch_size: int | None = None,
        in_chans: int | None = None,
        seed: int = 0,
        device: str = "auto",
        **options: Any,
    ) -> nn.Module:
        """A plain timm model of ``depth`` blocks and ``heads * head_dim`` channels, in evaluation mode on the CPU.

        ``method`` names an initialiser. ``order`` (``principal``, or ``prefix`` as in the paper) and ``layers``
        (``even`` or ``first``) are its switches, None for its own default; ``data`` are images, or where to find
        them, for a method that looks at ``budget`` of them. Another image size, patch size or number of channels
        is reached by timm's own resampling. ``options`` are further switches of the method (``rule``, ...) or go
        to timm's constructor (``drop_path_rate``, ``dynamic_img_size``, ...). Raises ValueError for an impossible
        size, and UserError for what the method cannot do.
        """
        config = self.stored.config.resized(depth, heads)
        size = Size(depth, heads, config.head_dim)  # checks depth and heads
        given: dict[str, Any] = {"order": order, "layers": layers}
        given |= {name: options.pop(name) for name in switches(method) if name in options}
        images = open_images(data, "train") if isinstance(data, str) else data
        weights = initialise(method, self.stored, size, data=images, budget=budget, seed=seed, device=device, **given)
        # a slice is a view: what is trained from here on must not be the source itself
        shared = {value.untyped_storage().data_ptr() for value in source_tensors(self.stored.source).values()}
        own = {k: v.clone() if v.untyped_storage().data_ptr() in shared else v for k, v in weights.items()}
        return build_vit(
            config,
            own,
            num_classes=num_classes,
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            seed=seed,
            **options,
        )

    @property
    def info(self) -> dict[str, Any]:
        """What ``config.json`` says: size, ranks, data, training budget."""
        return self.stored.info


def load(folder: str | Path, **timm_options: Any) -> SourceModel | nn.Module:
    """A source folder as :class:`SourceModel`, a model folder as a timm model. Raises UserError for anything else."""
    path = Path(folder)
    if read_config(path, tuple(TENSORS))["kind"] == "model":
        return load_model(path, **timm_options)[0]
    return SourceModel(load_source(path))
