"""Sources and models as folders: which tensors lie where, and how they come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from sweet.errors import UserError
from sweet.files import decode_text
from sweet.models.config import MaeConfig, ViTConfig
from sweet.models.mae import source_from_state
from sweet.models.names import our_names, without_layer_scales
from sweet.models.resample import at_image_size
from sweet.models.vit import build_vit
from sweet.template.constraints import core_of
from sweet.template.image_size import ImageSize
from sweet.template.order import Order
from sweet.template.slices import under, unstack_blocks
from sweet.template.source import Source
from sweet.template.target import as_trained
from sweet.template.tucker import Full

from .header import ORDER
from .integrity import checked_tensors
from .layout import TENSORS
from .records import DataConfig, FolderRecord, read_record
from .timm_cfg import attach_cfg


@dataclass
class StoredSource:
    """A template or dense source in memory: its tensors, and its ``config.json``.

    ``texts`` are the files beside them that people read: ``README.md``, ``recipe.yaml``.
    """

    source: Source
    record: FolderRecord
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> ViTConfig:
        """Its shape."""
        return self.record.vit

    @property
    def mae(self) -> MaeConfig:
        """The shape of its decoder, the default where it has none."""
        return self.record.mae or MaeConfig()

    @property
    def data(self) -> DataConfig:
        """How its images are read and normalised."""
        return self.record.data

    @cached_property
    def as_trained(self) -> Source:
        """:func:`sweet.template.target.as_trained`, computed once for all targets in prefix order."""
        return as_trained(self.source)

    def at_size(self, img_size: ImageSize | None) -> Self:
        """The same source for images of ``img_size`` pixels, see :func:`sweet.models.resample.at_image_size`."""
        sized = at_image_size(self.source, self.config, img_size)
        if sized.config == self.config:
            return self
        data = self.data.model_copy(update={"img_size": img_size})
        record = self.record.model_copy(update={"vit": sized.config, "data": data})
        return replace(self, source=sized.source, record=record)

    def own(self, weights: Mapping[str, Tensor]) -> set[str]:
        """Names of the weights that are no views of this source's tensors: they may be changed in place."""
        sources = [self.source, *([self.as_trained] if "as_trained" in self.__dict__ else [])]
        tensors = [value for source in sources for value in source_tensors(source).values()]
        shared = {value.untyped_storage().data_ptr() for value in tensors}
        return {name for name, value in weights.items() if value.untyped_storage().data_ptr() not in shared}


def source_tensors(source: Source) -> dict[str, Tensor]:
    """Flat dict of a source's file: ``core.*``, ``blocks.*``, ``stem.*`` or, dense, an encoder under timm's names."""
    if isinstance(source.core, Full):
        tensors = unstack_blocks(source.core.weights | source.blocks) | source.stem
    else:
        tensors = {f"core.{name}": value for name, value in source.core.tensors().items()}
        tensors |= {f"blocks.{name}": value for name, value in source.blocks.items()}
        tensors |= {f"stem.{name}": value for name, value in source.stem.items()}
    tensors |= {f"decoder.{name}": value for name, value in source.decoder.items()}
    if source.order is not None:
        tensors |= {f"order.{name}": getattr(source.order, name) for name in ORDER}
        if source.order.embedding is not None:
            tensors["order.embedding"] = source.order.embedding
    return tensors


def in_float32(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a file holds in half precision is computed in float32."""
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def in_type(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights in half precision; the order stays in float32, and so does what float16 cannot hold."""

    def small(name: str, value: Tensor) -> Tensor:
        if not value.is_floating_point() or name.startswith("order."):
            return value
        half = value.to(dtype)
        return half if bool(half.isfinite().all()) else value

    return {name: small(name, value) for name, value in tensors.items()}


def source_from_tensors(
    tensors: dict[str, Tensor], config: ViTConfig, *, constraint: str, absorbed: bool = False
) -> Source:
    """Inverse of :func:`source_tensors`, in float32; ``absorbed`` as in :class:`sweet.template.order.Order`."""
    tensors = in_float32(tensors)
    known = under("order.", tensors)  # of a version that did not order heads and units it counts as none
    order = Order(**known, absorbed=absorbed) if set(ORDER) <= known.keys() else None
    if constraint == "none":
        source = source_from_state({k: v for k, v in tensors.items() if not k.startswith("order.")}, config)
        source.order = order
        return source
    return Source(
        core=core_of(constraint, under("core.", tensors), config.depth, config.own_hidden),
        blocks=under("blocks.", tensors),
        stem=under("stem.", tensors),
        decoder=under("decoder.", tensors),
        mlp=config.mlp,
        norm=config.norm,
        order=order,
    )


def load_source(folder: Path) -> StoredSource:
    """A template or dense source. Raises UserError naming the folder for anything else."""
    record = read_record(folder, ("template", "dense"))
    file = folder / TENSORS[record.kind]
    tensors = checked_tensors(folder, record)
    try:
        source = source_from_tensors(tensors, record.vit, constraint=record.constraint, absorbed=record.absorbed)
    except (KeyError, TypeError) as problem:
        raise UserError(f"{file}: tensor {problem} is missing") from None
    _check_order(file, source.order)
    texts = [folder / name for name in ("README.md", "recipe.yaml")]
    return StoredSource(source, record, {p.name: decode_text(p) for p in texts if p.is_file()})


def _check_order(file: Path, order: Order | None) -> None:
    """Heads and hidden units of an order are permutations, or a slice would reach outside a matrix."""
    for name in ("heads", "units") if order is not None else ():
        rows = getattr(order, name)
        if not bool((rows.long().sort(1).values == torch.arange(rows.shape[1])).all()):
            raise UserError(f"{file}: tensor order.{name} does not number each of them once")


def backbone_tensors(folder: Path, record: FolderRecord) -> dict[str, Tensor]:
    """Tensors of a model folder under the names of timm's class; what a task put around the ViT is left out."""
    tensors = checked_tensors(folder, record)
    return under("vit.", tensors) or tensors


def load_model(
    folder: Path, num_classes: int | None = None, *, new_head: bool = False, **timm_options: Any
) -> tuple[nn.Module, FolderRecord]:
    """The timm model of a model folder, or of its export for timm, and its record.

    What a task put around it is left out. ``num_classes`` other than the stored head's gives a new head, and so does
    ``new_head``. Raises UserError naming folder and parameter.
    """
    record = read_record(folder, ("model",))
    tensors = our_names(without_layer_scales(in_float32(backbone_tensors(folder, record))))
    stored = tensors["head.weight"].shape[0] if "head.weight" in tensors else 0
    wanted = stored if num_classes is None else num_classes
    if new_head or wanted != stored:
        tensors = {name: value for name, value in tensors.items() if not name.startswith("head.")}
    try:
        model = build_vit(record.vit, tensors, num_classes=wanted, **timm_options)
    except ValueError as problem:
        raise UserError(f"{folder / TENSORS['model']}: {problem}") from None
    attach_cfg(model, record.data)
    return model, record
