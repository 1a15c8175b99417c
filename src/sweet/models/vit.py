"""A plain timm model of any size, made without a random initialisation that would be thrown away."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import timm
import torch
from timm.layers import LayerNorm, RmsNorm, create_rope_embed
from timm.models import adapt_input_conv
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sweet.errors import UserError
from sweet.template.sizes import hidden_features

from .config import ViTConfig


def check_timm(version: str) -> None:
    """Raises UserError for one that does not know rotary tables in halves.

    It ignores ``rotate_half`` without a word, and a model rotates other channels than its source did.
    """
    if [int(part) for part in re.findall(r"\d+", version)[:3]] < [1, 0, 31]:
        raise UserError(f"timm {version}: sweet needs 1.0.31 or later; older ones lay rotary tables out otherwise")


check_timm(timm.__version__)


def timm_args(config: ViTConfig) -> dict[str, Any]:
    """Constructor arguments of timm's ``Eva`` or ``VisionTransformer``, all but the norm fit for JSON."""
    common: dict[str, Any] = {
        "img_size": config.img_size,
        "patch_size": config.patch_size,
        "in_chans": config.in_chans,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "qkv_bias": True,
        "global_pool": "avg",
        "class_token": True,
    }
    if config.family == "vit":
        return common | {"mlp_ratio": 4.0, "fc_norm": False, "final_norm": True}
    # plain h / D is truncated to h - 1 hidden units at some widths, hence the half
    ratio = (hidden_features(config.width, "swiglu") + 0.5) / config.width
    return common | {
        "mlp_ratio": ratio,
        "swiglu_mlp": True,
        "attn_type": "rope",
        "use_fc_norm": False,
        "use_abs_pos_emb": False,
        "use_rot_pos_emb": True,
        "rope_type": "cat",
        "rope_temperature": config.rope_theta,
        "rope_rotate_half": True,
        "ref_feat_shape": [config.rope_grid, config.rope_grid],
    }


def check_options(config: ViTConfig, options: Mapping[str, object]) -> None:
    """Raises UserError for an option that timm's constructor does not have, or that the weights decide."""
    make = Eva if config.family == "eva" else VisionTransformer
    fixed = {*timm_args(config), "norm_layer", "num_classes"}
    known = inspect.signature(make).parameters.keys() - fixed
    for name, value in options.items():
        if name not in known:
            why = "is decided by the weights" if name in fixed else f"timm's {make.__name__} has no such option"
            raise UserError(f"{name}={value!r}: {why}")


def materialised(config: ViTConfig, num_classes: int = 0, **timm_options: Any) -> Any:
    """The timm model as timm makes it, with timm's random weights."""
    norm = RmsNorm if config.norm == "rms" else LayerNorm
    make = Eva if config.family == "eva" else VisionTransformer
    return make(**timm_args(config), norm_layer=partial(norm, eps=config.eps), num_classes=num_classes, **timm_options)


def skeleton(config: ViTConfig, num_classes: int = 0, **timm_options: Any) -> Any:
    """The timm model on the meta device: all names and shapes, no memory, milliseconds."""
    with torch.device("meta"):
        return materialised(config, num_classes, **timm_options)


def encoder_shapes(config: ViTConfig) -> dict[str, torch.Size]:
    """Name and shape of every parameter of the encoder (no head)."""
    return {name: value.shape for name, value in skeleton(config).named_parameters()}


def mismatch(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> str | None:
    """The first parameter that is missing, unknown or of another shape than ``shapes`` say; None if all fit."""
    for name in sorted(shapes.keys() | state.keys()):
        if name not in state or name not in shapes:
            return f"parameter {name} is {'missing' if name in shapes else 'unknown'}"
        if state[name].shape != shapes[name]:
            return f"parameter {name}: shape {tuple(state[name].shape)}, expected {tuple(shapes[name])}"
    return None


def build_vit(
    config: ViTConfig,
    weights: Mapping[str, Tensor],
    *,
    num_classes: int = 0,
    img_size: int | None = None,
    patch_size: int | None = None,
    in_chans: int | None = None,
    seed: int = 0,
    **timm_options: Any,
) -> Any:
    """A timm model on the CPU that holds exactly ``weights`` (encoder, optionally ``head.*``).

    A head that ``weights`` lacks is drawn from N(0, 2e-5) by ``seed``, bias zero (MAE's fine-tuning recipe). Another
    image size, patch size or number of channels is reached by timm's own resampling. Raises ValueError naming the
    parameter when one is missing, unknown or of the wrong shape, and UserError for an option that timm does not have.
    """
    check_options(config, timm_options)
    model = skeleton(config, num_classes, **timm_options)
    state = {name: value for name, value in weights.items() if not name.startswith("decoder.")}
    shapes = {name: value.shape for name, value in model.named_parameters()}
    if num_classes and "head.weight" not in state:
        generator = torch.Generator().manual_seed(seed)
        state["head.weight"] = torch.randn(shapes["head.weight"], generator=generator) * 2e-5
        state["head.bias"] = torch.zeros(shapes["head.bias"])
    if problem := mismatch(state, shapes):
        raise ValueError(problem)
    parameters = {name: nn.Parameter(value.detach().contiguous()) for name, value in state.items()}
    model.load_state_dict(parameters, assign=True)
    if config.rotary:
        model.rope = rope_module(config, dynamic=model.dynamic_img_size)
    _reshape(model, img_size, patch_size, in_chans)
    return model.eval()


def resizable(
    config: ViTConfig, *, img_size: int | None = None, patch_size: int | None = None, in_chans: int | None = None
) -> str | None:
    """Why timm cannot reach another image, patch or channel size; None where it can. Allocates nothing."""
    model = skeleton(config.resized(1, 1))
    try:
        with torch.device("meta"):
            _reshape(model, img_size, patch_size, in_chans)
    except (ValueError, AssertionError) as problem:
        return str(problem) or type(problem).__name__
    return None


def rope_module(config: ViTConfig, *, dynamic: bool = False) -> Any:
    """timm's rotary table on the CPU: the one thing of a skeleton that is no parameter.

    A ``dynamic`` one is computed for the grid of each batch.
    """
    return create_rope_embed(
        rope_type="cat",
        dim=config.width,
        num_heads=config.heads,
        feat_shape=None if dynamic else (config.grid, config.grid),
        temperature=config.rope_theta,
        grid_indexing="ij",
        rotate_half=True,
        in_pixels=False,
        grid_offset=0.0,
        ref_feat_shape=(config.rope_grid, config.rope_grid),
    )


def _reshape(model: Any, img_size: int | None, patch_size: int | None, in_chans: int | None) -> None:
    if img_size is not None or patch_size is not None:
        pixels, patch = img_size or model.patch_embed.img_size[0], patch_size or model.patch_embed.patch_size[0]
        if pixels % patch:
            raise ValueError(f"image size {pixels} is not a multiple of patch size {patch}")
        model.set_input_size(img_size=img_size, patch_size=patch_size)
    old = model.patch_embed.proj
    if in_chans is None or in_chans == old.in_channels:
        return
    new = nn.Conv2d(in_chans, old.out_channels, old.kernel_size, old.stride, device="meta")
    new.weight = nn.Parameter(adapt_input_conv(in_chans, old.weight.detach(), base_chans=old.in_channels))
    new.bias = old.bias
    model.patch_embed.proj = new
    model.in_chans = in_chans
