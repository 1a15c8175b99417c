"""Models of timm, from a folder or by name: the same features, or a refusal that names the parameter."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import LayerNorm, RmsNorm, SwiGLU
from timm.models import save_for_hf
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import nn

from sweet.convert.from_timm import from_model
from sweet.convert.timm_source import check_architecture, from_folder
from sweet.errors import UserError
from sweet.models.config import ViTConfig
from sweet.models.forward import encode, patchify
from sweet.models.vit import build_vit
from sweet.storage.records import DataConfig

from .random_models import shaken

VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
# what our own Eva is, see sweet.models.vit
EVA = VIT | {
    "mlp_ratio": 64.5 / 24, "swiglu_mlp": True, "attn_type": "rope", "use_fc_norm": False, "use_abs_pos_emb": False,
    "use_rot_pos_emb": True, "rope_temperature": 100.0, "rope_rotate_half": True, "ref_feat_shape": (4, 4),
    "norm_layer": partial(RmsNorm, eps=1e-5),
}  # fmt: skip


def same_features(theirs: Any, config: ViTConfig, state: dict[str, torch.Tensor]) -> None:
    images = torch.randn(2, 3, *theirs.patch_embed.img_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, ours = theirs.forward_features(images), build_vit(config, state).forward_features(images)
        functional = encode(state, patchify(images, config.patch_size), config)
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(functional, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (VisionTransformer, VIT),
        (VisionTransformer, VIT | {"init_values": 0.1, "qkv_bias": False, "dynamic_img_size": True}),
        (Eva, EVA),
        (Eva, EVA | {"qkv_fused": False, "init_values": 0.5}),
        (Eva, EVA | {"qkv_fused": False, "init_values": 0.5, "attn_only_layer_scale": True}),
        (Eva, EVA | {"qkv_fused": False, "num_heads": 6, "num_kv_heads": 2, "init_values": 0.5}),
        (Eva, EVA | {"attn_type": "eva", "swiglu_align_to": 8, "ref_feat_shape": (8, 8)}),
        (Eva, VIT | {"use_fc_norm": False, "norm_layer": partial(LayerNorm, eps=1e-6)}),  # a plain ViT by another name
        (VisionTransformer, VIT | {"img_size": (16, 24)}),
        (Eva, EVA | {"img_size": (24, 8), "ref_feat_shape": (4, 6)}),
        (VisionTransformer, VIT | {"act_layer": "quick_gelu"}),
        (VisionTransformer, VIT | {"act_layer": "gelu_tanh", "mlp_ratio": 3.7}),
        (VisionTransformer, VIT | {"norm_layer": "rmsnorm", "mlp_ratio": 5.5}),
        (VisionTransformer, VIT | {"qk_norm": True, "reg_tokens": 4}),
        (VisionTransformer, VIT | {"reg_tokens": 2, "class_token": False, "global_pool": "avg"}),
        (VisionTransformer, VIT | {"pre_norm": True, "norm_layer": partial(LayerNorm, eps=1e-5)}),
        (VisionTransformer, VIT | {"final_norm": False, "scale_attn_norm": True, "scale_mlp_norm": True}),
        (VisionTransformer, VIT | {"fc_norm": True, "embed_norm_layer": LayerNorm}),
        (VisionTransformer, VIT | {"mlp_layer": SwiGLU, "act_layer": nn.SiLU, "mlp_ratio": 2.5}),
        (VisionTransformerDistilled, VIT),
        (Eva, EVA | {"rope_temperature": 50.0, "rope_rotate_half": False}),
        (Eva, EVA | {"rope_type": "dinov3", "class_token": False}),
        (Eva, EVA | {"rope_type": "mixed", "rope_rotate_half": False, "rope_temperature": 10.0}),
        (Eva, EVA | {"rope_grid_offset": 0.5, "rope_grid_indexing": "xy"}),
        (Eva, EVA | {"use_abs_pos_emb": True, "norm_layer": LayerNorm, "num_reg_tokens": 3}),
        (Eva, EVA | {"mlp_ratio": 2.0, "scale_mlp": True, "scale_attn_inner": True}),
        (Beit, VIT | {"use_abs_pos_emb": False, "use_rel_pos_bias": True}),
    ],
)
def test_a_model_is_read_exactly(make: Any, options: dict[str, Any]) -> None:
    theirs = shaken(make(**options))
    found = from_model(theirs, "timm:x", "0")
    same_features(theirs, found.config, found.state)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (VisionTransformer, VIT | {"act_layer": "relu"}, "act_layer=ReLU"),
        (VisionTransformer, VIT | {"block_fn": ResPostBlock, "init_values": 1.0}, "block_fn=ResPostBlock: norms after"),
        (
            VisionTransformer,
            VIT | {"patch_size": (4, 8), "act_layer": "relu"},
            r"act_layer=ReLU.*; patch_size=\(4, 8\)",
        ),
        (
            Eva,
            EVA | {"rope_type": "mrope", "rope_rotate_half": True, "rope_mrope_section": (0, 2, 2)},
            "rope_type: RotaryEmbeddingMRope",
        ),
        (Eva, EVA | {"use_post_norm": True}, "block_fn=EvaBlockPostNorm: norms after"),
        (Beit, VIT | {"use_abs_pos_emb": False, "use_shared_rel_pos_bias": True}, "use_shared_rel_pos_bias"),
    ],
)
def test_what_cannot_be_expressed_is_named(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as problem:
        from_model(shaken(make(**options)), "timm:x", "0")
    assert str(problem.value).startswith("timm:x: ")


def test_other_models_are_refused() -> None:
    with pytest.raises(UserError, match="is a Linear, expected one of Beit, Eva, VisionTransformer"):
        from_model(nn.Linear(2, 2), "timm:x", "0")


def test_what_no_check_foresees_shows_in_the_features() -> None:
    model = shaken(VisionTransformer(**VIT))
    model.blocks[1].attn.scale *= 3
    model.blocks[1].attn.fused_attn = False
    with pytest.raises(UserError, match="features differ"):
        from_model(model, "timm:x", "0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    args = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
    model = shaken(timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=5, **args))
    save_for_hf(model, tmp_path / "vit", model_args=args, safe_serialization=True)
    return tmp_path / "vit"


def test_a_timm_folder(folder: Path) -> None:
    found = from_folder(folder)
    assert (found.name, found.config) == ("vit", ViTConfig(2, 3, 8, 16, 4, family="vit", entry="vit_tiny_patch16_224"))
    assert found.data == DataConfig(img_size=16, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic")
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    same_features(theirs, found.config, found.state)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_timm_folder_of_other_channels(channels: int, tmp_path: Path) -> None:
    """timm leaves the mean of three in it."""
    args: dict[str, Any] = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 3}
    args["in_chans"] = channels
    save_for_hf(timm.create_model("vit_tiny_patch16_224", **args), tmp_path, model_args=args, safe_serialization=True)
    found = from_folder(tmp_path)
    assert (found.config.in_chans, found.data.mean) == (channels, (0.5,) * channels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": None}, "neither sweet's nor timm's"),
        ({"architecture": "vit_of_tomorrow"}, "vit_of_tomorrow"),
        ({"architecture": "resnet18"}, "resnet18"),
        ({"model_args": {"depth": 3, "img_size": 16, "patch_size": 4, "embed_dim": 24, "num_heads": 3}}, "blocks.2"),
    ],
)
def test_a_wrong_timm_folder(folder: Path, change: dict[str, Any], message: str) -> None:
    info = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=message):
        from_folder(folder)


def test_images_of_no_whole_number_of_patches_are_named() -> None:
    with pytest.raises(UserError, match=r"^x: .*384.* patch size 14"):
        check_architecture("vit_so400m_patch14_siglip_gap_384", {"embed_dim": 32, "num_heads": 2}, "x")
