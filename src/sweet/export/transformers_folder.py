"""The LayerNorm / GELU family in the layout of transformers.

An encoder becomes a ``ViTModel``. A classifier cannot become a ``ViTForImageClassification``, which reads the class
token, where ours reads the mean of the patch tokens; but ``Dinov2ForImageClassification`` reads both, side by side, so
that zeros for the class token and ones for its layer scales make it the same function.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from sweet.data.decode import KERNELS
from sweet.errors import UserError
from sweet.models.config import ViTConfig
from sweet.storage.records import DataConfig, FolderRecord
from sweet.template.image_size import size_text

from .timm_folder import Exported

# timm's names as transformers writes them on disk; those of blocks differ between its two classes.
COMMON = {
    r"^cls_token$": "embeddings.cls_token",
    r"^pos_embed$": "embeddings.position_embeddings",
    r"^patch_embed\.proj\.": "embeddings.patch_embeddings.projection.",
    r"^norm\.": "layernorm.",
    r"^blocks\.": "encoder.layer.",
    r"\.attn\.proj\.": ".attention.output.dense.",
}
VIT = COMMON | {
    r"\.norm1\.": ".layernorm_before.",
    r"\.norm2\.": ".layernorm_after.",
    r"\.mlp\.fc1\.": ".intermediate.dense.",
    r"\.mlp\.fc2\.": ".output.dense.",
}
CLASSIFIER = "Dinov2ForImageClassification"
SHAPE = ("depth", "heads", "head_dim", "img_size", "patch_size", "in_chans", "rope_theta", "rope_grid")


def transformers_folder(model: nn.Module, record: FolderRecord) -> Exported:
    """A model as transformers', with its ``preprocessor_config.json``. Raises UserError for the Eva family."""
    config = record.vit
    plain = replace(config, entry="", eps=1e-6)
    if config.family == "vit" and plain != ViTConfig(**{name: getattr(config, name) for name in SHAPE}, family="vit"):
        raise UserError("--to transformers: its ViT has no switch for this architecture; take --to timm")
    if config.family != "vit":
        raise UserError(
            f"--to transformers: family {config.family} (SwiGLU, RMSNorm, RoPE) has no class there; take --to timm, "
            "which transformers' TimmWrapper reads, or learn a template with model.family=vit"
        )
    if not isinstance(config.img_size, int):
        raise UserError(f"--to transformers: its models take square images, not {size_text(config.img_size)}")
    state = {name: value.detach() for name, value in model.state_dict().items()}
    weight, bias = state.pop("head.weight", None), state.pop("head.bias", None)
    shape = {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "hidden_act": "gelu",
        "layer_norm_eps": config.eps,
        "image_size": config.img_size,
        "patch_size": config.patch_size,
        "num_channels": config.in_chans,
        "qkv_bias": True,
        "sweet": record.to_dict(),
    }
    texts = {"preprocessor_config.json": json.dumps(preprocessor(record.data), indent=2) + "\n"}
    if weight is None or bias is None:
        about = {"architectures": ["ViTModel"], "model_type": "vit", "intermediate_size": 4 * config.width}
        return Exported(_renamed(state, VIT), {**about, **shape}, {"class": "ViTModel"}, texts)
    tensors = {f"dinov2.{name}": value for name, value in _renamed(state, COMMON).items()}
    tensors["dinov2.embeddings.mask_token"] = torch.zeros(1, config.width)  # used in its pre-training only
    for i in range(config.depth):
        for scale in (1, 2):
            tensors[f"dinov2.encoder.layer.{i}.layer_scale{scale}.lambda1"] = torch.ones(config.width)
    tensors |= {"classifier.weight": torch.cat([torch.zeros_like(weight), weight], 1), "classifier.bias": bias}
    classes = record.data.classes or [f"LABEL_{i}" for i in range(len(bias))]
    about = {
        "architectures": [CLASSIFIER],
        "model_type": "dinov2",
        "mlp_ratio": 4,
        "layerscale_value": 1.0,
        **({"problem_type": "multi_label_classification"} if record.task == "multilabel" else {}),
        "id2label": {str(i): name for i, name in enumerate(classes)},
        "label2id": {name: i for i, name in enumerate(classes)},
    }
    return Exported(tensors, {**about, **shape}, {"class": CLASSIFIER}, texts)


def preprocessor(data: DataConfig) -> Mapping[str, object]:
    """Short side resized, centre cropped, normalised: what CLIP's processor does."""
    size = data.img_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": int(KERNELS[data.interpolation]),  # Pillow's number
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(data.mean),
        "image_std": list(data.std),
        "do_convert_rgb": len(data.mean) == 3,
    }


def _renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    tensors = {}
    for name, value in state.items():
        qkv = ".attn.qkv." in name
        for role, tensor in zip(("query", "key", "value"), value.chunk(3), strict=True) if qkv else [("", value)]:
            new = name.replace(".attn.qkv.", f".attention.attention.{role}.")
            for old, replacement in names.items():
                new = re.sub(old, replacement, new)
            tensors[new] = tensor
    return tensors
