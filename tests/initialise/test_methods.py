"""What all initialisers have in common: one signature, every size that they promise, one line for what they refuse."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from sweet.data import ImageSource
from sweet.errors import UserError
from sweet.initialise.apply import COMMON, Weights, images_used, initialise, looks_at_images, recommended, switches
from sweet.initialise.registry import NAMES
from sweet.models.condition import writing
from sweet.models.forward import encode, linear, patchify
from sweet.models.moments import compute_order
from sweet.models.vit import build_vit
from sweet.storage.folders import StoredSource
from sweet.storage.records import TrainingRecord, WidthRecord
from sweet.template.hosvd import factored
from sweet.template.sizes import Size
from sweet.template.slices import MATRICES

Wide = Callable[..., StoredSource]

# A row for each initialiser: what its switches may be besides their defaults.
ROWS: dict[str, list[dict[str, Any]]] = {
    "sweet": [
        {"order": "prefix", "layers": "first"},
        {"gains": "rms"},
        {"gains": "sqrt"},
        {"gains": "none"},
        {"inner": "prefix"},
    ],
    "sweet_fitted": [
        *({"train": t, "objective": "mae"} for t in ("xuv", "all", "decoder")),
        *({"start": s} for s in ("interpolated", "random")),
        *({"train": "x", "objective": o} for o in ("mae", "closed")),
        {"gains": "rms"},
        {"inner": "prefix"},
        {"order": "prefix"},
    ],
    "distilled": [
        {"mask_ratio": 0.5},
        {"start": "random"},
        {"start": "weight_selection"},
        {"lr": 1e-3},
        {"order": "prefix", "layers": "first"},
    ],
    "principal_slice": [{"layers": "first"}, {"gains": "equal"}, {"inner": "energy"}],
    "weight_selection": [
        *({"rule": r, "layers": "even"} for r in ("consecutive", "random_consistent", "whole_heads")),
        *({"gains": g} for g in ("sqrt", "equal")),
    ],
    "isomorphic": [{"layers": "even"}, {"objective": "features"}],
    "dmae": [{"alpha": 0.0}, {"lr": 1e-4}, {"layer": 0.5}],
    "tleg": [],
    "wave": [{"layers": "even"}, {"lr": 1e-2}],
    "mimetic": [{"alpha_qk": 0.5, "beta_vo": 1}],
    "random": [],
}
# Those that train do it for a moment.
QUICK: dict[str, dict[str, Any]] = {
    name: {"steps": 1, "batch": 8} for name in ("sweet_fitted", "distilled", "dmae", "wave")
}
BENCH = ("L3H12", "L6H12", "L6H6", "L12H6", "L12H3")
ODD = ("L1H1", "L5H7", "L16H14")
MIDDLE = "L5H6"

both_families = pytest.mark.parametrize("family", ["eva", "vit"])


def make(method: str, source: StoredSource, size: str, images: ImageSource, **given: Any) -> Weights:
    budget = 8 if NAMES[method].images else None
    given = QUICK.get(method, {}) | given
    return initialise(method, source, Size.parse(size, 4), data=images, budget=budget, **given)


def taken(method: str) -> str:
    """The constraint of a source that a method can start from."""
    return (*NAMES[method].takes, "none")[0]


def beyond(size: str) -> bool:
    return size == "L16H14"


def in_tiles(size: str) -> bool:
    """Whether a size has whole tiles of three heads."""
    return Size.parse(size).heads % 3 == 0


def test_every_initialiser_is_registered_and_has_the_one_signature() -> None:
    assert set(ROWS) == set(NAMES)
    for name in NAMES:
        parameters = inspect.signature(import_module(f"sweet.initialise.{name}").initialise).parameters
        assert tuple(parameters)[: len(COMMON)] == COMMON
        kinds = [p.kind for p in parameters.values()]
        assert kinds == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 2 + [inspect.Parameter.KEYWORD_ONLY] * len(
            kinds[2:]
        )
        assert [parameters[p].default for p in ("data", "budget", "seed")] == [None, None, 0]
        assert import_module(f"sweet.initialise.{name}").__doc__


@pytest.mark.parametrize(
    ("size", "family"), [*((size, "eva") for size in (*BENCH, *ODD)), *((size, "vit") for size in ODD)]
)
@pytest.mark.parametrize("method", ROWS)
def test_every_method_makes_every_size(method: str, size: str, family: str, wide: Wide, images: ImageSource) -> None:
    source = wide(family, taken(method))
    if beyond(size) and not NAMES[method].grows:
        with pytest.raises(UserError, match=f"--method {method}: L16H14 is larger than the source L12H12"):
            make(method, source, size, images)
        return
    if method == "wave" and not in_tiles(size):
        with pytest.raises(UserError, match=rf"--method wave: {size} has \d+ channels, not whole tiles of 12"):
            make(method, source, size, images)
        return
    weights = make(method, source, size, images)
    target = Size.parse(size, 4)
    config = source.config.resized(target.depth, target.heads)
    vit = build_vit(config, weights)  # raises for any name or shape that timm does not know
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = vit.forward_features(pixels)
        assert features.isfinite().all() and not torch.allclose(features[0], features[1])
        torch.testing.assert_close(encode(weights, patchify(pixels, 4), config), features, rtol=1e-3, atol=1e-4)
    for name, value in weights.items():
        if name.startswith("decoder."):
            assert value.shape[:1] == source.source.decoder[name.removeprefix("decoder.")].shape[:1]
            assert name != "decoder.embed.weight" or value.shape[1] == config.width


@both_families
@pytest.mark.parametrize("method", ROWS)
def test_switches_do_something_and_the_seed_repeats(method: str, family: str, wide: Wide, images: ImageSource) -> None:
    source = wide(family, taken(method))
    default = make(method, source, MIDDLE, images, seed=3)
    again = make(method, source, MIDDLE, images, seed=3)
    assert default.keys() == again.keys() and all(torch.equal(default[name], again[name]) for name in default)
    for given in ROWS[method]:
        other = make(method, source, MIDDLE, images, seed=3, **given)
        assert {n: v.shape for n, v in other.items()} == {n: v.shape for n, v in default.items()}
        assert not all(torch.equal(default[name], other[name]) for name in default), given


@pytest.mark.parametrize("constraint", ["tucker", "linear", "kronecker"])
@pytest.mark.parametrize("method", [name for name in NAMES if not NAMES[name].takes])
def test_a_template_is_a_source_too(method: str, constraint: str, wide: Wide, images: ImageSource) -> None:
    source = wide("eva", constraint)
    vit = build_vit(source.config.resized(5, 7), make(method, source, "L5H7", images))
    with torch.no_grad():
        features = vit(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)))
    assert features.isfinite().all() and not torch.allclose(features[0], features[1])


OTHERS: dict[str, dict[str, Any]] = {  # what networks of others have and ours have not
    "all norms": {"family": "vit", "qk_norm": True, "attn_norm": True, "mlp_norm": True, "final_norm": "pooled"},
    "bare": {"family": "vit", "class_token": False, "final_norm": "none", "mlp_ratio": 2.5},
    "registers": {"family": "vit", "registers": 2, "pre_norm": True},
    "frequencies": {"family": "eva", "rope": "mixed", "rope_layout": "interleaved", "mlp_ratio": 4.0},
    "relative": {"family": "beit", "final_norm": "pooled", "mlp_norm": True},
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("method", [name for name in ROWS if name != "wave"])
def test_every_method_starts_from_networks_of_others(
    method: str, kind: str, make_source: Callable[..., StoredSource], images: ImageSource
) -> None:
    source = make_source(constraint="none", depth=3, heads=6, head_dim=4, ordered=True, **OTHERS[kind])
    config = source.config.resized(2, 3)
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    if taken(method) == "tucker":
        whole = factored(source.source)
        whole.order = compute_order(whole, source.config, [pixels])
        source = replace(source, source=whole)
    for given in ({}, *(row for row in ROWS[method] if row.get("objective") != "mae"), {"condition": "true"}):
        weights = make(method, source, "L2H3", images, **given)
        with torch.no_grad():
            features = build_vit(config, weights).forward_features(pixels)
            assert features.isfinite().all() and not torch.allclose(features[0], features[1])
            torch.testing.assert_close(encode(weights, patchify(pixels, 4), config), features, rtol=1e-3, atol=1e-4)


def test_principal_slice_is_sweets_cut_of_a_dense_source(wide: Wide, images: ImageSource) -> None:
    ours, theirs = (
        make(method, wide("vit"), "L6H6", images, gains="rms", inner="energy", layers="first")
        for method in ("sweet", "principal_slice")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("method", [name for name in NAMES if NAMES[name].takes[:1] == ("none",)])
def test_a_template_is_refused_where_weights_are_selected(method: str, wide: Wide, images: ImageSource) -> None:
    with pytest.raises(UserError, match=f"--method {method}: the source's constraint is tucker"):
        make(method, wide("eva", "tucker"), "L6H6", images)


@pytest.mark.parametrize("size", ["L13H12", "L12H13"])
def test_one_side_beyond_the_source_is_beyond_it(size: str, wide: Wide, images: ImageSource) -> None:
    with pytest.raises(UserError, match="larger than the source"):
        make("weight_selection", wide("eva"), size, images)


def test_gains_after_slicing(wide: Wide, images: ImageSource) -> None:
    dense, template = wide("eva"), wide("eva", "tucker")
    for method, source, given in (
        ("weight_selection", dense, {}),
        ("sweet", template, {"order": "prefix"}),
    ):
        none, sqrt = (make(method, source, "L12H6", images, gains=gains, **given) for gains in ("none", "sqrt"))
        for name, value in none.items():
            scale = 2**0.5 if "norm" in name and not name.startswith("decoder.") else 1
            torch.testing.assert_close(sqrt[name], scale * value)
    gains = {
        rule: make("sweet", template, "L12H6", images, gains=rule)["norm.weight"] for rule in ("none", "sqrt", "rms")
    }
    assert gains["none"].eq(1).all()
    torch.testing.assert_close(gains["sqrt"], 2**0.5 * gains["none"])
    assert 1 < gains["rms"][0].item() < 2**0.5


@pytest.mark.parametrize(
    ("width", "best"),
    [
        ({"mode": "independent", "apply": "mask"}, "sqrt"),
        ({"mode": "shared", "apply": "slice"}, "none"),
        ({"mode": "none", "apply": "mask"}, "none"),
        (None, "none"),
    ],
)
def test_the_best_gains_of_a_prefix_follow_from_the_sources_training(
    width: dict[str, str] | None, best: str, wide: Wide, images: ImageSource
) -> None:
    """Norms divided by the root mean square of all channels where masks left the stream alone (Eq. 7-8)."""
    plain = wide("eva", "tucker")
    learned = None if width is None else WidthRecord(**width)
    source = replace(plain, record=plain.record.model_copy(update={"width": learned}))
    expected = make("sweet", source, "L6H6", images, order="prefix", gains=best)
    as_it_is = make("sweet", source, "L6H6", images, order="prefix")
    given = {"device": "cpu", "train": "xuv", "objective": "mae", "steps": 0, "batch": 8}
    unmoved = make("sweet_fitted", source, "L6H6", images, order="prefix", **given)
    for name, value in expected.items():
        assert torch.equal(as_it_is[name], value), name
        torch.testing.assert_close(unmoved[name], value)
    principal = make("sweet", source, "L6H6", images)
    assert all(torch.equal(value, make("sweet", plain, "L6H6", images)[name]) for name, value in principal.items())


@pytest.mark.parametrize(("method", "constraint"), [("wave", "kronecker"), ("tleg", "linear")])
def test_the_constraints_compared_take_the_gains_of_a_prefix_too(
    method: str, constraint: str, wide: Wide, images: ImageSource
) -> None:
    plain, given = wide("eva", constraint), {"steps": 0, "batch": 8, "device": "cpu"} if method == "wave" else {}
    learned = WidthRecord(mode="independent", apply="mask")
    masked = replace(plain, record=plain.record.model_copy(update={"width": learned}))
    before, after = (make(method, source, "L6H6", images, **given) for source in (plain, masked))
    gains = {"norm.weight", *(f"blocks.{i}.norm{n}.weight" for i in range(6) for n in (1, 2))}
    for name, value in before.items():
        torch.testing.assert_close(after[name], value * 2**0.5 if name in gains else value)
    expected = make("sweet", masked, "L6H6", images, order="prefix", layers="first")
    torch.testing.assert_close(after, expected)


@both_families
@pytest.mark.parametrize("method", ["sweet", "random", "weight_selection"])
def test_any_start_can_be_rescaled(method: str, family: str, wide: Wide, images: ImageSource) -> None:
    source = wide(family)
    plain, scaled, flat, level = (
        make(method, source, "L6H6", images, **given)
        for given in ({}, {"rms": 0.05}, {"flat": 0.5}, {"flat": 0, "rms": 0.1})
    )
    for name, value in plain.items():
        if not name.startswith("blocks.") or not name.endswith(MATRICES):
            assert torch.equal(value, scaled[name]) and torch.equal(value, flat[name])
            continue
        parts = 3 if "qkv" in name else 2 if "fc1" in name and family == "eva" else 1
        for old, new, half, even in zip(*(w[name].chunk(parts) for w in (plain, scaled, flat, level)), strict=True):
            torch.testing.assert_close(new, old * 0.05 / old.square().mean().sqrt())
            before, after = torch.linalg.svdvals(old), torch.linalg.svdvals(half)
            torch.testing.assert_close(after / after[0], (before / before[0]) ** 0.5, atol=1e-3, rtol=1e-2)
            torch.testing.assert_close(half.square().mean(), old.square().mean(), rtol=1e-3, atol=0)
            s = torch.linalg.svdvals(even)
            torch.testing.assert_close(s, s.mean().expand(len(s)), rtol=1e-3, atol=1e-5)
            assert even.square().mean().sqrt().item() == pytest.approx(0.1, rel=1e-3)


@both_families
@pytest.mark.parametrize("method", ["sweet", "random", "weight_selection", "isomorphic"])
def test_any_start_can_be_put_into_other_coordinates(method: str, family: str, wide: Wide, images: ImageSource) -> None:
    source = wide(family)
    plain, same, rotated = (
        make(method, source, "L6H6", images, **given)
        for given in ({}, {"condition": "false"}, {"condition": "true", "rms": 0.1})
    )
    assert all(torch.equal(value, same[name]) for name, value in plain.items())
    louder = make(method, source, "L6H6", images, writers=0.2)
    changed = {name for name, value in plain.items() if not torch.equal(value, louder[name])}
    assert changed == {name for name in writing(plain, 6) if plain[name].any()}
    scaled = make(method, source, "L6H6", images, rms=0.1)
    assert not torch.equal(rotated["cls_token"], scaled["cls_token"])
    pixels, config = torch.randn(2, 3, 16, 16), source.config.resized(6, 6)
    features = [encode(w, patchify(pixels, 4), config) for w in (scaled, rotated)]
    if "decoder.embed.weight" in plain:
        features = [linear(x, w, "decoder.embed") for x, w in zip(features, (scaled, rotated), strict=True)]
        torch.testing.assert_close(*features, rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match=r"--method \w+: (condition=true )?looks at images; name some with --fit"):
        initialise(method, source, Size.parse("L6H6", 4), condition=True)
    assert images_used(method, None, images, {"condition": True}) == len(images)
    assert looks_at_images(method, {"condition": True})
    assert looks_at_images(method) == (method == "isomorphic")


def test_layers_are_the_first_of_a_checkpoint_of_others(wide: Wide, images: ImageSource) -> None:
    theirs = wide("eva", "tucker")
    assert theirs.record.training is None
    trained = theirs.record.model_copy(update={"training": TrainingRecord(steps=1, images=1, loss=1.0, seconds=1.0)})
    stored = replace(theirs, record=trained)
    for method, given in (("sweet", {}), ("sweet_fitted", {"steps": 0})):
        first, even = (make(method, stored, "L6H6", images, layers=rule, **given) for rule in ("first", "even"))
        assert not torch.equal(first["blocks.5.mlp.fc2.weight"], even["blocks.5.mlp.fc2.weight"])
        for source, expected in ((stored, even), (theirs, first)):
            made = make(method, source, "L6H6", images, **given)
            assert all(torch.equal(value, expected[name]) for name, value in made.items())


def test_the_stream_of_a_checkpoint_of_others_is_scaled(wide: Wide) -> None:
    """Where the user names no scale; switches that are read twice stay the same."""
    theirs = wide("eva")
    trained = TrainingRecord(steps=1, images=1, loss=1.0, seconds=1.0)
    ours = replace(theirs, record=theirs.record.model_copy(update={"training": trained}))

    def scale(method: str, source: StoredSource = theirs, **given: object) -> object:
        chosen = recommended(method, source, given)
        known = switches(method, chosen)
        assert recommended(method, source, chosen) == chosen and switches(method, known) == known
        return chosen.get("writers")

    assert scale("sweet") == scale("sweet", gains="rms") == scale("random", condition=True) == 0.2
    assert scale("sweet", writers=0.1) == scale("sweet", ours, writers=0.1) == 0.1
    assert scale("sweet", writers="none") == scale("isomorphic", condition=True, writers="none") == "none"
    assert [scale("sweet", order="prefix"), scale("sweet", rms=0.1), scale("random"), scale("wave")] == [None] * 4
    assert [scale("sweet", ours), scale("random", ours, condition=True)] == [None] * 2
    assert "writers" not in switches("sweet", recommended("sweet", theirs, {"writers": "none"}))
    with pytest.raises(UserError, match="rms=none: should be a number"):
        switches("sweet", {"rms": "none"})
    assert scale("sweet_fitted") == 0.2
    rates = [recommended("sweet_fitted", *one)["lr"] for one in ((theirs,), (theirs, {"lr": 0.01}), (ours,))]
    assert rates == [1e-4, 0.01, 1e-3]


def test_noise_replaces_a_share_of_the_energy(wide: Wide, images: ImageSource) -> None:
    plain, mixed, other, drowned = (
        make("sweet", wide("eva"), "L6H6", images, **given)
        for given in ({}, {"noise": 0.3}, {"noise": 0.3, "seed": 1}, {"noise": 1.0, "rms": 0.1})
    )
    for name in (n for n in plain if n.startswith("blocks.") and n.endswith(MATRICES)):
        for old, new, again, lost in zip(*(w[name].chunk(3) for w in (plain, mixed, other, drowned)), strict=True):
            if "qkv" in name:
                size = old.square().mean()
                assert ((new - 0.7**0.5 * old).square().mean() / size).item() == pytest.approx(0.3, rel=0.15)
                assert not torch.equal(new, again)
                assert abs(torch.corrcoef(torch.stack([old.flatten(), lost.flatten()]))[0, 1].item()) < 0.15
                assert lost.square().mean().sqrt().item() == pytest.approx(0.1, rel=1e-3)


def test_mistakes_are_one_line(wide: Wide, make_source: Callable[..., StoredSource], images: ImageSource) -> None:
    for method, given, message in (
        ("magic", {}, "--method magic: unknown, expected one of sweet, "),
        ("random", {"order": "prefix"}, "--method random has no such switch; its switches: rms, flat, noise, writers"),
        (
            "sweet",
            {"rule": "uniform"},
            "rule=uniform: --method sweet has no such switch; its switches: order, layers, gains",
        ),
        ("weight_selection", {"rule": "best"}, "rule=best: expected one of uniform, consecutive, random_consistent, "),
        ("sweet", {"order": "prefix", "gains": "rms"}, "gains=rms: energies are known in principal order only"),
        ("random", {"rms": "0"}, "rms=0: should be from 1e-06 to 1000"),
        ("sweet", {"writers": "1e39"}, "writers=1e39: should be from 1e-06 to 1000"),
        ("sweet", {"flat": -0.5}, "flat=-0.5: should be from 0 to 1000"),
        ("sweet", {"writers": [0.2]}, r"writers=\[0.2\]: should be a number"),
        ("sweet", {"writers": True}, "writers=True: should be a number"),
        ("random", {"noise": "1.5"}, "noise=1.5: is a share, at most 1"),
        ("random", {"condition": "yes"}, "condition=yes: expected one of true, false"),
        ("sweet", {"flat": "nan"}, "flat=nan: should be a number"),
        ("mimetic", {"alpha_qk": "much"}, "alpha_qk=much: should be a number"),
    ):
        with pytest.raises(UserError, match=message):
            initialise(method, wide("eva"), Size(6, 6, 4), data=images, **given)
    with pytest.raises(UserError, match="--method isomorphic: looks at images; name some with --fit"):
        initialise("isomorphic", wide("eva"), Size(6, 6, 4))
    with pytest.raises(UserError, match="order=principal: this source has no principal order; use order=prefix"):
        initialise("sweet", make_source("eva"), Size(1, 1, 8))
    with pytest.raises(ValueError, match="head_dim is 64, the source has 4"):
        initialise("sweet", wide("eva"), Size(6, 6))


def test_switches_are_read_from_text() -> None:
    assert switches("mimetic", {"beta_qk": "1", "alpha_vo": None}) == {
        "alpha_qk": 0.7,
        "beta_qk": 1.0,
        "alpha_vo": 0.4,
        "beta_vo": 0.4,
    }
    assert switches("weight_selection") == {"rule": "uniform", "layers": "first", "gains": "none"}
    assert switches("random") == {}
    assert switches("random", {"rms": "0.1"}) == {"rms": 0.1}
    for value in (2.9, True, "1" + "0" * 400):
        with pytest.raises(UserError, match=r"steps=.*: should be a whole number"):
            switches("distilled", {"steps": value})
    assert switches("distilled", {"steps": 2.0, "lr": torch.tensor(0.5)})["steps"] == 2


def test_a_closed_form_looks_at_fewer_images() -> None:
    many: Any = range(10_000)
    assert images_used("sweet_fitted", None, many, {"objective": "closed"}) == 2000
    assert images_used("sweet_fitted", 500, many, {"objective": "closed"}) == 500


@pytest.mark.parametrize("method", [name for name in NAMES if "inner" in switches(name)])
def test_the_old_name_of_a_value_is_read(method: str) -> None:
    assert switches(method, {"inner": "loudest"})["inner"] == "energy"
    with pytest.raises(UserError, match="inner=quiet: expected one of energy, prefix"):
        switches(method, {"inner": "quiet"})


def test_a_source_is_not_changed(wide: Wide, images: ImageSource) -> None:
    from sweet.storage.folders import source_tensors

    def copy(source: StoredSource) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in source_tensors(source.source).items()}

    for family in ("eva", "vit"):
        for method in NAMES:
            source = wide(family, taken(method))
            before = copy(source)
            make(method, source, MIDDLE, images)
            after = copy(source)
            assert all(torch.equal(before[name], after[name]) for name in before), method
