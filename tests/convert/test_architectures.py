"""One architecture of each kind through the census: timm's features, other sizes, and back to timm by its own name."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

import sweet
from sweet.convert.convert import ConvertOptions, convert, convert_checkpoint
from sweet.convert.from_timm import from_model
from sweet.errors import UserError
from sweet.export import export
from sweet.files import read_tensors
from sweet.initialise.make import initialise_to
from sweet.models.condition import condition
from sweet.models.vit import build_vit

ROOT = Path(__file__).parents[2]
KINDS = {
    "vit_base_patch16_siglip_gap_224": {"no class token"},
    "vit_base_patch16_clip_quickgelu_224": {"quick GELU", "norm before the blocks"},
    "vit_small_plus_patch16_dinov3": {"SwiGLU", "MLP ratio", "rotary positions (dinov3)", "registers"},
    "eva02_large_patch14_224": {"SwiGLU", "MLP ratio", "norm after pooling", "norm of hidden units",
                                "rotary positions (cat)"},
    "beit_base_patch16_224": {"norm after pooling", "relative positions"},
}  # fmt: skip
REFUSED = {
    "vit_base_patch16_rpn_224": "norms after the layers",
    "vit_pwee_patch16_reg1_gap_256": "attention and MLP side by side",
    "vit_dlittle_patch16_reg1_gap_256": "attn_layer=DiffAttention.*; attn_head_dim=32",
    "samvit_base_patch16": "is a VisionTransformerSAM",
    "vit_base_mci_224": "embed_layer=HybridEmbed",
}


@pytest.fixture(scope="module")
def census() -> ModuleType:
    spec = importlib.util.spec_from_file_location("census", ROOT / "scripts" / "census.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["census"] = module  # its dataclass looks for itself there
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:torch.searchsorted", "ignore:Using a non-tuple sequence")
@pytest.mark.parametrize("architecture", KINDS)
def test_an_architecture_keeps_its_features_and_goes_back_to_timm(
    census: ModuleType, architecture: str, tmp_path: Path
) -> None:
    row = census.row_of(architecture, [], tmp_path)
    assert row.converts, row.reasons
    assert KINDS[architecture] == set(row.features)
    assert row.error < 1e-5 and row.error_2x < 1e-5
    assert row.targets == ["L1H1", "L1H2", "L2H1", "L3H3"]
    exact = "norm before the blocks" not in row.features
    assert row.principal < (1e-5 if exact else 0.1)
    exported = json.loads((tmp_path / architecture / "L1H1" / "config.json").read_text())
    assert exported["architecture"] == architecture


@pytest.mark.parametrize("architecture", [*KINDS, "aimv2_large_patch14_224", "vit_giant_patch14_dinov2"])
def test_a_template_of_it_is_read_from_its_folder(census: ModuleType, architecture: str, tmp_path: Path) -> None:
    """What the loader expects of a folder follows the architecture: rows of X, units, a norm of the embedding."""
    model = census.shaken(census.reduced(architecture))
    checkpoint = from_model(model, architecture, "0")
    convert_checkpoint(checkpoint, None, tmp_path / "template", ConvertOptions(images=4, device="cpu"))
    config, template = checkpoint.config, sweet.load(tmp_path / "template")
    images = census.images(config, config.img_size)
    with torch.no_grad():
        ours = template.build(config.depth, config.heads, order="prefix").eval().forward_features(images)
        assert census.relative(ours, model.forward_features(images)) < 1e-5
        assert template.build(1, 1).eval().forward_features(images).isfinite().all()


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("beit_base_patch16_224", "blocks.1.attn.v_bias"),
        ("eva02_large_patch14_224", "blocks.0.mlp.fc1_x.weight"),
        ("vit_small_patch16_rope_mixed_224", "rope.freqs"),
        ("vit_small_plus_patch16_dinov3", "blocks.0.gamma_2"),
        ("vit_base_patch14_dinov2", "blocks.1.ls2.gamma"),
        ("aimv2_large_patch14_224", "blocks.1.mlp.fc1_g.weight"),
    ],
)
def test_models_made_of_it_are_read_by_the_names_of_its_class(
    census: ModuleType, architecture: str, name: str, tmp_path: Path
) -> None:
    """As timm's class calls its tensors, such as ``name``: in a model folder, and in its export for timm."""
    checkpoint = from_model(census.shaken(census.reduced(architecture)), architecture, "0")
    convert_checkpoint(checkpoint, None, tmp_path / "template", ConvertOptions(images=4, device="cpu"))
    initialise_to(str(tmp_path / "template"), tmp_path / "model", depth=2, heads=1)
    export(tmp_path / "model", "timm", tmp_path / "timm")
    images = census.images(checkpoint.config, checkpoint.config.img_size)
    with torch.no_grad():
        expected = sweet.load(tmp_path / "template").build(2, 1).forward_features(images)
        for folder in ("model", "timm"):
            found = sweet.load(tmp_path / folder).forward_features(images)
            assert census.relative(found, expected) < 1e-6
    file = tmp_path / "timm" / "model.safetensors"
    tensors = read_tensors(file)
    del tensors[name]
    save_file(tensors, file)
    (tmp_path / "timm" / "SHA256SUMS").unlink()
    missing = pytest.raises(UserError, match=r"model.safetensors: tensor \S+ is (missing|unknown)")
    with nullcontext() if "gamma" in name else missing:  # a layer scale may be left out: ours have none
        sweet.load(tmp_path / "timm")


@pytest.mark.parametrize("architecture", ["vit_small_plus_patch16_dinov3", "vit_base_patch16_siglip_gap_224"])
def test_a_model_made_of_it_can_be_a_source_again(census: ModuleType, architecture: str, tmp_path: Path) -> None:
    checkpoint = from_model(census.shaken(census.reduced(architecture)), architecture, "0")
    convert_checkpoint(checkpoint, None, tmp_path / "template", ConvertOptions(images=4, device="cpu"))
    initialise_to(str(tmp_path / "template"), tmp_path / "model", depth=2, heads=1)
    convert(str(tmp_path / "model"), tmp_path / "again", images=4, device="cpu")
    images = census.images(checkpoint.config, checkpoint.config.img_size)
    with torch.no_grad():
        expected = sweet.load(tmp_path / "model").forward_features(images)
        ours = sweet.load(tmp_path / "again").build(2, 1, order="prefix").forward_features(images)
    assert census.relative(ours, expected) < 1e-5


@pytest.mark.parametrize(
    "architecture", [*KINDS, "aimv2_large_patch14_224", "vit_base_patch14_reg4_dinov2", "no final norm"]
)
def test_conditioned_it_answers_the_same(census: ModuleType, architecture: str) -> None:
    """Registers, norms of the embedding and norms after the pooling or nowhere: one exact function for all."""
    if architecture == "no final norm":
        bare = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "final_norm": False}
        model = census.shaken(VisionTransformer(**bare, num_classes=0))
    else:
        model = census.shaken(census.reduced(architecture))
    found = from_model(model, architecture, "0")
    config, generator = found.config, torch.Generator().manual_seed(1)
    state = found.state | {"head.weight": torch.randn(5, config.width, generator=generator), "head.bias": torch.ones(5)}
    images = census.images(config, config.img_size, 4)
    changed = condition(state, config, [images])
    plain, ours = (build_vit(config, w, num_classes=5) for w in (state, changed))
    with torch.no_grad():
        assert census.relative(ours(images), plain(images)) < 1e-4
    reader = "blocks.0.mlp.fc1.weight"
    assert (changed[reader] - state[reader]).norm() > 0.1 * state[reader].norm()


@pytest.mark.parametrize("architecture", REFUSED)
def test_others_are_refused_by_name(census: ModuleType, architecture: str, tmp_path: Path) -> None:
    row = census.row_of(architecture, [], tmp_path)
    assert not row.converts
    assert re.search(REFUSED[architecture], "; ".join(row.reasons))


def test_the_committed_census() -> None:
    values = json.loads((ROOT / "results" / "convert" / "census.json").read_text())
    rows = values["rows"]
    assert values["tags"] == sum(len(row["tags"]) for row in rows if row["converts"]) >= 355
    assert values["of"] == sum(len(row["tags"]) for row in rows) == 452
    for row in rows:
        assert row["converts"] != bool(row["reasons"])
        assert not row["converts"] or max(row["error"], row["error_2x"]) < 1e-4
