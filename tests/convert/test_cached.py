"""One command: a checkpoint of others is converted on the way, once; its licence goes with what is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from typer.testing import CliRunner

import sweet
from sweet.cli import app
from sweet.convert import cached, order_images
from sweet.convert.cached import as_source
from sweet.convert.convert import convert
from sweet.convert.order_images import OrderImages, default_size
from sweet.convert.timm_source import from_folder
from sweet.errors import UserError
from sweet.files import read_json
from sweet.models.config import ViTConfig
from sweet.models.moments import compute_order
from sweet.storage.folders import load_source
from sweet.training.short_run import ShortRun, same_settings

DATA = "shapes:n=24,size=16"


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A timm folder with a licence, and an empty cache."""
    monkeypatch.setenv("SWEET_CACHE", str(tmp_path / "cache"))
    args = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, **args)
    folder = tmp_path / "checkpoint"
    save_for_hf(model, folder, model_args=args, safe_serialization=True)
    info = read_json(folder / "config.json")
    info["pretrained_cfg"] |= {"license": "cc-by-nc-4.0", "paper_name": "A paper", "origin_url": "https://a.b"}
    (folder / "config.json").write_text(json.dumps(info))
    return folder


def run(*words: object) -> Any:
    result = CliRunner().invoke(app, [str(word) for word in words], prog_name="sweet")
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result


def test_init_converts_once_and_the_licence_travels(checkpoint: Path, tmp_path: Path) -> None:
    words = ("init", checkpoint, "--depth", 1, "--heads", 2, "--data", DATA, "--device", "cpu", "--json", "--out")
    first, second = run(*words, tmp_path / "a"), run(*words, tmp_path / "b")
    assert "converted once" in first.stderr and "converted" not in second.stderr
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert json.loads(first.stdout)["licence"] == "cc-by-nc-4.0"
    origin = read_json(tmp_path / "a" / "config.json")["made"]["origin"]
    expected = {"name": "checkpoint", "licence": "cc-by-nc-4.0", "url": "https://a.b", "citation": "A paper"}
    assert origin == expected
    card = (tmp_path / "a" / "README.md").read_text()
    assert "cc-by-nc-4.0" in card and "https://a.b" in card and "A paper" in card
    run("export", tmp_path / "a", "--to", "timm", "--out", tmp_path / "t")
    exported = read_json(tmp_path / "t" / "config.json")["pretrained_cfg"]
    assert (exported["license"], exported["origin_url"]) == ("cc-by-nc-4.0", "https://a.b")
    run("export", tmp_path / "a", "--to", "hub", "--license", "mit", "--out", tmp_path / "h")
    assert "license: mit" in (tmp_path / "h" / "README.md").read_text()


def test_notes_about_sizes_and_rates(checkpoint: Path, tmp_path: Path) -> None:
    """A size beyond the source gains little; a checkpoint that is fine-tuned whole forgets at a rate for cut models."""
    init = ("init", checkpoint, "--data", DATA, "--device", "cpu", "--out")
    finetune = ("--data", "shapes:n=64,size=16", "device=cpu", "max_steps=1", "batch_size=8", "--out")
    for depth, heads, note, forgets in ((1, 3, "", False), (2, 3, "", True), (3, 3, "larger than the source's", False)):
        model = tmp_path / f"L{depth}H{heads}"
        said = run(*init, model, "--depth", depth, "--heads", heads).stderr
        assert (note in said) if note else "larger than" not in said
        said = run("finetune", model, *finetune, tmp_path / f"tuned{depth}").stderr
        assert ("these are all weights of checkpoint, and lr=0.001 unlearns what they know" in said) == forgets
    said = run("finetune", tmp_path / "L2H3", *finetune, tmp_path / "gentle", "lr=1e-4").stderr
    assert "unlearns" not in said


@pytest.mark.parametrize("way", ["init", "build"])
def test_a_method_sees_images_of_the_size_that_is_made(checkpoint: Path, tmp_path: Path, way: str) -> None:
    """What positions learn on the larger grid has more ranks than a smaller grid has patches."""
    positions = []
    for steps in (0, 2):
        if way == "build":
            given = {"method": "distilled", "img_size": 32, "device": "cpu", "batch": 4, "steps": steps}
            vit = sweet.load(checkpoint, data=DATA).build(1, 3, data=DATA, **given)
            positions.append(vit.pos_embed.detach())
        else:
            words = f"init {checkpoint} --depth 1 --heads 3 --data {DATA} --device cpu --method distilled --img-size 32"
            run(*words.split(), "batch=4", f"steps={steps}", "--out", tmp_path / str(steps))
            positions.append(load_file(tmp_path / str(steps) / "model.safetensors")["pos_embed"])
    change = torch.linalg.svdvals((positions[1] - positions[0])[0, 1:])
    assert change[16] > 1e-3 * change[0] > 0


def test_load_gives_a_template(checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"is a source; num_classes: options of a model, give them to build\(\)"):
        sweet.load(checkpoint, data=DATA, num_classes=3)
    assert not json.loads(run("cache", "list", "--json").stdout)["entries"]
    source = sweet.load(checkpoint / "model.safetensors", data=DATA)  # its config.json lies beside it
    assert isinstance(source, sweet.Template)
    theirs = timm.create_model(f"local-dir:{checkpoint}", pretrained=True).eval()
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = source.build(2, 3, order="prefix").forward_features(pixels)
        torch.testing.assert_close(ours, theirs.forward_features(pixels), rtol=0, atol=1e-4)


def test_load_computes_the_order_at_the_size_of_use(checkpoint: Path) -> None:
    """As init does; build does not say at which size the order was made, so load must take it."""
    with pytest.raises(UserError, match=r"img_size=\(32, 0\)"):
        sweet.load(checkpoint, data=DATA, img_size=(32, 0))
    large = sweet.load(checkpoint, data=DATA, img_size=32)
    run("init", checkpoint, "--depth", 1, "--heads", 2, "--data", DATA, "--img-size", 32, "--out", checkpoint / "made")
    made = load_file(checkpoint / "made/model.safetensors")
    name = "blocks.0.mlp.fc1.weight"
    assert torch.equal(large.build(1, 2, img_size=32).state_dict()[name], made[name])
    assert not torch.equal(sweet.load(checkpoint, data=DATA).build(1, 2, img_size=32).state_dict()[name], made[name])


def test_other_images_options_or_weights_are_another_conversion(checkpoint: Path) -> None:
    places = {
        as_source(checkpoint, device="cpu", **given)
        for given in (
            {"data": DATA},
            {"data": "shapes:n=25,size=16"},
            {},
            {"data": DATA, "img_size": 32},
        )
    }
    tensors = load_file(checkpoint / "model.safetensors")
    from safetensors.torch import save_file

    save_file({name: value + 0.1 for name, value in tensors.items()}, checkpoint / "model.safetensors")
    places.add(as_source(checkpoint, data=DATA, device="cpu"))
    assert len(places) == 5
    listed = json.loads(run("cache", "list", "--json").stdout)
    assert {entry["name"] for entry in listed["entries"] if entry["kind"] == "converted"} == {p.name for p in places}
    first = sorted(places)[0]
    other = CliRunner().invoke(app, ["cache", "clear", first.name, "--kind", "cells"])
    assert other.exit_code == 2 and f"{first.name}: not in the cache" in other.stderr
    assert json.loads(run("cache", "clear", first.name, "--json").stdout)["removed"] == 1
    assert not first.exists()
    assert json.loads(run("cache", "clear", "--json").stdout)["removed"] == 4
    result = CliRunner().invoke(app, ["cache", "clear", "--kind", "everything"])
    assert result.exit_code == 2 and "--kind everything: expected one of converted" in result.stderr


def test_family_takes_it_too(checkpoint: Path, tmp_path: Path) -> None:
    words = f"family {checkpoint} --sizes L1H1 --data {DATA} --out {tmp_path}/f --json -q device=cpu workers=0"
    made = json.loads(run(*words.split(), "max_steps=1", "batch_size=8").stdout)
    assert [row["size"] for row in made["members"]] == ["L1H1"]
    assert json.loads((tmp_path / "f" / "family.json").read_text())["source"] == checkpoint.name  # not the cache's
    refused = CliRunner().invoke(app, [*words.split(), "--overwrite", "--img-size", "30"])
    (line,) = refused.stderr.splitlines()  # said before a conversion begins
    assert refused.exit_code == 2 and line.endswith(
        "--img-size 30 is not a multiple of the source's patch size 4; 32 is"
    )


def test_a_method_that_trains_sees_the_same_images_and_says_its_cost(checkpoint: Path, tmp_path: Path) -> None:
    words = f"init {checkpoint} --depth 1 --heads 2 --data {DATA} --device cpu --json --out {tmp_path}/d --method"
    made = json.loads(run(*words.split(), "distilled", "steps=2", "batch=4").stdout)
    assert made["train_images"] == 8 and made["train_seconds"] > 0
    assert "images that it learned from | 8" in (tmp_path / "d" / "README.md").read_text()
    assert len((tmp_path / "d" / "metrics.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "d" / ".training").exists()
    again = run(*words.split(), "distilled", "steps=2", "batch=4", "--resume")
    assert json.loads(again.stdout)["train_images"] == 8
    run(*words.replace("/d", "/f").split(), "sweet_fitted", "steps=2", "batch=4")  # it needs no decoder


def test_resume_needs_the_same_settings(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".training").mkdir(parents=True)
    words = f"init {checkpoint} --depth 1 --heads 2 --data {DATA} --device cpu --resume --method distilled --out {out}"
    (out / ".training" / "settings.json").write_text(json.dumps({"method": "distilled", "lr": 1}))
    (out / ".training" / "checkpoints").mkdir()
    result = CliRunner().invoke(app, [*words.split(), "steps=2"])
    assert result.exit_code == 2 and "--resume: begun with" in result.stderr
    assert (out / ".training" / "checkpoints").is_dir()


@pytest.mark.parametrize(
    ("words", "named"), [("--fit shapes:n=23,size=16", "fit"), ("--fit-images 8", "fit_images"), ("", "source")]
)
def test_a_training_goes_on_from_its_own_source_and_images(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, named: str
) -> None:
    def stopped(_model: object, _data: object, _source: object, short: ShortRun, **_: object) -> None:
        assert short.run is not None
        (short.run / "checkpoints").mkdir(parents=True)
        raise KeyboardInterrupt

    out = tmp_path / "out"
    line = f"init {checkpoint} --depth 1 --heads 2 --data {DATA} --device cpu --method distilled steps=2 --out {out}"
    with monkeypatch.context() as patch:
        patch.setattr("sweet.initialise.distilled.train_on", stopped)
        CliRunner().invoke(app, line.split())
    assert (out / ".training" / "settings.json").is_file()
    if named == "source":
        file = checkpoint / "model.safetensors"
        save_file({name: 2 * value for name, value in load_file(file).items()}, file)
    result = CliRunner().invoke(app, [*line.split(), "--resume", *words.split()])
    assert result.exit_code == 2 and f"--resume: begun with {named}=" in result.stderr, result.output
    assert not (out / "config.json").is_file()


def test_a_training_of_before_goes_on(tmp_path: Path) -> None:
    """Its settings do not say from which source and images; a switch that they lack was not given."""
    now = {"method": "distilled", "steps": 2, "source": "0a", "fit": "folder:photos", "fit_images": None}
    before = tmp_path / "settings.json"
    before.write_text(json.dumps({"method": "distilled", "steps": 2}))
    same_settings(tmp_path, now)
    for changed, named in ((now | {"steps": 3}, "steps=2, now it is 3"), (now | {"writers": 0.2}, "writers=None")):
        with pytest.raises(UserError, match=f"--resume: begun with {named}"):
            same_settings(tmp_path, changed)
    assert read_json(before) == {"method": "distilled", "steps": 2}


def test_the_order_is_of_the_size_that_is_given(checkpoint: Path, tmp_path: Path) -> None:
    """Against the order of timm's own resized model."""
    from sweet.models.mae import source_from_state
    from sweet.models.resample import at_image_size
    from sweet.template.fold import folded

    made = convert(str(checkpoint), tmp_path / "t", data=DATA, images=24, img_size=32, device="cpu")
    assert made["order_size"] == 32 and made["feature_error"] < 1e-4
    found = from_folder(checkpoint)
    dense = folded(source_from_state(found.state, found.config))
    seen = at_image_size(dense, found.config, 32)
    pixels = list(OrderImages.of(found, DATA, 24, 32, torch.device("cpu")))
    assert pixels[0].shape == (16, 3, 32, 32)
    expected = compute_order(seen.source, seen.config, pixels)
    order = load_source(tmp_path / "t").source.order
    assert order is not None
    torch.testing.assert_close(order.energy, expected.energy, rtol=1e-3, atol=1e-4)
    theirs = timm.create_model(f"local-dir:{checkpoint}", pretrained=True).eval()
    theirs.set_input_size(32)
    centred = theirs.pos_embed - theirs.pos_embed.mean(-1, keepdim=True)  # as the folded source is
    torch.testing.assert_close(seen.source.stem["pos_embed"], centred)
    with pytest.raises(UserError, match="--img-size 30 is not a multiple of the source's patch size 4; 32 is"):
        convert(str(checkpoint), tmp_path / "u", data=DATA, img_size=30, device="cpu")


def test_other_patches_do_not_set_the_size_of_the_order(checkpoint: Path, tmp_path: Path) -> None:
    """18 pixels are whole patches of the model, and none of the checkpoint, whose patches the order is of."""
    size = "--depth 1 --heads 1 --img-size 18 --patch-size 6".split()
    run("init", checkpoint, *size, "--data", DATA, "--device", "cpu", "--out", tmp_path / "m")
    assert read_json(tmp_path / "m" / "config.json")["vit"]["img_size"] == 18


def test_another_process_may_finish_first(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wrote stays: it is read already."""
    first = as_source(checkpoint, data=DATA, device="cpu")
    inode, there = first.stat().st_ino, first.rename(first.with_name("aside"))

    def slower(_checkpoint: object, _order: object, _out: Path, _options: object) -> None:
        there.rename(first)

    monkeypatch.setattr(cached, "convert_checkpoint", slower)
    assert as_source(checkpoint, data=DATA, device="cpu").stat().st_ino == inode


def test_a_cache_of_somebody_else_is_read(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its owner may set the times of a folder."""
    first = as_source(checkpoint, data=DATA, device="cpu")

    def refused(_path: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.utime", refused)
    assert as_source(checkpoint, data=DATA, device="cpu") == first


@pytest.mark.parametrize("key", ["license", "origin_url"])
def test_the_same_weights_of_another_licence_are_another_conversion(checkpoint: Path, key: str) -> None:
    first = as_source(checkpoint, data=DATA, device="cpu")
    info = read_json(checkpoint / "config.json")
    info["pretrained_cfg"][key] = "https://c.d"
    (checkpoint / "config.json").write_text(json.dumps(info))
    assert as_source(checkpoint, data=DATA, device="cpu") != first


@pytest.mark.parametrize(("img", "patch", "size"), [(96, 16, 96), (224, 16, 224), (518, 14, 224), (384, 32, 224)])
def test_the_order_is_of_224_pixels_at_most(img: int, patch: int, size: int) -> None:
    assert default_size(ViTConfig(1, 1, 8, img, patch)) == size


def test_a_checkpoint_of_large_images_says_what_models_take(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One whose conversion the cache keeps does too."""
    monkeypatch.setattr(order_images, "LARGEST", 8)
    note = "takes images of 16 pixels (16 patches), as do models made from it; --img-size 8 of init"
    for size, noted in ((None, True), (8, False)):
        convert(str(checkpoint), tmp_path / f"{size}", data=DATA, device="cpu", img_size=size)
        assert (note in capsys.readouterr().err) == noted
        for name in ("first", "again"):
            out = tmp_path / f"{name}-{size}"
            sweet.init(str(checkpoint), out=out, depth=1, heads=1, data=DATA, device="cpu", img_size=size)
            assert (note in capsys.readouterr().err) == noted
    size = "--depth 1 --heads 1 --img-size 18 --patch-size 6".split()  # the order is of the checkpoint's own patches
    other = run("init", checkpoint, *size, "--data", DATA, "--device", "cpu", "--out", tmp_path / "p")
    assert note not in other.stderr


def test_half_precision_can_be_kept(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = load_file(checkpoint / "model.safetensors")
    save_file({name: value.bfloat16() for name, value in tensors.items()}, checkpoint / "model.safetensors")
    convert(str(checkpoint), tmp_path / "exact", data=DATA, device="cpu")
    convert(str(checkpoint), tmp_path / "half", data=DATA, dtype="source", device="cpu")
    exact, half = (load_file(tmp_path / name / "template.safetensors") for name in ("exact", "half"))
    assert exact["core.core"].dtype == torch.float32 and half["core.core"].dtype == torch.bfloat16
    assert half["order.rotation"].dtype == torch.float32
    torch.testing.assert_close(half["core.core"].float(), exact["core.core"], rtol=1e-2, atol=1e-2)
    assert load_source(tmp_path / "half").source.core.tensors()["core"].dtype == torch.float32
