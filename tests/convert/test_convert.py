"""``sweet convert``: a template computes what its checkpoint did, and less of it at lower ranks; mistakes are named."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from typer.testing import CliRunner

from sweet.cli import app
from sweet.convert.convert import convert
from sweet.convert.order_images import OrderImages
from sweet.convert.read import read
from sweet.data import open_images
from sweet.describe import inspect
from sweet.errors import UserError
from sweet.files import check_sums, read_json, sha256
from sweet.inference.checks import mae_loss
from sweet.initialise.apply import initialise
from sweet.initialise.sweet import best_gains, best_layers
from sweet.models.forward import encode, linear, patchify
from sweet.models.moments import compute_order
from sweet.storage.folders import StoredSource, load_source, source_tensors
from sweet.storage.layout import write_folder
from sweet.storage.records import TrainingRecord, WidthRecord
from sweet.template.fold import folded
from sweet.template.order import embedding_basis
from sweet.template.target import target_weights

MakeSource = Callable[..., StoredSource]
DATA = "shapes:n=40,size=16"


def write_dense(stored: StoredSource, out: Path) -> Path:
    write_folder(out, ("model.safetensors", source_tensors(stored.source)), stored.record, "", "")
    return out


@pytest.fixture(params=["eva", "vit"])
def dense_source(request: pytest.FixtureRequest, make_source: MakeSource, tmp_path: Path) -> tuple[StoredSource, Path]:
    """A small dense source with trained-like gains and biases, and its folder."""
    stored = make_source(request.param, "none", depth=2)
    return stored, write_dense(stored, tmp_path / "dense")


def images() -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def features(stored: StoredSource, order: str = "prefix") -> Tensor:
    source = stored.source
    w = target_weights(source, source.depth, source.width, order=order, layers="first")
    return encode(w, patchify(images(), stored.config.patch_size), stored.config)


def test_full_ranks_reproduce_the_source(dense_source: tuple[StoredSource, Path], tmp_path: Path) -> None:
    stored, folder = dense_source
    summary = convert(str(folder), tmp_path / "out", data=DATA, images=32, device="cpu")
    assert summary["ranks"] == [24, 24, 24]
    assert summary["error"] < 1e-5
    assert summary["feature_error"] < 1e-5
    made = load_source(tmp_path / "out")
    torch.testing.assert_close(features(made), features(stored), rtol=0, atol=1e-4)
    assert made.source.decoder.keys() == stored.source.decoder.keys()

    # in principal order: the same features without the final gain, in the rotated basis
    gain, shift = stored.source.stem["norm.weight"], stored.source.stem.get("norm.bias", torch.zeros(24))
    centred = stored.config.family == "vit"
    assert made.source.order is not None
    basis = embedding_basis(24, centred=centred)
    rotation = made.source.order.rotation[:, : basis.shape[1]] @ basis.t()
    expected = (features(stored) - shift) / gain @ rotation
    torch.testing.assert_close(features(made, "principal"), expected, rtol=0, atol=1e-4)


def test_conditioned_is_the_same_function_with_equal_channels(
    dense_source: tuple[StoredSource, Path], tmp_path: Path
) -> None:
    """Also in prefix order, at another size of the images, and without the stochastic width of the old axes."""
    stored, folder = dense_source
    out = {}
    for words in ("condition=false", "condition=true"):
        out[words] = tmp_path / words
        result = CliRunner().invoke(
            app, ["convert", str(folder), words, "--data", DATA, "--img-size", "8", "--out", str(out[words])]
        )
        assert result.exit_code == 0, result.output
    plain, made = (load_source(path) for path in out.values())
    assert made.record.converted is not None and made.record.converted.condition
    assert "conditioned" in (out["condition=true"] / "README.md").read_text()
    assert plain.record.width == stored.record.width and made.record.width is None

    def decoded(source: StoredSource, order: str) -> Tensor:
        w = target_weights(source.source, 2, 24, order=order)
        return linear(encode(w, patchify(images(), 4), source.config), w, "decoder.embed")

    for order in ("prefix", "principal"):
        torch.testing.assert_close(decoded(made, order), decoded(plain, "prefix"), rtol=0, atol=1e-4)
    size = stored.config.size
    first, gains = (initialise("sweet", source, size, order="prefix") for source in (plain, made))
    assert torch.equal(first["blocks.1.norm1.weight"], torch.ones(24))
    assert gains["blocks.1.norm1.weight"].std() > 0.1


def test_the_stochastic_width_of_a_source_goes_along(make_source: MakeSource, tmp_path: Path) -> None:
    """By it a slice in prefix order takes its gains."""
    stored = make_source("eva", "none", depth=2)
    record = stored.record.model_copy(update={"width": WidthRecord(mode="independent", apply="mask")})
    dense = write_dense(StoredSource(stored.source, record), tmp_path / "dense")
    convert(str(dense), tmp_path / "template", data=DATA, images=8)
    assert best_gains(load_source(tmp_path / "template"), "prefix") == "sqrt"


def test_what_a_source_of_sweet_says_goes_along(make_source: MakeSource, tmp_path: Path) -> None:
    """What its training took, so that it is nobody else's; how its images are read, those of the order too."""
    stored = make_source("eva", "none", depth=2, in_chans=1)
    trained = TrainingRecord(steps=1, images=16, loss=1.0, seconds=1.0)
    data = stored.data.model_copy(update={"value_range": (0.0, 4095.0)})
    record = stored.record.model_copy(update={"training": trained, "data": data})
    dense = write_dense(StoredSource(stored.source, record), tmp_path / "dense")
    convert(str(dense), tmp_path / "template", data=DATA, images=8, device="cpu")
    made = load_source(tmp_path / "template")
    assert made.record.training == trained and not made.record.of_others and best_layers(made) == "even"
    assert made.data == data
    assert "training" in inspect(tmp_path / "template")
    pixels = next(iter(OrderImages.of(read(str(dense))[0], DATA, 8, None, torch.device("cpu"))))
    assert pixels.shape == (8, 1, 16, 16)


def test_the_error_falls_with_rank(
    dense_source: tuple[StoredSource, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = dense_source
    errors, of_features = [], []
    for rank in (4, 10, 16, 22, 24):
        out = tmp_path / str(rank)
        summary = convert(str(folder), out, ranks=(rank, rank, rank), data=DATA, images=32, device="cpu")
        errors.append(summary["error"])
        of_features.append(summary["feature_error"])
        assert ("higher ranks keep more" in capsys.readouterr().err) == (summary["feature_error"] > 0.5)
    assert all(after < before for before, after in itertools.pairwise(errors))
    assert all(after < before for before, after in itertools.pairwise(of_features))
    assert errors[0] > 0.5 and of_features[0] > 0.5 > of_features[2]
    assert errors[-1] < 1e-5


def test_energy_chooses_ranks(dense_source: tuple[StoredSource, Path], tmp_path: Path) -> None:
    _, folder = dense_source
    chosen = []
    for energy in (0.5, 0.9):
        summary = convert(
            str(folder), tmp_path / str(energy), energy=energy, metric="weights", data=DATA, images=8, device="cpu"
        )
        assert read_json(tmp_path / str(energy) / "config.json")["ranks"] == summary["ranks"]
        assert summary["error"] ** 2 < 1 - energy + 0.05  # of unbalanced norms, so nearly
        chosen.append(summary["ranks"])
    assert all(low < high <= 24 for low, high in zip(*chosen, strict=True))


def test_what_the_folder_says(dense_source: tuple[StoredSource, Path], tmp_path: Path) -> None:
    stored, folder = dense_source
    out = tmp_path / "out"
    convert(str(folder), out, ranks=(12, 20, 24), data=DATA, images=32, device="cpu")
    info = read_json(out / "config.json")
    assert info["kind"] == "template"
    assert "training" not in info
    converted = info["converted"]
    assert converted["source"] == "dense"
    assert converted["source_sha256"] == sha256(folder / "model.safetensors")
    assert converted["order_images"] == "32 of shapes:n=40,size=16"
    mlp = ["gate", "up", "down"] if stored.config.family == "eva" else ["fc1", "fc2"]
    assert list(converted["error"]["components"]) == ["q", "k", "v", "o", *mlp]
    assert len(converted["error"]["layers"]) == 2
    assert [len(converted["spectrum"][mode]) for mode in "xuv"] == [24, 24, 24]
    assert sum(converted["spectrum"]["u"]) == pytest.approx(1, abs=1e-2)
    assert all(check_sums(out).values())
    for name in ("config.json", "recipe.yaml", "README.md"):
        assert str(tmp_path) not in (out / name).read_text()
    shown = inspect(out)
    assert shown["converted"]["metric"] == "activations"
    assert shown["ranks"] == [12, 20, 24]
    assert json.loads(json.dumps(shown)) == shown


def test_the_activation_metric_helps_the_features(make_source: MakeSource, tmp_path: Path) -> None:
    """On a source whose stream is far from white, as trained ones are (docs/log.md)."""
    stored = make_source("eva", "none", depth=2)
    scale = torch.logspace(0.3, -1.5, 24)
    stored.source.stem["patch_embed.proj.weight"] *= scale[:, None, None, None]
    stored.source.core.weights["attn.proj.weight"] *= scale[:, None]  # type: ignore[union-attr]
    stored.source.core.weights["mlp.fc2.weight"] *= scale[:, None]  # type: ignore[union-attr]
    folder = write_dense(stored, tmp_path / "dense")
    errors = [
        convert(str(folder), tmp_path / m, ranks=(24, 14, 24), metric=m, data=DATA, images=32, device="cpu")
        for m in ("activations", "weights")
    ]
    assert errors[0]["feature_error"] < errors[1]["feature_error"]
    assert errors[0]["error"] > errors[1]["error"]


def test_scenes_stand_in_for_images(tmp_path: Path, make_source: MakeSource) -> None:
    """Without --data the order comes from synthetic scenes; on photographs see docs/log.md."""
    stored = make_source("eva", "none", depth=2)
    made = write_dense(stored, tmp_path / "dense")
    summary = convert(str(made), tmp_path / "out", images=32, device="cpu")
    assert summary["order_images"] == "32 synthetic scenes; --data gives a better order"
    order = load_source(tmp_path / "out").source.order
    assert order is not None
    meant = compute_order(folded(stored.source), stored.config, [images()])  # noise: as far from scenes as can be
    moment = (meant.rotation * meant.energy.sum(0)) @ meant.rotation.t()
    for kept in (6, 12, 18):
        theirs = (order.rotation[:, :kept].t() @ moment @ order.rotation[:, :kept]).trace()
        assert theirs > moment.diagonal().topk(kept).values.sum()  # better than any choice of axes
        assert theirs > 0.6 * meant.energy.sum(0)[:kept].sum()


def test_a_source_keeps_its_own_order(dense: Path, tmp_path: Path) -> None:
    summary = convert(str(dense), tmp_path / "out", device="cpu")
    assert summary["order_images"] == "the source's own"
    theirs, ours = load_source(dense).source.order, load_source(tmp_path / "out").source.order
    assert theirs is not None and ours is not None
    assert torch.equal(theirs.rotation, ours.rotation)


def test_a_source_of_before_heads_were_ordered_gets_an_order(make_source: MakeSource, tmp_path: Path) -> None:
    old = write_dense(make_source("eva", "none", depth=2, ordered=True), tmp_path / "old")
    tensors = load_file(old / "model.safetensors")
    first = {name: value for name, value in tensors.items() if name not in ("order.heads", "order.units")}
    save_file(first, old / "model.safetensors")
    (old / "SHA256SUMS").unlink()
    assert load_source(old).source.order is None
    convert(str(old), tmp_path / "new", data=DATA, images=32, device="cpu")
    order = load_source(tmp_path / "new").source.order
    assert order is not None and order.heads.shape == (2, 3)


def test_a_file_becomes_models_and_can_be_trained_on(tmp_path: Path, tiny: Callable[..., Any]) -> None:
    """The way of most users: a checkpoint, a template, a smaller model; and healing starts where it should."""
    from sweet.initialise.make import initialise_to
    from sweet.training.pretrain import pretrain

    model = VisionTransformer(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=7)
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    out = tmp_path / "template"
    words = f"convert {tmp_path}/vit.safetensors --out {out} --heads 2 --data {DATA} --images 16 --device cpu --json"
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["ranks"] == [24, 16, 16]
    assert not [name for name in load_file(out / "template.safetensors") if name.startswith("decoder")]
    assert initialise_to(str(out), tmp_path / "small", depth=1, heads=1)["size"] == "L1H1"
    recipe = tiny("model.family=vit", "template.ranks=[24,16,16]", "max_steps=1", f"init_from={out}")
    assert pretrain(recipe, tmp_path / "healed", quiet=True)["steps"] == 1


CASES = {
    "convert nowhere --out OUT": ["SOURCE nowhere", "no such file or folder"],
    "convert template --out OUT": ["template", "is a template, expected a model or a dense source"],
    "convert dense --ranks 8,8 --out OUT": ["--ranks 8,8", "three whole numbers"],
    "convert dense --ranks 8,99,8 --out OUT": ["--ranks 8,99,8", "r2 = 99", "1..16"],
    "convert dense --ranks 0,8,8 --out OUT": ["r1 = 0"],
    "convert dense --energy 1.5 --out OUT": ["--energy 1.5"],
    "convert dense --energy 0.9 --ranks 8,8,8 --out OUT": ["--ranks and --energy"],
    "convert dense --metric taste --out OUT": ["--metric", "taste"],
    "convert dense --data folder:nowhere --out OUT": ["--data folder:nowhere", "no such folder"],
    "convert dense --images 0 --out OUT": ["--images", "0"],
    "convert dense --device tpu --out OUT": ["device", "tpu"],
    "convert text.pth --out OUT": ["text.pth", "not a file of plain tensors"],
    "convert timm: --out OUT": ["timm:", "timm cannot load it"],
    "convert timm:resnet18 --out OUT": ["timm:resnet18", "is a ResNet, expected one of Beit, Eva, VisionTransformer"],
    "convert timm:vit_tiny_patch16_224.dino --out OUT": ["no weights of that name", "vit_tiny_patch16_224.augreg"],
    "convert timm:vit_base_mci_224 --out OUT": ["vit_base_mci_224", "embed_layer=HybridEmbed"],
    "convert timm:vit_base_patch16_224.mae --out OUT": ["offline (HF_HUB_OFFLINE is set)", "not in the cache"],
    "convert hub:anna/nothing --out OUT": ["hub:anna/nothing", "offline: HF_HUB_OFFLINE is set"],
    "convert dense --heads 2 --out OUT": ["--heads 2", "is for a file of weights"],
    "convert dense --weights ema --out OUT": ["--weights ema", "is for a file of weights"],
    "convert dense --mean 0.5,0.5 --out OUT": ["--mean 0.5,0.5", "has 3 channels"],
    "convert dense --std 0,1,1 --out OUT": ["--std 0,1,1", "expected numbers"],
    "convert dense --img-size 15 --data shapes:n=4 --out OUT": ["--img-size 15", "multiple of the source's patch size"],
    "convert dense --img-size 32 --out OUT": ["--img-size 32", "dense has its own order", "--data SRC"],
    "convert dense --images 8 --out OUT": ["--images 8", "dense has its own order", "--data SRC"],
    "convert dense --heal-lr 1e-4 --out OUT": ["--heal-lr 0.0001", "--heal STEPS"],
    "convert vit.pth --like vit_tiny_patch16_224.typo --out OUT": ["--like vit_tiny_patch16_224.typo", "vit_tiny"],
    "convert vit.pth --like vit_tiny_patch16_224 --heads 3 --out OUT": ["--heads 3", "vit.pth", "--like vit_tiny"],
    "init dense --depth 1 --heads 1 --fit-images 4 --out OUT": ["--fit-images 4", "--method sweet looks at no images"],
    "init dense --depth 1 --heads 1 --data shapes: --out OUT": ["--data shapes:", "converted on the way"],
    "init timm:resnet18 --depth 1 --heads 1 --out OUT": ["timm:resnet18", "is a ResNet"],
    "convert timm:no_such_model --out OUT": ["timm:no_such_model", "timm cannot load it"],
    "convert dense order=prefix --out OUT": ["order=prefix", "one switch: condition=true"],
    "convert condition=true --out OUT": ["SOURCE is missing"],
    "convert dense --out dense": ["--out dense", "is SOURCE itself"],
}


@pytest.mark.parametrize("words", CASES)
def test_a_mistake_is_named_in_one_line(
    dense: Path, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dense").symlink_to(dense)
    Path("template").symlink_to(template)
    Path("text.pth").write_text("no checkpoint")
    torch.save({"patch_embed.proj.weight": torch.zeros(192, 3, 16, 16)}, "vit.pth")
    result = CliRunner().invoke(app, words.split(), prog_name="sweet")
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for part in CASES[words]:
        assert part in result.stderr
    assert not Path("OUT").exists()


def held_out_loss(folder: Path) -> float:
    """MAE loss at full size on images that nobody has learned from."""
    stored = load_source(folder)
    config = stored.config
    weights = target_weights(stored.source, config.depth, config.width)
    loss = mae_loss(weights, config, stored.mae, open_images("shapes:n=32,size=16,seed=9", "train"), stored.data)
    assert loss is not None
    return loss


def test_healing_lowers_the_loss_and_keeps_the_gains(dense: Path, tmp_path: Path) -> None:
    """Low ranks lose most of what the source knew; some steps on images bring part of it back."""
    data = "shapes:n=64,size=16"
    torn = convert(str(dense), tmp_path / "torn", ranks=(12, 8, 8), data=data, device="cpu")
    healed = convert(str(dense), tmp_path / "healed", ranks=(12, 8, 8), data=data, heal_steps=60, device="cpu")
    assert torn["feature_error"] == healed["feature_error"] and "healed_feature_error" not in torn
    assert healed["healed_feature_error"] != healed["feature_error"]
    before, after = (held_out_loss(tmp_path / name) for name in ("torn", "healed"))
    assert after < before - 0.01
    source = load_source(tmp_path / "healed").source
    assert source.order is not None and all(source.blocks[f"norm{i}.weight"].eq(1).all() for i in (1, 2))
    with pytest.raises(UserError, match="--heal 5: learns from images; name some with --data"):
        convert(str(dense), tmp_path / "blind", heal_steps=5)
    assert not (tmp_path / "blind").exists()
