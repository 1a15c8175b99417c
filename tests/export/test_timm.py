"""A folder for timm: loaded where sweet cannot be imported, the same numbers at any size, nothing of a stranger's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import sweet
from sweet.errors import UserError
from sweet.export import export, verify
from sweet.export import timm_folder as module
from sweet.files import read_json, write_json
from sweet.models.config import ViTConfig
from sweet.storage.folders import load_model

# name -> family, depth, heads, classes, shape: sizes at which a plain mlp_ratio gives the wrong hidden units, too
MODELS: dict[str, tuple[str, int, int, int, dict[str, int]]] = {
    "eva-1-1": ("eva", 1, 1, 0, {}),
    "eva-5-7": ("eva", 5, 7, 3, {}),
    "eva-3-5": ("eva", 3, 5, 10, {"head_dim": 4}),
    "eva-2-13-large": ("eva", 2, 13, 2, {"img_size": 24, "patch_size": 8}),
    "eva-2-4-grey": ("eva", 2, 4, 2, {"in_chans": 1, "rope_grid": 6}),
    "vit-1-1": ("vit", 1, 1, 0, {}),
    "vit-5-7": ("vit", 5, 7, 3, {}),
    "vit-2-3-large": ("vit", 2, 3, 2, {"img_size": 24, "patch_size": 8}),
}

# What a stranger does: no sweet, other classes, another size, features.
STRANGER = """
import importlib.abc, json, sys
from pathlib import Path

class NoSweet(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sweet":
            raise ImportError("sweet is not here")

sys.meta_path.insert(0, NoSweet())
import timm, torch
from safetensors.torch import load_file

strangers = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    known = load_file(folder / "expected.safetensors")
    images, where = known["images"], f"local-dir:{folder / 'timm'}"
    torch.manual_seed(0)
    with torch.no_grad():
        model = timm.create_model(where, pretrained=True).eval()
        other = timm.create_model(where, pretrained=True, num_classes=7).eval()
        maps = timm.create_model(where, pretrained=True, features_only=True, out_indices=[-1]).eval()(images)[-1]
        size = images.shape[-1]
        wide = timm.create_model(where, pretrained=True, num_classes=0, img_size=2 * size).eval()
        flexible = timm.create_model(where, pretrained=True, dynamic_img_size=True, num_classes=0).eval()
        tall = torch.zeros(1, images.shape[1], size, 2 * size)
        off = {
            "output": model(images) - known["output"],
            "tokens": model.forward_features(images) - known["tokens"],
            "other head": other.forward_features(images) - known["tokens"],
            "map": maps - known["map"],
            "flexible": flexible(images) - known["pooled"],
        }
    strangers[folder.name] = {
        "off": {name: float(value.abs().max()) for name, value in off.items()},
        "other": list(other(images).shape),
        "wide": list(wide(torch.zeros(1, images.shape[1], 2 * size, 2 * size)).shape),
        "tall": list(flexible(tall).shape),
        "cfg": {k: v for k, v in model.pretrained_cfg.items() if k != "file"},
        "data": timm.data.resolve_model_data_config(model),
        "class": type(model).__name__,
    }
assert "sweet" not in sys.modules
print(json.dumps(strangers))
"""


@pytest.fixture(scope="module")
def world(write_model: Callable[..., Path], classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each model with its export and the numbers that it must give."""
    world, made = tmp_path_factory.mktemp("timm"), tmp_path_factory.mktemp("made")
    for name, (family, depth, heads, classes, shape) in MODELS.items():
        prepare(write_model(made / name, family, depth, heads, classes, **shape), world / name)
    prepare(classifier, world / "classifier")
    return world


@torch.no_grad()
def prepare(model: Path, place: Path) -> None:
    export(model, "timm", place / "timm", licence="mit")
    vit, record = load_model(model)
    size, patch = record.vit.img_size, record.vit.patch_size
    images = torch.randn(3, record.vit.in_chans, size, size, generator=torch.Generator().manual_seed(1))
    tokens = vit.forward_features(images)
    maps = vit.forward_intermediates(images, indices=1, norm=False, intermediates_only=True)[-1]
    assert maps.shape[-1] == size // patch
    pooled = tokens[:, 1:].mean(1)
    known = {"images": images, "output": vit(images), "tokens": tokens, "map": maps, "pooled": pooled}
    save_file({name: value.contiguous() for name, value in known.items()}, place / "expected.safetensors")


@pytest.fixture(scope="module")
def strangers(world: Path) -> dict[str, Any]:
    """What a process without sweet finds in these folders."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(world)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MODELS, "classifier"])
def test_timm_without_sweet_computes_the_same(strangers: dict[str, Any], name: str) -> None:
    found = strangers[name]
    assert found["class"] == ("VisionTransformer" if name.startswith("vit") else "Eva")
    for what, difference in found["off"].items():
        assert difference <= 1e-6, what
    width = found["wide"][1]
    assert found["other"] == [3, 7] and found["wide"] == found["tall"] == [1, width]


@pytest.mark.slow
def test_what_travels_is_ours(strangers: dict[str, Any], odd_names: list[str]) -> None:
    assert set(strangers) == {*MODELS, "classifier"}
    for name, found in strangers.items():
        cfg = found["cfg"]
        assert cfg["license"] == "mit" and "2601.19694" in cfg["paper_ids"] and "sweet" in cfg["description"]
        assert not {"url", "hf_hub_id", "origin_url"} & cfg.keys()
        assert "sapiens" not in json.dumps({**cfg, "architecture": ""}), name
        assert found["data"]["crop_pct"] == 1.0 and found["data"]["crop_mode"] == "center"
    grey = strangers["eva-2-4-grey"]["data"]
    assert (grey["input_size"], grey["mean"], grey["std"]) == ([1, 16, 16], [0.0], [0.3])
    assert strangers["eva-5-7"]["data"]["interpolation"] == "bilinear"
    assert strangers["eva-2-13-large"]["cfg"]["input_size"] == [3, 24, 24]
    assert strangers["vit-5-7"]["cfg"]["label_names"] == odd_names[:3]
    assert "label_names" not in strangers["vit-1-1"]["cfg"] and strangers["vit-1-1"]["cfg"]["num_classes"] == 0
    assert len(strangers["classifier"]["cfg"]["label_names"]) == 10


def test_the_folder(classifier: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    strangers = export(classifier, "timm", out)
    assert strangers == {
        "to": "timm",
        "size": "L2H2",
        "classes": 10,
        "architecture": module.ENTRY["eva"],
        "out": str(out),
    }
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors", "config.json", "recipe.yaml", "README.md", "SHA256SUMS"
    }  # fmt: skip
    assert verify(out)["loads"]
    assert 'create_model("local-dir:' in (out / "README.md").read_text()


@torch.no_grad()
@pytest.mark.parametrize("family", ["eva", "vit"])
def test_the_export_is_a_model_folder_of_sweet(write_model: Callable[..., Path], tmp_path: Path, family: str) -> None:
    """load, evaluate, finetune and the rest take it; layer scales that somebody trained are not lost."""
    made = write_model(tmp_path / "made", family, 2, 3, 4)
    export(made, "timm", tmp_path / "timm")
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    first, again = sweet.load(made), sweet.load(tmp_path / "timm")
    assert type(first) is type(again)
    assert torch.equal(first(images), again(images))  # type: ignore[operator]
    export(tmp_path / "timm", "timm", tmp_path / "twice")
    assert read_json(tmp_path / "twice" / "config.json") == read_json(tmp_path / "timm" / "config.json")
    if family == "eva":
        import timm

        trained = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
        for block in trained.blocks:
            block.gamma_1.mul_(torch.linspace(0.5, 2, 24))
        save_file(trained.state_dict(), tmp_path / "timm" / "model.safetensors")
        (tmp_path / "timm" / "SHA256SUMS").unlink()
        torch.testing.assert_close(sweet.load(tmp_path / "timm")(images), trained(images), rtol=1e-5, atol=1e-5)  # type: ignore[operator]


def test_without_head(classifier: Path, tmp_path: Path) -> None:
    strangers = export(classifier, "timm", tmp_path / "out", head=False)
    described = read_json(tmp_path / "out" / "config.json")
    assert strangers["classes"] == described["num_classes"] == 0
    assert "label_names" not in described and not {"metrics", "task"} & described["sweet"].keys()
    full = sweet.load(classifier, num_classes=0)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(sweet.load(tmp_path / "out")(images), full(images))  # type: ignore[operator]


def test_what_timm_cannot_express(write_model: Callable[..., Path], tmp_path: Path, template: Path) -> None:
    made = write_model(tmp_path / "made", "eva", 1, 2)
    info = read_json(made / "config.json")
    (made / "SHA256SUMS").unlink()
    for change, message in (
        ({"vit": info["vit"] | {"eps": 1e-5}}, "--to timm: the norms have eps 1e-05"),
        ({"task": "segment"}, "was trained to segment"),
    ):
        write_json(made / "config.json", info | change)
        with pytest.raises(UserError, match=message):
            export(made, "timm", tmp_path / "out")
    with pytest.raises(UserError, match="is a template, and --to timm takes a model: sweet init"):
        export(template, "timm", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_function_is_not_written(
    write_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_model(tmp_path / "made", "eva", 1, 3)
    arguments = module.model_args

    def other(config: ViTConfig) -> dict[str, Any]:
        return arguments(config) | {"rope_temperature": 7.0}

    monkeypatch.setattr(module, "model_args", other)
    with pytest.raises(UserError, match="computes another function"):
        export(made, "timm", tmp_path / "out")
    monkeypatch.setattr(module, "model_args", lambda config: arguments(replace(config, depth=2)))
    with pytest.raises(UserError, match="cannot make vit_base_patch16_sapiens2 of this size"):
        export(made, "timm", tmp_path / "out")
    assert not (tmp_path / "out").exists()
