"""Files of weights alone: official layouts, a config.json beside them, --like, and what is stated as assumed."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import LayerNorm
from timm.models import save_for_hf
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from sweet.convert.bare_file import guessed, read_file
from sweet.convert.timm_source import filled, from_folder
from sweet.errors import UserError
from sweet.models.vit import build_vit

from .random_models import images, shaken

SMALL = {"depth": 2, "embed_dim": 64, "num_heads": 2, "img_size": 16, "patch_size": 4, "num_classes": 0}


def same(a: Any, b: Any, pixels: torch.Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(a.forward_features(pixels), b.forward_features(pixels), rtol=0, atol=2e-5)


def test_what_a_file_does_not_say_is_stated(tmp_path: Path) -> None:
    theirs = shaken(VisionTransformer(**SMALL))
    save_file(theirs.state_dict(), tmp_path / "x.safetensors")
    found = read_file(tmp_path / "x.safetensors", heads=2)
    same(build_vit(found.config, found.state), theirs, images())
    lines = ("2 heads as given", "square images of 16 px", "GELU", "no rotary positions", "ImageNet's mean and std")
    assert found.assumed == lines
    assert read_file(tmp_path / "x.safetensors").assumed[0] == "1 heads of 64 channels"


@pytest.mark.parametrize(("width", "depth", "heads"), [(192, 12, 3), (384, 12, 6), (1280, 32, 16)])
def test_heads_of_well_known_sizes(width: int, depth: int, heads: int) -> None:
    with torch.device("meta"):
        args = SMALL | {"embed_dim": width, "depth": depth, "num_heads": heads}
        state = VisionTransformer(**args).state_dict()
        guess = guessed(state, "x.pth")
    assert guess.model.blocks[0].attn.num_heads == heads  # type: ignore[index,union-attr]
    assert guess.assumed[0] == f"{heads} heads as usual at width {width}, depth {depth}"


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((56, 64), r"pos_embed \(1, 225, 64\): 15 x 15 patches without a class position, or 224 that are not square"),
        ((16, 24), r"pos_embed \(1, 25, 64\): 5 x 5 patches without a class position, or 24"),
        ((16, 20), r"pos_embed \(1, 21, 64\): not a square grid and 1 prefix tokens"),
    ],
)
def test_a_grid_that_is_not_certain_is_refused(tmp_path: Path, size: tuple[int, int], message: str) -> None:
    save_file(VisionTransformer(**SMALL | {"img_size": size}).state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=f"x.safetensors: {message}.*--like TIMM_NAME"):
        read_file(tmp_path / "x.safetensors")


def test_positions_without_a_place_for_the_class_token(tmp_path: Path) -> None:
    theirs = shaken(VisionTransformer(**SMALL | {"img_size": 56, "no_embed_class": True}))
    save_file(theirs.state_dict(), tmp_path / "x.safetensors")
    found = read_file(tmp_path / "x.safetensors", heads=2)
    same(build_vit(found.config, found.state), theirs, images(56))


def test_dinov2_as_its_authors_write_it(tmp_path: Path) -> None:
    theirs = shaken(VisionTransformer(**SMALL, init_values=0.1))
    torch.save(theirs.state_dict() | {"mask_token": torch.ones(1, 64)}, tmp_path / "x.pth")
    found = read_file(tmp_path / "x.pth", heads=2)
    same(build_vit(found.config, found.state), theirs, images())
    assert "GELU" not in found.assumed


def test_dinov2_with_registers_as_its_authors_write_it() -> None:
    theirs = shaken(VisionTransformer(**SMALL, init_values=0.1, reg_tokens=4, no_embed_class=True))
    state = theirs.state_dict() | {"mask_token": torch.ones(1, 64)}
    state["register_tokens"] = state.pop("reg_token")
    of_class = torch.full((1, 1, 64), 0.25)
    state["cls_token"], state["pos_embed"] = state["cls_token"] - of_class, torch.cat([of_class, state["pos_embed"]], 1)
    same(filled(guessed(state, "x", 2).model, state, "x"), theirs, images())


@pytest.mark.parametrize("biased", [True, False])
def test_dinov3_as_its_authors_write_it(biased: bool) -> None:
    shape = {name: value for name, value in SMALL.items() if name != "img_size"} | {"img_size": 64}
    theirs = shaken(
        Eva(
            **shape, qkv_bias=biased, init_values=0.1, rope_type="dinov3", rope_temperature=100, rope_rotate_half=True,
            use_rot_pos_emb=True, use_abs_pos_emb=False, num_reg_tokens=4, use_fc_norm=False,
            norm_layer=partial(LayerNorm, eps=1e-5),
        )
    )  # fmt: skip
    state = {"rope_embed.periods": torch.ones(8), "mask_token": torch.ones(1, 1, 64)}
    for name, value in theirs.state_dict().items():
        name = name.replace("reg_token", "storage_tokens").replace("gamma_", "ls")
        state[f"{name}.gamma" if name.endswith(("ls1", "ls2")) else name] = value
    for block in ("blocks.0.attn.", "blocks.1.attn."):
        zero = torch.zeros(64)
        q, v = state.pop(f"{block}q_bias", zero), state.pop(f"{block}v_bias", zero)
        state[f"{block}qkv.bias"], state[f"{block}qkv.bias_mask"] = torch.cat([q, zero, v]), torch.ones(192)
        state.pop(f"{block}k_bias", None)
    same(filled(guessed(state, "x", 2).model, state, "x"), theirs, images(64))


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, Any]:
    """A timm folder whose activation is not GELU, which no tensor shows."""
    args = {name: value for name, value in SMALL.items() if name != "num_classes"} | {"act_layer": "quick_gelu"}
    model = shaken(timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, **args))
    save_for_hf(model, tmp_path / "vit", model_args=args, safe_serialization=True)
    return tmp_path / "vit", model


def edit(folder: Path, **changes: Any) -> None:
    info = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        info[key] = info[key] | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(info))


def test_the_config_beside_a_file_is_used(folder: tuple[Path, Any]) -> None:
    place, _ = folder
    assert read_file(place / "model.safetensors").config.activation == "quick_gelu"
    edit(place, model_args={"act_layer": None})
    shutil.copy(place / "model.safetensors", place / "mine.safetensors")
    found = read_file(place / "mine.safetensors")
    assert (found.name, found.assumed, found.data.mean) == ("mine.safetensors", (), (0.5, 0.5, 0.5))


def test_sizes_mask_token_and_head_of_a_folder(folder: tuple[Path, Any]) -> None:
    place, _ = folder
    info = json.loads((place / "config.json").read_text())
    args = {k: v for k, v in info["model_args"].items() if k not in ("img_size", "act_layer")}
    cfg = info["pretrained_cfg"] | {"input_size": [3, 16, 16], "license": "mit", "paper_ids": "arXiv:1"}
    info |= {"model_args": args, "pretrained_cfg": cfg, "num_classes": 7}  # a head that the file lacks
    (place / "config.json").write_text(json.dumps(info))
    tensors = load_file(place / "model.safetensors")
    save_file(tensors | {"mask_token": torch.ones(1, 64)}, place / "model.safetensors")
    found = from_folder(place)
    assert found.config.img_size == 16
    assert found.origin is not None and (found.origin.licence, found.origin.citation) == ("mit", "arXiv:1")


def test_like_builds_and_compares(tmp_path: Path) -> None:
    theirs = shaken(timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, img_size=32))
    path = tmp_path / "x.safetensors"
    save_file(theirs.state_dict(), path)
    found = read_file(path, like_name="vit_tiny_patch16_224.augreg_in21k")
    assert (found.config.img_size, found.config.heads, found.assumed) == (32, 3, ())
    assert found.data.mean == (0.5, 0.5, 0.5) and found.origin is not None
    assert found.origin.licence == "apache-2.0"
    same(build_vit(found.config, found.state), theirs, images(32))
    untagged = read_file(path, like_name="vit_tiny_patch16_224")  # whose weights are these?
    assert untagged.origin is not None and untagged.origin.licence is None and untagged.data.mean == (0.5,) * 3
    assert untagged.assumed == ("mean and std of vit_tiny_patch16_224.augreg_in21k_ft_in1k",)
    for name, message in (
        ("vit_small_patch16_224", "tensor .*: shape .*, expected"),
        ("vit_tiny_patch16_rope_of_tomorrow", "timm has no such model"),
        ("deit_tiny_distilled_patch16_224", "dist_token is missing|pos_embed"),
        ("resnet18", "ResNet"),
    ):
        with pytest.raises(UserError, match=f"--like {name}.*({message})"):
            read_file(path, like_name=name)
