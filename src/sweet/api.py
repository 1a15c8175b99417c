"""The Python interface: load a folder or a repository of the hub, build a model, hand a template on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sweet.convert.cached import as_source, is_source
from sweet.costs.budget import Budget, chosen_budget, size_cost
from sweet.data import ImageSource, open_images
from sweet.errors import UserError
from sweet.files import verifying
from sweet.initialise.apply import at_size_of_use, initialise, recommended, switches
from sweet.initialise.registry import AFTER
from sweet.initialise.shape import resolve_shape
from sweet.models.device import plain_tensors, resolve_device
from sweet.models.vit import build_vit, check_options
from sweet.storage import hub
from sweet.storage.cards import default_licence, front_matter, shareable, without_front_matter
from sweet.storage.folders import StoredSource, in_type, load_model, load_source, source_tensors
from sweet.storage.layout import TENSORS, write_folder
from sweet.storage.paths import check_whole, checked_pixels
from sweet.storage.records import DataConfig, read_record
from sweet.storage.timm_cfg import attach_cfg
from sweet.template.image_size import ImageSize, size_text


class Template(StoredSource):
    """A template (or a dense source) in memory, ready to build models of any size."""

    @classmethod
    @plain_tensors()
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        verify: bool = True,
    ) -> Template:
        """A folder, or ``user/name`` of the hub, as :func:`load` finds it. Raises UserError for what is no source."""
        with verifying(verify):
            stored = load_source(hub.local_folder(name, revision=revision, token=token, cache_dir=cache_dir))
        return cls(stored.source, stored.record, stored.texts)

    def save_pretrained(self, folder: str | Path, *, licence: str | None = None) -> None:
        """Write the folder from which :meth:`from_pretrained` reads the same template.

        A ``licence``, as the hub names it, puts the block before the card by which the hub finds things, in place of
        the one that is there.
        """
        recipe, card = shareable(self.texts.get("recipe.yaml", "")), self.texts.get("README.md", "")
        if licence is not None:
            card = front_matter(self.record, licence=licence, library="sweet") + without_front_matter(card)
        tensors = source_tensors(self.source)
        if self.record.dtype is not None:
            tensors = in_type(tensors, getattr(torch, self.record.dtype))
        write_folder(Path(folder), (TENSORS[self.record.kind], tensors), self.record, recipe, card)

    def hub_licence(self, licence: str | None = None) -> str | None:
        """``licence``, else that of the checkpoint it was made from, else ``other``; None: its card states one."""
        card = self.texts.get("README.md", "")
        stated = licence is None and without_front_matter(card) != card
        return None if stated else licence or default_licence(self.record)

    def push_to_hub(
        self, repo: str, *, private: bool | None = None, token: str | None = None, licence: str | None = None
    ) -> str:
        """Upload it as ``user/name`` and return the address; ``licence`` as in :meth:`hub_licence`.

        Raises UserError naming the repository.
        """
        hub.check_repo(repo)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, licence=self.hub_licence(licence))
            return hub.upload(Path(folder), repo, private=private, token=token, message="Upload template by sweet")

    @plain_tensors()
    def build(
        self,
        depth: int | None = None,
        heads: int | None = None,
        num_classes: int = 0,
        *,
        params: str | float | None = None,
        flops: str | float | None = None,
        method: str = "sweet",
        order: str | None = None,
        layers: str | None = None,
        data: ImageSource | str | None = None,
        budget: int | None = None,
        img_size: ImageSize | None = None,
        patch_size: int | None = None,
        in_chans: int | None = None,
        seed: int = 0,
        device: str = "auto",
        **options: Any,
    ) -> nn.Module:
        """A plain timm model of ``depth`` blocks and ``heads * head_dim`` channels, in evaluation mode on the CPU.

        Arguments: instead of a size, ``params="12M"`` or ``flops="2G"`` take the largest that fits, as ``sweet init``
        does. ``num_classes`` 0 leaves the head out. ``method`` names an initialiser; ``order`` (``principal``, or
        ``prefix`` as in the paper) and ``layers`` (``even`` or ``first``) are its switches, None for its own default.
        ``data`` are images, or where to find them, for a method that looks at ``budget`` of them. timm resamples the
        weights to another ``img_size``, ``patch_size`` or ``in_chans``. ``seed`` draws the head and what a method
        draws; a method that trains does so on ``device``. ``options`` are further switches of the method (``rule``,
        ...) or go to timm's constructor (``drop_path_rate``, ``dynamic_img_size``, ...).
        Returns: a model with ``pretrained_cfg``, from which ``timm.data.resolve_model_data_config`` takes the image
        size and the normalisation of the source.
        Raises: UserError naming the argument and its value, for what is impossible and for what the method cannot do.
        """
        channels = {"patch_size": patch_size, "in_chans": in_chans}
        check_whole({"depth": depth, "heads": heads, **channels, "budget": budget}, least=1)
        pixels = checked_pixels(img_size)
        check_whole({"num_classes": num_classes, "seed": seed}, least=0)
        depth, heads = (number and int(number) for number in (depth, heads))  # NumPy's are no int
        resolve_device(device)
        given = {name: options.pop(name) for name in (*switches(method), *AFTER) if name in options}
        chosen: dict[str, Any] = recommended(method, self, given | {"order": order, "layers": layers})
        check_options(self.config, options)
        size = resolve_shape(
            self.config, depth, heads, _budget(depth, heads, params, flops), img_size=pixels, **channels
        ).config.size

        images = _opened(data, self.data)
        source = at_size_of_use(self, method, chosen, pixels, patch_size)
        weights = initialise(method, source, size, data=images, budget=budget, seed=int(seed), device=device, **chosen)
        # a slice is a view: what is trained from here on must not be the source itself
        own = self.own(weights)
        weights = {name: value if name in own else value.clone() for name, value in weights.items()}
        config = source.config.resized(size.depth, size.heads)
        more: dict[str, Any] = {"img_size": pixels, **channels, **options}
        try:
            vit: nn.Module = build_vit(config, weights, num_classes=num_classes, seed=int(seed), **more)
        except ValueError as problem:
            raise UserError(f"build: {problem}") from None
        attach_cfg(vit, self.data.model_copy(update={"classes": None}))  # the head is new: it has no names yet
        return vit

    def __repr__(self) -> str:
        config, record = self.config, self.record
        params = size_cost(config, config.size).params
        return (
            f"Template({record.kind} {config.size}, width {config.width}, {params:,} parameters at this size, "
            f"constraint {record.constraint}, {size_text(config.img_size)} px, patch {config.patch_size})"
        )

    @property
    def info(self) -> Mapping[str, Any]:
        """``config.json``: size, ranks, data, training budget."""
        return self.record.to_dict()


@plain_tensors()
def load(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    data: str | None = None,
    verify: bool = True,
    **timm_options: Any,
) -> Template | nn.Module:
    """A source as :class:`Template`, a model as a timm model: of a folder, or of the hub's repository ``user/name``.

    A checkpoint of others (``timm:NAME``, ``hub:user/name``, a file of weights, a folder of timm or transformers) is
    converted once, kept in the cache and given as a :class:`Template`; ``data`` names images for its principal order,
    which sees them at ``img_size``, that of the models to build (default: the checkpoint's, at most 224).

    A folder of that name wins. ``revision`` is a branch, tag or commit (also ``user/name@revision``); ``token``,
    ``cache_dir`` and the environment (HF_HUB_OFFLINE, HF_HOME, ...) mean what they mean everywhere on the hub, and
    only weights, config and card are downloaded. ``verify``: first compare weights and config with SHA256SUMS.
    ``timm_options`` (``num_classes``, ``drop_path_rate``, ...) are for models, which carry ``pretrained_cfg`` for
    timm's transforms. Raises UserError for anything else.
    """
    if not isinstance(name, str | os.PathLike):
        raise UserError(f"name={name!r}: expected a folder, or the name of a repository or a checkpoint")
    plain = revision is None and token is None and cache_dir is None
    refusal = f"{name}: is a source; {', '.join(timm_options)}: options of a model, give them to build()"
    if plain and not is_source(name):
        pixels = checked_pixels(timm_options.pop("img_size", None))
        if timm_options:  # before minutes of converting
            raise UserError(refusal)
        folder = as_source(name, data=data, img_size=pixels)
    elif data is not None:
        raise UserError(f"data={data}: is for a checkpoint that is converted on the way; {name} is none")
    else:
        folder = hub.local_folder(name, revision=revision, token=token, cache_dir=cache_dir)
    if read_record(folder, tuple(TENSORS)).kind == "model":
        with verifying(verify):
            return load_model(folder, **timm_options)[0]
    if timm_options:
        raise UserError(refusal)
    return Template.from_pretrained(folder, verify=verify)


def _budget(
    depth: int | None, heads: int | None, params: str | float | None, flops: str | float | None
) -> Budget | None:
    """What ``params`` or ``flops`` allow; None where a size is given. Raises UserError unless it is exactly one."""
    budget = chosen_budget(params, flops, None, {"depth": depth, "heads": heads})
    if budget is None and None in (depth, heads):
        raise UserError("build: give depth and heads, or params, or flops")
    return budget


def _opened(data: ImageSource | str | None, pixels: DataConfig) -> ImageSource | None:
    """The images that ``data`` names or is. Raises UserError for anything else, a tensor for example."""
    if not isinstance(data, ImageSource | str | None):
        raise UserError(f"data={type(data).__name__}: expected where images are, such as folder:PATH, or a source")
    return open_images(data, "train", pixels=pixels) if isinstance(data, str) else data
