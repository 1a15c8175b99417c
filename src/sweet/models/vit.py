"""A plain timm model of any size, made without a random initialisation that would be thrown away."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import timm
import torch
from timm.layers import LayerNorm, RmsNorm, SwiGLUPacked, create_rope_embed
from timm.models import adapt_input_conv
from timm.models.beit import Beit, gen_relative_position_index
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sweet.errors import UserError
from sweet.template.image_size import ImageSize, joined, sides, size_text, whole_patches

from .config import ViTConfig
from .names import our_names, timm_names


def check_timm(version: str) -> None:
    """Raises UserError for one that does not know rotary tables in halves.

    It ignores ``rotate_half`` without a word, and a model rotates other channels than its source did.
    """
    if [int(part) for part in re.findall(r"\d+", version)[:3]] < [1, 0, 31]:
        raise UserError(f"timm {version}: sweet needs 1.0.31 or later; older ones lay rotary tables out otherwise")


check_timm(timm.__version__)


def timm_args(config: ViTConfig) -> dict[str, Any]:
    """Constructor arguments of timm's ``Eva``, ``VisionTransformer`` or ``Beit`` that are fit for JSON."""
    common: dict[str, Any] = {
        "img_size": config.img_size,
        "patch_size": config.patch_size,
        "in_chans": config.in_chans,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "qkv_bias": True,
        "global_pool": "avg",
    }
    return common | {"vit": _vit_args, "eva": _eva_args, "beit": _beit_args}[config.family](config)


def _vit_args(config: ViTConfig) -> dict[str, Any]:
    # of packed SwiGLU layers timm counts gates as hidden units
    matrices = 2 if config.mlp == "swiglu" else 1
    ratio = (matrices * config.hidden + 0.5) / config.width if config.own_hidden or matrices == 2 else 4.0
    args: dict[str, Any] = {
        "class_token": config.class_token,
        "mlp_ratio": ratio,
        "fc_norm": config.final_norm == "pooled",
        "final_norm": config.final_norm != "none",
    }
    optional = {
        "reg_tokens": config.registers,
        "pre_norm": config.pre_norm,
        "qk_norm": config.qk_norm,
        "scale_attn_norm": config.attn_norm,
        "scale_mlp_norm": config.mlp_norm,
    }
    args |= {name: value for name, value in optional.items() if value}
    return args if config.positions == "table" else args | {"pos_embed": "none"}


def _eva_args(config: ViTConfig) -> dict[str, Any]:
    # plain h / D is truncated to h - 1 hidden units at some widths, hence the half
    args: dict[str, Any] = {
        "class_token": config.class_token,
        "mlp_ratio": (config.hidden + 0.5) / config.width,
        "swiglu_mlp": config.mlp == "swiglu",
        "attn_type": "rope",
        "use_fc_norm": config.final_norm == "pooled",
        "use_abs_pos_emb": config.positions == "table",
        "use_rot_pos_emb": config.rotary,
    }
    if config.rotary:
        args |= {
            "rope_type": config.rope,
            "rope_temperature": config.rope_theta,
            "rope_rotate_half": config.rope_layout == "half",
        }
    if config.rope == "cat" and config.rope_grid != -1:
        args["ref_feat_shape"] = list(sides(config.rope_grid))
    optional = {
        "num_reg_tokens": config.registers,
        "use_pre_transformer_norm": config.pre_norm,
        "qk_norm": config.qk_norm,
        "scale_attn_inner": config.attn_norm,
        "scale_mlp": config.mlp_norm,
        "rope_grid_offset": config.rope_offset,
    }
    args |= {name: value for name, value in optional.items() if value}
    if config.rope_indexing != "ij":
        args["rope_grid_indexing"] = config.rope_indexing
    return args | {"use_post_transformer_norm": False} if config.final_norm == "none" else args


def _beit_args(config: ViTConfig) -> dict[str, Any]:
    return {
        "mlp_ratio": (config.hidden + 0.5) / config.width,
        "swiglu_mlp": config.mlp == "swiglu",
        "scale_mlp": config.mlp_norm,
        "use_abs_pos_emb": config.positions == "table",
        "use_rel_pos_bias": True,
        "use_fc_norm": config.final_norm == "pooled",
    }


CLASSES: Mapping[str, type[nn.Module]] = {"eva": Eva, "vit": VisionTransformer, "beit": Beit}
LAYERS = ("norm_layer", "mlp_layer", "act_layer", "embed_norm_layer")  # arguments of :func:`materialised`


def check_options(config: ViTConfig, options: Mapping[str, object]) -> None:
    """Raises UserError for an option that timm's constructor does not have, that the weights decide, or that would have
    no effect."""
    make = CLASSES[config.family]
    fixed = {*timm_args(config), *LAYERS, "num_classes"}
    known = inspect.signature(make).parameters.keys() - fixed
    for name, value in options.items():
        if name in ("device", "dtype") and value is not None:
            raise UserError(f"{name}={value!r}: a model is made in float32 on the CPU; move it with .to() afterwards")
        if name == "init_values" and value not in (None, 1.0):
            raise UserError(f"init_values={value!r}: should be 1.0; with other layer scales it is another function")
        if name not in known:
            why = "is decided by the weights" if name in fixed else f"timm's {make.__name__} has no such option"
            raise UserError(f"{name}={value!r}: {why}")


def materialised(config: ViTConfig, num_classes: int = 0, **timm_options: Any) -> Any:
    """The timm model as timm makes it, with timm's random weights."""
    norm = partial(RmsNorm if config.norm == "rms" else LayerNorm, eps=config.eps)
    make = CLASSES[config.family]
    layers: dict[str, Any] = {"norm_layer": norm}
    if config.family == "vit":
        if config.mlp == "swiglu":
            layers["mlp_layer"] = SwiGLUPacked
        if config.activation != "gelu":
            layers["act_layer"] = config.activation
        if config.patch_norm:
            layers["embed_norm_layer"] = norm
    return make(**timm_args(config), **layers, num_classes=num_classes, **timm_options)


class _Undrawn(TorchFunctionMode):
    """Initialisers leave a tensor as it is. On the meta device they change nothing and take most of the time."""

    DRAWING = frozenset("uniform_ normal_ kaiming_uniform_ erfinv_ mul_ add_ clamp_ fill_ zero_".split())

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.__name__ in self.DRAWING:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def skeleton(config: ViTConfig, num_classes: int = 0, **timm_options: Any) -> Any:
    """The timm model on the meta device: all names and shapes, no memory, milliseconds."""
    with torch.device("meta"), _Undrawn():
        return materialised(config, num_classes, **timm_options)


@lru_cache(maxsize=64)
def encoder_shapes(config: ViTConfig) -> Mapping[str, torch.Size]:
    """Name and shape of every parameter of the encoder (no head) under our names, see :mod:`.names`."""
    return {name: value.shape for name, value in our_names(dict(skeleton(config).named_parameters())).items()}


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
    img_size: ImageSize | None = None,
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
    if config.family == "beit" and timm_options.pop("dynamic_img_size", False):
        raise ValueError("relative positions (Beit) are those of one image size, and this task takes any")
    check_options(config, timm_options)
    model = skeleton(config, num_classes, **timm_options)
    shapes = {name: value.shape for name, value in model.named_parameters()}
    encoder = {name: value for name, value in weights.items() if not name.startswith("decoder.")}
    state = encoder if encoder.keys() == shapes.keys() else timm_names(encoder, shapes)
    if num_classes and "head.weight" not in state:
        generator = torch.Generator().manual_seed(seed)
        state["head.weight"] = torch.randn(shapes["head.weight"], generator=generator) * 2e-5
        state["head.bias"] = torch.zeros(shapes["head.bias"])
    if problem := mismatch(state, shapes):
        raise ValueError(problem)
    parameters = {name: nn.Parameter(value.detach().contiguous()) for name, value in state.items()}
    model.load_state_dict(parameters, assign=True)
    _fill_buffers(model, config)
    _reshape(model, img_size, patch_size, in_chans)
    return model.eval()


def resizable(
    config: ViTConfig, *, img_size: ImageSize | None = None, patch_size: int | None = None, in_chans: int | None = None
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
    options: dict[str, Any] = {"grid_indexing": config.rope_indexing}
    if config.rope == "mixed":
        options["depth"] = config.depth
    else:
        options |= {"rotate_half": config.rope_layout == "half", "grid_offset": config.rope_offset}
    if config.rope in ("cat", "none"):
        options |= {"in_pixels": False, "ref_feat_shape": None if config.rope_grid == -1 else sides(config.rope_grid)}
    return create_rope_embed(
        rope_type=config.rope if config.rotary else "cat",
        dim=config.width,
        num_heads=config.heads,
        feat_shape=None if dynamic else config.grid,
        temperature=config.rope_theta,
        **options,
    )


def _fill_buffers(model: Any, config: ViTConfig) -> None:
    """What a model from the meta device computes for itself: rotary tables and the indices of relative positions."""
    if config.rotary:
        rope = rope_module(config, dynamic=model.dynamic_img_size)
        if config.rope == "mixed":
            rope.freqs = model.rope.freqs
        model.rope = rope
    if config.family == "beit":
        for block in model.blocks:
            attention = block.attn
            attention.k_bias = torch.zeros(config.width)
            attention.relative_position_index = gen_relative_position_index(attention.window_size)


def _reshape(model: Any, img_size: ImageSize | None, patch_size: int | None, in_chans: int | None) -> None:
    if img_size is not None or patch_size is not None:
        embed = model.patch_embed
        pixels, patch = img_size or joined(*embed.img_size), patch_size or embed.patch_size[0]
        if not whole_patches(pixels, patch):
            raise ValueError(f"image size {size_text(pixels)} is not a multiple of patch size {patch}")
        model.set_input_size(img_size=img_size, patch_size=patch_size)
    old = model.patch_embed.proj
    if in_chans is None or in_chans == old.in_channels:
        return
    new = nn.Conv2d(in_chans, old.out_channels, old.kernel_size, old.stride, device="meta")
    new.weight = nn.Parameter(adapt_input_conv(in_chans, old.weight.detach(), base_chans=old.in_channels))
    new.bias = old.bias
    model.patch_embed.proj = new
    model.in_chans = in_chans
