"""Pictures of what a source of several sizes sees behind the mask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sweet.cli import app
from sweet.costs.budget import Budget, choose
from sweet.data import open_images
from sweet.data.packed import centre_crop
from sweet.inference.reconstruct import reconstruct_at
from sweet.models.mae import reconstruct, sincos
from sweet.storage.folders import StoredSource, load_source
from sweet.template.sizes import Size
from sweet.template.target import target_weights

SHAPES = "shapes:n=64,size=16"


def normalised(pixels: torch.Tensor, stored: StoredSource) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (stored.data.mean, stored.data.std))
    return (pixels / 255 - mean) / std


@pytest.mark.parametrize("kind", ["template", "dense"])
def test_only_masked_patches_change(kind: str, request: pytest.FixtureRequest) -> None:
    stored = load_source(request.getfixturevalue(kind))
    val = open_images(SHAPES, "val")
    pixels = torch.stack([centre_crop(val.decode(index), 16) for index in range(4)])
    images = normalised(pixels, stored)
    sizes = [Size(2, 2, 8), Size(1, 1, 8), Size(3, 3, 8)]  # its own, smaller, larger
    shown = reconstruct_at(stored, sizes, images, order="prefix", seed=3)
    assert shown.original.equal(pixels)
    grey = (shown.masked == 128).all(1)
    assert grey.float().mean() == pytest.approx(0.75, abs=0.02)
    assert list(shown.completed) == ["L2H2", "L1H1", "L3H3"]
    for made in shown.completed.values():
        changed = (made != pixels).any(1)
        assert changed.any() and not (changed & ~grey).any()
    noise = torch.rand(4, 16, generator=torch.Generator().manual_seed(0))
    again = reconstruct_at(stored, sizes[:1], images, order="prefix", seed=4)
    assert not again.masked.equal(shown.masked)
    weights = target_weights(stored.source, 2, 16, order="prefix")
    loss = reconstruct(weights, images, noise, stored.config, stored.mae, sincos(4, stored.mae.decoder_width)).loss
    assert shown.losses["L2H2"] == pytest.approx(float(loss), rel=0.3)  # other masks, the same images


def test_a_perfect_prediction_is_drawn_as_the_image(dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put back (mean and variance of a patch) undoes what the autoencoder's targets took away."""
    from sweet.inference import reconstruct as module
    from sweet.models.forward import patchify
    from sweet.models.mae import Reconstruction, patch_targets, split_patches

    def perfect(w: dict, images: torch.Tensor, noise: torch.Tensor, config: object, mae: object, _: object):
        masked = split_patches(noise, 0.75)[1]
        target = patch_targets(patchify(images, 4), True)
        return Reconstruction(torch.zeros(()), target.gather(1, masked[..., None].expand(-1, -1, 48)), masked)

    monkeypatch.setattr(module, "reconstruct", perfect)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    stored = load_source(dense)
    images = normalised(pixels, stored)
    shown = reconstruct_at(stored, [Size(2, 2, 8)], images)
    assert (shown.completed["L2H2"].int() - pixels.int()).abs().max() <= 1


def test_the_verb(template: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "seen.png"
    words = ["--data", SHAPES, "--out", str(out), "--images", "3"]
    result = CliRunner().invoke(app, ["reconstruct", str(template), "--sizes", "L2H2,L1H2", *words, "--json"])
    assert result.exit_code == 0, result.output
    with Image.open(out) as image:
        width, height = image.size
    assert width > 4 * 64 and height > 3 * 64
    result = CliRunner().invoke(app, ["reconstruct", str(template), "--sizes", "2k", *words, "--json", "--overwrite"])
    assert list(json.loads(result.stdout)["loss"]) == [
        str(choose(load_source(template).config, Budget("params", 2000, "")).size)
    ]
    out.unlink()
    for source, sizes, part in (
        (template, "L2H2,big", "--sizes big"),
        (template, ",", "names no size"),
        (template, "L9999H1", "at most"),
        (model, "L2H2", "is a model"),
    ):
        result = CliRunner().invoke(app, ["reconstruct", str(source), "--sizes", sizes, *words])
        assert (result.exit_code, part in result.stderr) == (2, True), result.output
        assert not out.exists()
