"""Training towards the source's own features: the reader, the loss, what learns, and a run that goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sweet.data import ImageSource
from sweet.errors import UserError
from sweet.initialise.apply import initialise, switches, training_cost
from sweet.initialise.distilled import Distilled, missed
from sweet.storage.folders import StoredSource
from sweet.template.sizes import Size
from sweet.template.target import target_weights
from sweet.training.short_run import ShortRun, train_on

Wide = Callable[..., StoredSource]
both_families = pytest.mark.parametrize("family", ["eva", "vit"])
L6H6, WHOLE = Size(6, 6, 4), Size(12, 12, 4)


def pixels() -> torch.Tensor:
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@both_families
@pytest.mark.parametrize("mask_ratio", [0.0, 0.75])
def test_the_whole_source_misses_nothing_of_itself(family: str, mask_ratio: float, wide: Wide) -> None:
    source = wide(family)
    model = Distilled(target_weights(source.source, 12, 48, order="prefix"), source, WHOLE, mask_ratio=mask_ratio)
    with torch.no_grad():
        model.reader.weight.copy_(torch.eye(48))
        model.reader.bias.zero_()
    noise = torch.rand(8, 16, generator=torch.Generator().manual_seed(1))
    loss = model(pixels(), noise).item()
    if mask_ratio:  # the target sees a quarter of what the source sees
        assert 0.01 < loss < 2
    else:
        assert loss < 1e-9


def test_a_masked_target_is_compared_at_the_patches_that_it_sees(wide: Wide) -> None:
    source = wide("eva")
    model = Distilled(target_weights(source.source, 12, 48, order="prefix"), source, WHOLE, mask_ratio=0.75)
    keep = torch.tensor([[3, 9, 12, 1]]).expand(8, -1)
    from sweet.models.forward import patchify

    patches = patchify(pixels(), 4)
    whole, seen = model.known(patches, None), model.known(patches, keep)
    assert torch.equal(seen[:, 0], whole[:, 0])
    assert torch.equal(seen[:, 1:], whole[:, [4, 10, 13, 2]])


def test_the_reader_is_least_squares(wide: Wide) -> None:
    source = wide("vit")
    weights = initialise("sweet", source, L6H6)
    model = Distilled({n: v for n, v in weights.items() if not n.startswith("decoder.")}, source, L6H6)
    model.fit_reader([pixels()[:3], pixels()[3:]])
    from sweet.models.forward import patchify

    patches = patchify(pixels(), 4)
    with torch.no_grad():
        x, y = model.features(patches, None).flatten(0, 1), model.known(patches, None).flatten(0, 1)
        ours = (model.reader(x) - y).square().sum()
    with_one = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    best = torch.linalg.lstsq(with_one, y.double(), driver="gelsd").solution
    assert ours.item() == pytest.approx((with_one @ best - y).square().sum().item(), rel=0.05)


def test_missed_is_a_share_of_the_variance() -> None:
    known = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    assert missed(known, known).item() == 0
    assert missed(known + 1, known).item() < 1e-9  # a constant costs nothing
    assert missed(2 * known, known).item() == pytest.approx(1)
    assert missed(known.mean((0, 1)).expand_as(known), known).item() == pytest.approx(1)


@both_families
def test_all_weights_of_the_target_learn_and_the_loss_falls(
    family: str, wide: Wide, images: ImageSource, tmp_path: Path
) -> None:
    source = wide(family)
    sliced = initialise("sweet", source, L6H6)
    made = initialise(
        "distilled", source, L6H6, data=images, device="cpu", run=tmp_path, steps=40, batch=16, lr=2e-3, decay=0
    )
    assert {name for name in sliced if not name.startswith("decoder.")} == set(made)
    assert not [name for name in made if torch.equal(made[name], sliced[name])]
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.9 * losses[0]


def test_the_sliced_start_is_ahead_of_a_random_one(wide: Wide, images: ImageSource, tmp_path: Path) -> None:
    first = []
    for start in ("sweet", "random"):
        run = tmp_path / start
        initialise(
            "distilled", wide("eva"), Size(12, 9, 4), data=images, device="cpu", run=run, steps=1, batch=32, start=start
        )
        first.append(json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["loss"])
    assert first[0] < 0.8 * first[1]


def test_an_interrupted_run_ends_like_an_unbroken_one(
    wide: Wide, images: ImageSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweet.training.short_run.CHECKPOINT", 2)
    source, given = wide("eva"), {"batch": 8, "lr": 1e-3}
    whole = initialise("distilled", source, L6H6, data=images, device="cpu", run=tmp_path / "a", steps=5, **given)
    weights = initialise("sweet", source, L6H6, layers="even")
    encoder = {n: v for n, v in weights.items() if not n.startswith("decoder.")}
    model = Distilled(encoder, source, L6H6)

    class Stopped(Exception):
        pass

    calls = 0
    plain = model.forward

    def forward(pictures: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise Stopped
        return plain(pictures, noise)

    model.forward = forward  # type: ignore[method-assign]
    from sweet.initialise.distilled import first_images, parameter_groups

    model.fit_reader(first_images(images, source, None, 0))
    with pytest.raises(Stopped):
        short = ShortRun(5, 8, 1e-3, warmup=0.1, device="cpu", run=tmp_path / "b")
        train_on(model, images, source, short, groups=parameter_groups(model, 0.05))
    again = initialise("distilled", source, L6H6, data=images, device="cpu", run=tmp_path / "b", steps=5, **given)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    with pytest.raises(UserError, match=r"--resume: .* was begun with other images \(fit: "):
        others = images.select(range(len(images) - 1))
        initialise("distilled", source, L6H6, data=others, device="cpu", run=tmp_path / "b", steps=6, **given)


def test_what_it_costs(wide: Wide) -> None:
    source = wide("eva").config
    spent = training_cost("distilled", source, source.resized(6, 6), switches("distilled", {"steps": 10, "batch": 4}))
    assert spent["train_images"] == 40
    flops = source.cost().flops(attention=True) + 3 * source.resized(6, 6).cost().flops(attention=True)
    assert spent["train_pflops"] == pytest.approx(40 * flops / 1e15, abs=1e-6)
    assert training_cost("sweet", source, source, switches("sweet")) == {}


def test_mistakes_are_one_line(wide: Wide, images: ImageSource, make_source: Callable[..., StoredSource]) -> None:
    for given, message in (
        ({"mask_ratio": 1}, "mask_ratio=1: should be at least 0 and below 1"),
        ({"warmup": 1}, "warmup=1 decay=0.05: should be at least 0, and warmup below 1"),
        ({"start": "cold"}, "start=cold: expected one of sweet, weight_selection, random"),
        ({"steps": -1}, "steps=-1 batch=128"),
        ({"steps": 2.9}, "steps=2.9: should be a whole number"),
        ({"batch": 2**21}, f"batch={2**21} lr=0.0005: should be from 0 to 1e9, from 1 to {2**20} and above 0"),
    ):
        with pytest.raises(UserError, match=message):
            initialise("distilled", wide("eva"), L6H6, data=images, **given)
    with pytest.raises(UserError, match="--method distilled: looks at images; name some with --fit"):
        initialise("distilled", wide("eva"), L6H6)
    with pytest.raises(UserError, match="order=principal: this source has no principal order"):
        initialise("distilled", make_source("eva"), Size(1, 1, 8), data=images)
