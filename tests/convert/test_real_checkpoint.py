"""A real DINOv2 ViT-S: the same features as timm at three image sizes, and four sizes made, exported and read again."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

import sweet
from sweet.convert.convert import convert
from sweet.export import export
from sweet.initialise.make import initialise_to

PLACES = (
    Path(__file__).parents[3] / "shared",
    Path(__file__).parents[4] / "shared",
)  # beside the project or a worktree

FOUND = next((place / "models/dinov2-s14" for place in PLACES if (place / "models/dinov2-s14").is_dir()), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(FOUND is None, reason="needs ../shared/models/dinov2-s14 beside the project"),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "template"
    made = convert(str(FOUND), out, images=16, img_size=98, device="cpu")
    assert made["size"] == "L12H6" and made["feature_error"] < 1e-4
    return out


@pytest.mark.parametrize("img_size", [98, 224, 518])
def test_features_are_timms(template: Path, img_size: int) -> None:
    theirs = timm.create_model(f"local-dir:{FOUND}", pretrained=True, img_size=518).eval()
    ours = sweet.load(template).build(12, 6, order="prefix", img_size=img_size)
    pixels = torch.randn(1, 3, img_size, img_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs.set_input_size(img_size)
        expected = theirs.forward_features(pixels)
        off = (ours.forward_features(pixels) - expected).norm() / expected.norm()
    assert off < 1e-4


@pytest.mark.parametrize(("depth", "heads"), [(12, 3), (6, 6), (6, 3), (14, 8)])
def test_sizes_are_made_exported_and_read_again(template: Path, tmp_path: Path, depth: int, heads: int) -> None:
    initialise_to(str(template), tmp_path / "model", depth=depth, heads=heads, img_size=98)
    export(tmp_path / "model", "timm", tmp_path / "timm")
    ours = sweet.load(tmp_path / "model")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    assert len(theirs.blocks) == depth and theirs.embed_dim == 64 * heads
    assert theirs.pretrained_cfg["license"] == "apache-2.0"
    pixels = torch.randn(1, 3, 98, 98, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(pixels), ours(pixels), rtol=1e-5, atol=1e-5)  # type: ignore[operator]
