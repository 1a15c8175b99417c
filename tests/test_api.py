"""The Python interface: three lines to a plain timm model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.eva import Eva
from torch import nn

import sweet
from sweet.files import read_json, read_tensors

IMAGES = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)


def build(folder: Path, depth: int, heads: int, **options: object) -> nn.Module:
    source = sweet.load(folder)
    assert isinstance(source, sweet.Template)
    return source.build(depth, heads, **options)  # type: ignore[arg-type]


@torch.no_grad()
def test_the_three_lines_of_the_readme(template: Path) -> None:
    source = sweet.load(str(template))
    vit = source.build(depth=1, heads=1, num_classes=7)  # type: ignore[operator]
    assert vit(IMAGES).shape == (2, 7)
    assert type(vit) is Eva and not vit.training
    assert all(parameter.device.type == "cpu" and parameter.requires_grad for parameter in vit.parameters())


@pytest.mark.parametrize("kind", ["template", "dense"])
@pytest.mark.parametrize(("depth", "heads"), [(1, 1), (2, 2), (1, 3), (3, 2), (4, 4)])
def test_any_size_from_any_source(kind: str, depth: int, heads: int, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    for order in ("principal", "prefix"):
        vit = build(folder, depth, heads, order=order)
        assert (len(vit.blocks), vit.embed_dim) == (depth, 8 * heads)  # type: ignore[arg-type]
        with torch.no_grad():
            features = vit(IMAGES)
        assert features.shape == (2, 8 * heads) and features.isfinite().all()
        assert not torch.equal(features[0], features[1])


@torch.no_grad()
def test_build_is_what_init_writes(template: Path, model: Path) -> None:
    written = sweet.load(model)
    assert isinstance(written, Eva)
    torch.testing.assert_close(build(template, 2, 2)(IMAGES), written(IMAGES), rtol=0, atol=0)
    expected = read_tensors(model / "model.safetensors")
    assert {name for name, _ in written.named_parameters()} == set(expected)
    assert all(torch.equal(value, expected[name]) for name, value in written.named_parameters())


@torch.no_grad()
def test_options(template: Path) -> None:
    small, same = build(template, 2, 1), build(template, 2, 1)
    assert torch.equal(small(IMAGES), same(IMAGES))
    larger = build(template, 2, 1, img_size=32, in_chans=1, num_classes=3)
    assert larger(torch.zeros(1, 1, 32, 32)).shape == (1, 3)
    assert not torch.equal(build(template, 2, 1, order="prefix")(IMAGES), small(IMAGES))
    wider = [build(template, 2, 3, seed=seed).blocks[0].attn.qkv.weight for seed in (0, 0, 1)]  # type: ignore[index, union-attr]
    assert torch.equal(wider[0], wider[1]) and not torch.equal(wider[0], wider[2])
    heads = [build(template, 1, 1, num_classes=5, seed=seed).head.weight for seed in (0, 1)]  # type: ignore[union-attr]
    assert not torch.equal(heads[0], heads[1])  # type: ignore[arg-type]
    assert build(template, 2, 1, drop_path_rate=0.5).blocks[1].drop_path1.drop_prob == 0.5  # type: ignore[index, union-attr]


@torch.no_grad()
def test_every_method_takes_the_switches_that_come_after_it(template: Path, dense: Path) -> None:
    def size(folder: Path, **options: object) -> float:
        blocks = build(folder, 2, 2, **options).blocks
        written = [w for block in blocks for w in (block.attn.proj.weight, block.mlp.fc2.weight)]  # type: ignore[union-attr]
        return (sum(w.square().sum() for w in written) / sum(w.numel() for w in written)).sqrt().item()

    assert [size(template, writers=0.3), size(dense, method="random", writers=0.3)] == pytest.approx([0.3, 0.3])
    assert size(template, rms=0.1) == pytest.approx(0.1)
    assert size(template, writers="none") == size(template) != pytest.approx(0.3, rel=0.1)
    conditioned = {"method": "weight_selection", "condition": True, "data": "shapes:n=20,size=16"}
    made, plain = (build(dense, 2, 2, **options) for options in (conditioned, {"method": "weight_selection"}))
    assert not torch.equal(made.blocks[0].attn.proj.weight, plain.blocks[0].attn.proj.weight)  # type: ignore[index, union-attr]
    torch.testing.assert_close(size(dense, **conditioned), size(dense, method="weight_selection"))
    scaled = build(template, 2, 2, writers=0.3)
    torch.testing.assert_close(scaled(IMAGES), build(template, 2, 2)(IMAGES), rtol=1e-2, atol=2e-3)


def test_info_is_the_config_file(template: Path) -> None:
    source = sweet.load(template)
    assert isinstance(source, sweet.Template)
    assert source.info == read_json(template / "config.json")
    assert source.info["kind"] == "template"


@torch.no_grad()
def test_load_of_a_model_folder(classifier: Path) -> None:
    vit = sweet.load(classifier)
    assert isinstance(vit, Eva) and vit(IMAGES).shape == (2, 10)
    features = sweet.load(classifier, num_classes=0)
    assert isinstance(features, Eva) and features(IMAGES).shape == (2, 16)
    torch.testing.assert_close(vit.head(features(IMAGES)), vit(IMAGES))
    other = sweet.load(classifier, num_classes=4)
    assert isinstance(other, Eva) and other(IMAGES).shape == (2, 4)


def test_impossible_sizes_and_foreign_folders(template: Path, tmp_path: Path) -> None:
    for depth, heads in ((0, 2), (2, 0), (-1, 1)):
        with pytest.raises(sweet.UserError, match="must be at least 1"):
            build(template, depth, heads)
    with pytest.raises((ValueError, sweet.UserError), match="sideways"):
        build(template, 1, 1, order="sideways")
    with pytest.raises((ValueError, sweet.UserError), match="outer"):
        build(template, 1, 1, layers="outer")
    with pytest.raises(sweet.UserError, match="not a sweet folder"):
        sweet.load(tmp_path)
    with pytest.raises(sweet.UserError, match="no such folder"):
        sweet.load(tmp_path / "nowhere")


def test_an_activation_is_decided_by_the_weights(make_source: Callable[..., sweet.Template]) -> None:
    source = make_source("vit", activation="quick_gelu")
    with pytest.raises(sweet.UserError, match="act_layer='relu': is decided by the weights"):
        source.build(1, 1, order="prefix", act_layer="relu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": "6", "heads": 2}, "depth='6': expected a whole number"),
        ({"depth": 2, "heads": 1.5}, "heads=1.5: expected a whole number"),
        ({"depth": True, "heads": 1}, "depth=True: expected a whole number"),
        ({"depth": 2, "heads": 0}, "heads=0: must be at least 1"),
        ({"depth": 2}, "give depth and heads, or params, or flops"),
        ({}, "give depth and heads, or params, or flops"),
        ({"depth": 2, "heads": 2, "params": "5k"}, "--params 5k: chooses the size itself, leave out depth and heads"),
        ({"params": "5k", "flops": "5k"}, "--params and --flops exclude each other"),
        ({"params": "many"}, "--params many: expected a number such as 12M or 2G"),
        ({"params": 5}, "--params 5: the smallest size, L1H1, takes"),
        ({"depth": 1, "heads": 1, "num_classes": "10"}, "num_classes='10': expected a whole number"),
        ({"depth": 1, "heads": 1, "num_classes": -1}, "num_classes=-1: must be at least 0"),
        ({"depth": 1, "heads": 1, "img_size": 33}, "--img-size 33 is not a multiple of the source's patch size"),
        ({"depth": 1, "heads": 1, "patch_size": 5}, "is not a multiple of --patch-size 5"),
        ({"depth": 1, "heads": 1, "in_chans": 0}, "in_chans=0: must be at least 1"),
        ({"depth": 1, "heads": 1, "in_chans": 5000}, "--in-chans: in_chans must be at most 1024, got 5000"),
        ({"depth": 1, "heads": 1, "img_size": 8192}, "a grid of 2048 patches a side, should be from 1 to 512"),
        ({"depth": 1, "heads": 1, "drop_paht": 0.1}, "drop_paht=0.1: timm's Eva has no such option"),
        ({"depth": 1, "heads": 1, "embed_dim": 64}, "embed_dim=64: is decided by the weights"),
        ({"depth": 1, "heads": 1, "num_reg_tokens": 2}, "build: parameter reg_token is missing"),
        ({"depth": 1, "heads": 1, "dtype": torch.bfloat16}, "dtype=torch.bfloat16: a model is made in float32"),
        ({"depth": 1, "heads": 1, "init_values": 1e-5}, "init_values=1e-05: should be 1.0"),
        ({"depth": 1, "heads": 1, "seed": 2**64}, "seed=18446744073709551616: must be at most"),
        ({"depth": 1, "heads": 1, "method": None}, "--method None: unknown, expected one of sweet"),
        ({"depth": 1, "heads": 1, "device": "gpu"}, "device=gpu: unknown, expected auto"),
        ({"depth": 1, "heads": 1, "method": "distilled", "data": IMAGES}, "data=Tensor: expected where images are"),
    ],
)
def test_what_cannot_be_built_is_one_clear_error(template: Path, options: dict[str, object], message: str) -> None:
    source = sweet.load(template)
    with pytest.raises(sweet.UserError) as error:
        source.build(**options)  # type: ignore[operator]
    assert message in str(error.value) and "\n" not in str(error.value)


def test_options_of_a_model_that_nothing_would_come_of(model: Path) -> None:
    with pytest.raises(sweet.UserError, match=r"device='cuda': a model is made in float32 on the CPU"):
        sweet.load(model, device="cuda")
    with pytest.raises(sweet.UserError, match="name=3: expected a folder"):
        sweet.load(3)  # type: ignore[arg-type]


def test_whole_numbers_of_numpy(template: Path) -> None:
    vit = build(template, np.int64(1), np.int64(3), seed=np.int64(0), num_classes=np.int64(2))  # type: ignore[arg-type]
    same = build(template, 1, 3, num_classes=2)
    assert all(torch.equal(a, b) for a, b in zip(vit.parameters(), same.parameters(), strict=True))


@pytest.mark.parametrize("method", ["sweet", "random", "mimetic"])
def test_a_model_is_the_same_whatever_the_caller_has_set(template: Path, method: str) -> None:
    vit = build(template, 1, 3, num_classes=2, method=method)
    expected = dict(vit.named_parameters()) | dict(vit.named_buffers())
    settings: list[AbstractContextManager[object]] = [torch.device("meta"), torch.inference_mode(), _default_type()]
    for setting in settings:
        with setting:
            vit = build(template, 1, 3, num_classes=2, method=method)
        vit(IMAGES).sum().backward()  # tensors of inference mode could not be trained
        found = dict(vit.named_parameters()) | dict(vit.named_buffers())
        assert all(found[name].dtype == value.dtype for name, value in expected.items()), setting
        assert all(torch.equal(found[name], value) for name, value in expected.items()), setting
    assert torch.get_default_dtype() == torch.float32


@contextmanager
def _default_type() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_method_trains_where_the_caller_wants_no_gradients(dense: Path) -> None:
    chosen = {"method": "distilled", "data": "shapes:n=8,size=16", "steps": 1, "batch": 4, "device": "cpu"}
    with torch.no_grad():
        vit = build(dense, 1, 1, **chosen)
        assert not torch.is_grad_enabled()
    same = build(dense, 1, 1, **chosen)
    assert all(torch.equal(a, b) for a, b in zip(vit.parameters(), same.parameters(), strict=True))


@pytest.mark.parametrize("method", ["random", "distilled", "dmae"])
def test_a_build_leaves_the_global_generators_alone(dense: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = {"data": "shapes:n=8,size=16", "steps": 1, "batch": 4, "device": "cpu"}
    before = torch.get_rng_state()
    if method == "random":  # a training's dropout does seed them, and is put back where there is one
        monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("all GPUs are seeded"))
    build(dense, 1, 1, method=method, **({} if method == "random" else trained))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_size_by_its_cost(template: Path) -> None:
    source = sweet.load(template)
    sizes = [source.build(params=params) for params in ("5k", 5000, 5e3)]  # type: ignore[operator]
    counts = {sum(parameter.numel() for parameter in vit.parameters()) for vit in sizes}
    assert len(counts) == 1 and counts.pop() <= 5000
    assert source.build(flops="200k", num_classes=3)(IMAGES).shape == (2, 3)  # type: ignore[operator]


def test_timm_reads_its_data_config_from_the_model(template: Path, classifier: Path) -> None:
    from timm.data import resolve_model_data_config

    source = sweet.load(template)
    assert isinstance(source, sweet.Template)
    own = {"input_size": [3, 16, 16], "mean": list(source.data.mean), "std": list(source.data.std)}
    own |= {"interpolation": source.data.interpolation, "crop_pct": 1.0, "crop_mode": "center"}
    built = source.build(1, 1, num_classes=7)
    assert resolve_model_data_config(built) == own
    assert built.default_cfg is built.pretrained_cfg and built.default_cfg["num_classes"] == 7  # type: ignore[index]
    assert "label_names" not in built.default_cfg  # type: ignore[operator]
    grey = resolve_model_data_config(source.build(1, 1, img_size=32, in_chans=1))
    assert grey["input_size"] == [1, 32, 32] and len(grey["mean"]) == len(grey["std"]) == 1

    loaded = sweet.load(classifier)
    assert resolve_model_data_config(loaded) == own
    assert loaded.pretrained_cfg["label_names"] == read_json(classifier / "config.json")["data"]["classes"]  # type: ignore[index,union-attr]
    assert loaded.pretrained_cfg["num_classes"] == 10  # type: ignore[index,union-attr]
    assert "label_names" not in sweet.load(classifier, num_classes=4).pretrained_cfg  # type: ignore[operator,union-attr]
    with pytest.raises(sweet.UserError, match="image size 33 is not a multiple of patch size"):
        sweet.load(classifier, img_size=33)


def test_repr_is_one_line(template: Path, dense: Path) -> None:
    source = sweet.load(template)
    count = sum(p.numel() for p in source.build(2, 2).parameters())  # type: ignore[operator]
    assert repr(source).startswith(f"Template(template L2H2, width 16, {count:,} parameters at this size, constraint")
    assert "dense L2H2" in repr(sweet.load(dense)) and "\n" not in repr(source)


def test_names() -> None:
    assert dir(sweet) == sorted(sweet.__all__)
    for name in sweet.__all__:
        assert getattr(sweet, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sweet.nothing
