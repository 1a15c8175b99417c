"""Fitted scalers: what learns and what must not, objectives at known points, least squares against numpy's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sweet.data import ImageSource, eval_batches, packed
from sweet.errors import UserError
from sweet.initialise.apply import initialise
from sweet.initialise.closed_form import closed_form
from sweet.initialise.sweet_fitted import Fit, start_rows
from sweet.models.moments import moments_of
from sweet.storage.folders import StoredSource
from sweet.template.sizes import Size
from sweet.template.slices import SLICES
from sweet.template.source import at_depth
from sweet.template.target import absorb, target_weights
from sweet.training.short_run import ShortRun, train_on

Wide = Callable[..., StoredSource]
both_families = pytest.mark.parametrize("family", ["eva", "vit"])
each_template = pytest.mark.parametrize("which", ["eva", "vit", "absorbed"])
L6H6 = Size(6, 6, 4)


def fitted(source: StoredSource, images: ImageSource, size: Size = L6H6, **given: object) -> dict[str, torch.Tensor]:
    return initialise("sweet_fitted", source, size, data=images, device="cpu", **{"batch": 16, **given})


@both_families
@pytest.mark.parametrize("train", ["decoder", "x", "xuv", "all"])
def test_what_learns_and_what_does_not(train: str, family: str, wide: Wide, images: ImageSource) -> None:
    source = wide(family, "tucker")
    model = Fit(at_depth(source.source, 6, "even"), source, L6H6, "principal", "energy", train=train)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_on(model, images, source, ShortRun(2, 16, 1e-2, device="cpu"))
    changed = {
        n.removeprefix("tensors.") for n, value in model.state_dict().items() if not torch.equal(before[n], value)
    }
    reader = {"decoder/embed/weight", "decoder/embed/bias"}
    scalers = {"core/x": train != "decoder", "core/u": train in ("xuv", "all"), "core/v": train in ("xuv", "all")}
    expected = reader | {name for name, learns in scalers.items() if learns}
    if train == "all":
        assert "core/core" not in changed and "stem/pos_embed" not in changed
        assert expected < changed and {"blocks/norm1/weight", "stem/cls_token", "decoder/mask_token"} < changed
    else:
        assert changed == expected


def test_the_control_leaves_the_encoder_alone(wide: Wide, images: ImageSource) -> None:
    source = wide("eva", "tucker")
    sliced = initialise("sweet", source, L6H6)
    control = fitted(source, images, train="decoder", objective="mae", steps=2, lr=1e-2)
    assert control.keys() == sliced.keys()
    for name, value in sliced.items():
        assert torch.equal(value, control[name]) == (not name.startswith("decoder.embed")), name


@both_families
def test_the_loss_falls_and_is_written_down(family: str, wide: Wide, images: ImageSource, tmp_path: Path) -> None:
    fitted(wide(family, "tucker"), images, steps=40, lr=5e-3, run=tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.97 * losses[0]


@pytest.fixture
def template(wide: Wide, make_source: Callable[..., StoredSource]) -> Callable[[str], StoredSource]:
    """template(which): of a family, or an eva whose principal rotation is absorbed in U."""

    def get(which: str) -> StoredSource:
        if which != "absorbed":
            return wide(which, "tucker")
        made = make_source("eva", "tucker", depth=12, heads=12, head_dim=4, ordered=True, unit_gains=True)
        made.source = absorb(made.source)
        assert made.source.order.absorbed
        return made

    return get


@each_template
def test_the_features_of_the_whole_template_are_its_own(which: str, template: Callable[[str], StoredSource]) -> None:
    source = template(which)
    whole = Fit(source.source, source, Size(12, 12, 4), "principal", "energy", train="x", teacher=source.source)
    half = Fit(
        at_depth(source.source, 6, "even"), source, L6H6, "principal", "energy", train="x", teacher=source.source
    )
    pixels = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert whole(pixels, torch.zeros(4, 16)).item() < 1e-9
        assert 0.01 < half(pixels, torch.zeros(4, 16)).item() < 2


@each_template
def test_template_and_target_see_the_same_quarter(which: str, template: Callable[[str], StoredSource]) -> None:
    source = template(which)
    options: dict[str, Any] = {"train": "x", "teacher": source.source, "mask_ratio": 0.75}
    whole, half = (
        Fit(source.source, source, Size(12, 12, 4), "principal", "energy", **options),
        Fit(at_depth(source.source, 6, "even"), source, L6H6, "principal", "energy", **options),
    )
    pixels = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    noise = torch.arange(16.0).expand(4, -1)  # the first row of patches is seen
    other = pixels.clone()
    other[:, :, 4:] += 1
    with torch.no_grad():
        assert whole(pixels, noise).item() < 1e-9
        assert half(other, noise) == half(pixels, noise)
        assert half(other, noise.flip(1)) != half(pixels, noise.flip(1))


def test_starts(wide: Wide) -> None:
    template = wide("eva", "tucker").source
    deep = at_depth(template, 6, "even")
    sliced, between, drawn = (start_rows(template.core, deep.core, s, 0) for s in ("sliced", "interpolated", "random"))
    rows = template.core.x.view(12, SLICES, -1).numpy()
    at = np.linspace(0, 11, 6)
    expected = np.stack([(1 - a % 1) * rows[int(a)] + (a % 1) * rows[min(int(a) + 1, 11)] for a in at])
    np.testing.assert_allclose(between.view(6, SLICES, -1).numpy(), expected, atol=1e-5)
    torch.testing.assert_close(drawn.norm(dim=1), sliced.norm(dim=1))
    assert torch.equal(sliced, deep.core.x) and not torch.allclose(drawn, sliced)


@each_template
@pytest.mark.parametrize("inner", ["energy", "prefix"])
def test_closed_form_is_least_squares(
    which: str, inner: str, template: Callable[[str], StoredSource], images: ImageSource
) -> None:
    """The query slice of one block against numpy's solver, from second moments of the stream written apart."""
    source = template(which)
    whole = source.source
    made = at_depth(whole, 3, "even")
    config = source.config
    given = {"inner": inner, "layers": "even", "seed": 0, "ridge": 1e-9, "device": "cpu"}
    solved = closed_form(source, made, 24, images, None, **given).core.x.view(3, SLICES, -1)
    data, same = source.data, packed(images, config.img_size)
    batches = eval_batches(same, batch_size=128, img_size=config.img_size, mean=data.mean, std=data.std)
    moments = moments_of(whole, config, [b for b, _ in batches]).stream
    layer, row, q = 6, 1, whole.order.rotation.double().numpy()
    kept = 24 - (which == "vit")
    s = q.T @ moments[2 * layer].double().numpy() @ q
    s[:kept, :kept] += 1e-5 * np.diag(s).mean() * np.eye(kept)
    gain = whole.blocks["norm1.weight"][layer].double().numpy()
    u, v, core = (t.double().numpy() for t in (whole.core.u, whole.core.v, whole.core.core))
    if which == "absorbed":  # U is in the principal basis already
        q = np.eye(48)
    channels = whole.order.highest_energy(24, 1)[0][layer].tolist() if inner == "energy" else list(range(24))
    basis = np.einsum("id,i,ir,arc,kc->adk", q, gain, u, core, v[channels])
    before = whole.core.x.view(12, SLICES, -1)[layer, 0].double().numpy()
    reader = np.einsum("a,adk->dk", before, basis)
    best = reader[:kept] + np.linalg.solve(s[:kept, :kept], s[:kept, kept:]) @ reader[kept:]
    root = np.linalg.cholesky(s[:kept, :kept]).T
    columns = np.stack([(root @ b[:kept]).ravel() for b in basis], 1)
    expected = np.linalg.lstsq(columns, (root @ best).ravel(), rcond=None)[0]
    left = np.linalg.norm(columns @ expected - (root @ best).ravel())
    ours = np.linalg.norm(columns @ solved[row, 0].double().numpy() - (root @ best).ravel())
    sliced = np.linalg.norm(columns @ before - (root @ best).ravel())
    assert ours == pytest.approx(left, rel=1e-5) and ours < 0.999 * sliced


def test_closed_form_changes_nothing_at_full_width(wide: Wide, images: ImageSource) -> None:
    source = wide("eva", "tucker")
    same = fitted(source, images, Size(12, 12, 4), train="x", objective="closed", gains="rms")
    for name, value in target_weights(source.source, 12, 48).items():
        torch.testing.assert_close(same[name], value, atol=2e-4, rtol=1e-3)


def test_mistakes_are_one_line(wide: Wide, make_source: Callable[..., StoredSource], images: ImageSource) -> None:
    source = wide("eva", "tucker")
    for given, message in (
        ({"objective": "closed", "train": "xuv"}, "objective=closed: solves for X in principal order only"),
        (
            {"objective": "closed", "train": "x", "order": "prefix"},
            "objective=closed: solves for X in principal order only",
        ),
        ({"steps": "many"}, "steps=many: should be a whole number"),
    ):
        with pytest.raises(UserError, match=message):
            fitted(source, images, **given)
    with pytest.raises(UserError, match="order=principal: this source has no principal order; use order=prefix"):
        initialise("sweet_fitted", make_source("eva"), Size(1, 1, 8), data=images)
    with pytest.raises(UserError, match="--method sweet_fitted: looks at images; name some with --fit"):
        initialise("sweet_fitted", source, L6H6)
    with pytest.raises(UserError, match=r"constraint is none; pretrain one with template.constraint=tucker"):
        initialise("sweet_fitted", wide("eva"), L6H6, data=images)
