"""The Python interface: load a folder, build a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sweet.files import TENSORS
from sweet.models.store import StoredSource, load_model, load_source, read_config, source_tensors
from sweet.models.vit import build_vit
from sweet.template.target import target_weights


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
        order: str = "principal",
        layers: str = "even",
        img_size: int | None = None,
        patch_size: int | None = None,
        in_chans: int | None = None,
        seed: int = 0,
        **timm_options: Any,
    ) -> nn.Module:
        """A plain timm model of ``depth`` blocks and ``heads * head_dim`` channels, in evaluation mode on the CPU.

        ``order`` is ``principal`` or ``prefix`` (the paper), ``layers`` is ``even`` or ``first``. Another image size,
        patch size or number of channels is reached by timm's own resampling; ``timm_options`` go to timm's
        constructor (``drop_path_rate``, ``dynamic_img_size``, ...). Raises ValueError for an impossible size.
        """
        config = self.stored.config.resized(depth, heads)
        size = config.size  # checks depth and heads
        source = self.stored.source
        weights = target_weights(source, size.depth, size.width, order=order, layers=layers, seed=seed)
        # a slice is a view: what is trained from here on must not be the source itself
        shared = {value.untyped_storage().data_ptr() for value in source_tensors(source).values()}
        own = {k: v.clone() if v.untyped_storage().data_ptr() in shared else v for k, v in weights.items()}
        return build_vit(
            config,
            own,
            num_classes=num_classes,
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            seed=seed,
            **timm_options,
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
