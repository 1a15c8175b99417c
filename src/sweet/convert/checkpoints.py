"""Vision Transformers that others trained: weights of timm or of MAE become an encoder of ours, or one clear refusal.

What is exact is folded (layer scale, separate q/k/v, absent biases, positions without a class token); whatever our
:class:`ViTConfig` cannot express raises a UserError that names the parameter and its value.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

from sweet.data.batches import IMAGENET_MEAN, IMAGENET_STD
from sweet.errors import UserError
from sweet.models.config import MaeConfig, ViTConfig
from sweet.models.mae import sincos
from sweet.models.vit import encoder_shapes, mismatch
from sweet.storage.records import DataConfig, OriginRecord, WidthRecord
from sweet.template.sizes import hidden_features

HEAD = ("head.", "fc_norm.", "head_drop.", "attn_pool.")
MAE_DECODER_HEADS = 16
# Patterns of the names of tensors that no ViT of ours has.
UNSUPPORTED = {
    r"attn\.[qk]_norm\.": "qk_norm: queries and keys are normalised",
    r"attn\.norm\.": "scale_attn_norm: attention outputs are normalised",
    r"mlp\.norm\.": "scale_mlp: hidden units are normalised",
    r"attn\.gate\.": "gated_attn: attention outputs are gated",
    r"^reg_token$": "reg_tokens: register tokens",
    r"^storage_tokens$": "reg_tokens: register tokens",
    r"^dist_token$": "dist_token: a distillation token",
    r"^norm_pre\.": "pre_norm: a norm before the blocks",
    r"rel_pos|relative_position": "relative position biases",
    r"^rope\.": "learned rotary frequencies",
    r"^patch_embed\.norm\.": "a norm in the patch embedding",
}


@dataclass
class Checkpoint:
    """An encoder under timm's names (no head; ``decoder.*`` where MAE left one), and where it comes from.

    ``data`` is how its images are read and normalised, ``dtype`` the type of its numbers on disk, ``assumed`` what
    no file says and was taken for granted, ``origin`` whose it is, ``width`` the stochastic width that sweet learned
    it by.
    """

    name: str
    sha256: str
    config: ViTConfig
    state: dict[str, Tensor]
    data: DataConfig
    mae: MaeConfig | None = None
    dtype: torch.dtype = torch.float32
    assumed: tuple[str, ...] = ()
    origin: OriginRecord | None = None
    width: WidthRecord | None = None


def data_config(
    config: ViTConfig,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
) -> DataConfig:
    """How the images of a checkpoint are read; what it does not say is ImageNet's, or 0.5 for other channels."""
    rgb, grey = config.in_chans == 3, (0.5,) * config.in_chans
    return DataConfig(
        img_size=config.img_size,
        mean=tuple(mean or (IMAGENET_MEAN if rgb else grey)),
        std=tuple(std or (IMAGENET_STD if rgb else grey)),
        interpolation="bilinear" if interpolation == "bilinear" else "bicubic",
    )


def canonical(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """An encoder's state dict with timm's names, fused qkv, all biases, layer scale folded into o and down, no head.

    ``where`` names the source in errors. Raises UserError for tensors that no ViT of ours has.
    """
    for name in state:
        for pattern, feature in UNSUPPORTED.items():
            if re.search(pattern, name):
                raise UserError(f"{where}: {feature} ({name} {tuple(state[name].shape)}), which sweet's ViT has not")
    if "norm.weight" not in state and "fc_norm.weight" in state:
        raise UserError(f"{where}: fc_norm: its final norm follows the pooling; sweet's ViT norms the tokens")
    if "cls_token" not in state:
        raise UserError(f"{where}: class_token: it has none (no tensor cls_token)")
    state = {name: value for name, value in state.items() if not name.startswith(HEAD)}
    depth = depth_of(state, where)
    for i in range(depth):
        _canonical_block(state, f"blocks.{i}.", where)
    if "patch_embed.proj.weight" in state:
        width = state["cls_token"].shape[-1]
        state.setdefault("patch_embed.proj.bias", torch.zeros(width))
    positions = state.get("pos_embed")
    if positions is not None and isqrt(positions.shape[1]) ** 2 == positions.shape[1] > 1:
        state["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], 1)  # none for the class token
    return state


def _canonical_block(state: dict[str, Tensor], block: str, where: str) -> None:
    attention, mlp = f"{block}attn.", f"{block}mlp."
    if f"{attention}q_proj.weight" in state:
        qkv = [state.pop(f"{attention}{name}_proj.weight") for name in "qkv"]
        if len({len(weight) for weight in qkv}) > 1:
            raise UserError(f"{where}: num_kv_heads: grouped queries ({attention}k_proj {tuple(qkv[1].shape)})")
        biases = [state.pop(f"{attention}{name}_proj.bias", qkv[0].new_zeros(len(qkv[0]))) for name in "qkv"]
        state[f"{attention}qkv.weight"], state[f"{attention}qkv.bias"] = torch.cat(qkv), torch.cat(biases)
    if f"{attention}q_bias" in state:
        q, v = state.pop(f"{attention}q_bias"), state.pop(f"{attention}v_bias")
        state[f"{attention}qkv.bias"] = torch.cat([q, state.pop(f"{attention}k_bias", torch.zeros_like(q)), v])
    if f"{mlp}fc1_g.weight" in state:
        for name in ("weight", "bias"):
            gate, up = state.pop(f"{mlp}fc1_g.{name}", None), state.pop(f"{mlp}fc1_x.{name}", None)
            if gate is not None and up is not None:
                state[f"{mlp}fc1.{name}"] = torch.cat([gate, up])
    for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        weight = state.get(f"{block}{name}.weight")
        if weight is not None:
            state.setdefault(f"{block}{name}.bias", weight.new_zeros(len(weight)))
    for old, new, writer in (("gamma_1", "ls1.gamma", "attn.proj"), ("gamma_2", "ls2.gamma", "mlp.fc2")):
        gamma = state.pop(f"{block}{old}", state.pop(f"{block}{new}", None))
        if gamma is not None:
            state[f"{block}{writer}.weight"] = state[f"{block}{writer}.weight"] * gamma[:, None]
            state[f"{block}{writer}.bias"] = state[f"{block}{writer}.bias"] * gamma


def depth_of(state: Mapping[str, Tensor], where: str) -> int:
    """Number of blocks. Raises UserError where they are not numbered as timm's."""
    blocks = {int(found[1]) for name in state if (found := re.match(r"blocks\.(\d+)\.", name))}
    if not blocks or blocks != set(range(len(blocks))):
        raise UserError(f"{where}: no Vision Transformer under timm's names (blocks.0 ... are not there)")
    return len(blocks)


def check_shapes(state: Mapping[str, Tensor], config: ViTConfig, where: str) -> None:
    """Raises UserError unless the state dict has exactly the tensors of ``config``."""
    hidden = state.get("blocks.0.mlp.fc2.weight")
    units = hidden_features(config.width, config.mlp)
    if hidden is not None and hidden.shape[-1] != units:
        raise UserError(f"{where}: mlp_ratio: {hidden.shape[-1]} hidden units, sweet's ViT of this width has {units}")
    if problem := mismatch(state, encoder_shapes(config)):
        raise UserError(f"{where}: {problem}")


def split_decoder(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The encoder, and MAE's decoder (``mask_token``, ``decoder_*``) under its own names."""
    decoder = {name: value for name, value in tensors.items() if name.startswith("decoder_") or name == "mask_token"}
    return {name: value for name, value in tensors.items() if name not in decoder}, decoder


def mae_decoder(decoder: Mapping[str, Tensor], config: ViTConfig) -> tuple[dict[str, Tensor], MaeConfig | None]:
    """MAE's decoder as ours; nothing where it is incomplete or its positions are not the fixed sines.

    MAE gives pixels as (row, column, channel), we as a convolution kernel does. MAE's decoders have sixteen heads.
    """
    needed = {"mask_token", "decoder_embed.weight", "decoder_pred.weight", "decoder_norm.weight"}
    if not needed <= decoder.keys():
        return {}, None
    width = len(decoder["decoder_embed.weight"])
    positions = decoder.get("decoder_pos_embed")
    if width % MAE_DECODER_HEADS or (
        positions is not None
        and (positions.shape[1] != config.patches + 1 or not _close(positions[0], sincos(config.grid, width)))
    ):
        return {}, None
    ours = {f"decoder.{name.removeprefix('decoder_')}": value for name, value in decoder.items()}
    ours.pop("decoder.pos_embed", None)
    for name in ("decoder.pred.weight", "decoder.pred.bias"):
        pixels = ours[name].unflatten(0, (config.patch_size, config.patch_size, config.in_chans))
        ours[name] = pixels.movedim(2, 0).flatten(0, 2)
    depth = len({name.split(".")[2] for name in ours if name.startswith("decoder.blocks.")})
    return ours, MaeConfig(decoder_width=width, decoder_depth=depth, decoder_head_dim=width // MAE_DECODER_HEADS)


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, atol=1e-4))


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA256 (hex) of names and values, for weights that came from no file."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
