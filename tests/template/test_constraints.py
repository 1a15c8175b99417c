"""The rivals of the Tucker product: the linear rule and tiles of templates, against torch.kron and against Tucker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sweet.models.config import MaeConfig, ViTConfig
from sweet.models.mae import MaskedAutoencoder, init_source, reconstruct, sincos
from sweet.storage.folders import StoredSource
from sweet.template.constraints import Kronecker, Linear, core_of, init_kronecker
from sweet.template.networks import Network
from sweet.template.slices import FC1, FC2, MATRICES, PROJ, QKV, SLICES, WRITERS, select_inner
from sweet.template.source import at_depth
from sweet.template.target import absorb, target_weights
from sweet.template.tiles import template_counts, tilings
from sweet.template.tucker import Full, Tucker, init_tucker

MakeSource = Callable[..., StoredSource]

both_families = pytest.mark.parametrize("family", ["eva", "vit"])
both_mlps = pytest.mark.parametrize("mlp", ["swiglu", "gelu"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def units(width: int, mlp: str) -> int:
    return width // 3 if mlp == "swiglu" else width


def kron_sum(scalers: Tensor, templates: Tensor) -> Tensor:
    """sum_t S_t (x) T_t of scalers (rows, columns, N) and templates (N, a, b)."""
    return sum(torch.kron(scalers[..., t].contiguous(), template) for t, template in enumerate(templates))


def by_hand(core: Kronecker, mlp: str) -> dict[str, Tensor]:
    """Every weight by torch.kron; hidden units then come from the order of tiles into that of slices."""
    width, tile = core.width, core.tile
    groups, full = (8, -(-tile // 3)) if mlp == "swiglu" else (4, tile)
    # kron has hidden unit (tile n, group j, u), a weight has (group j, tile n, u) and no units beyond its width
    order = torch.arange(width // tile * groups * full).view(-1, groups, full).transpose(0, 1).reshape(groups, -1)
    order = order[:, : units(width, mlp)].flatten()
    result = {}
    for name in MATRICES:
        layers = []
        for scalers in core.scalers[name]:
            parts = scalers.split(width // tile)
            whole = [kron_sum(part, core.templates[name]) for part in parts]
            if name == FC1:
                whole = [part[order] for part in whole]
            if name == FC2:
                whole = [part[:, order] for part in whole]
            layers.append(torch.cat(whole))
        result[name] = torch.stack(layers)
    return result


# -- tiles --------------------------------------------------------------------------------------------------------


@both_mlps
@pytest.mark.parametrize(("width", "tile"), [(24, 8), (24, 24), (20, 4), (24, 12)])
def test_tiles_are_kronecker_sums_up_to_a_permutation(mlp: str, width: int, tile: int) -> None:
    core = init_kronecker(2, width, tile, 6 * width * tile, mlp, generator=generator())
    assert (core.depth, core.width, core.tile) == (2, width, tile)
    stacked = core.stacked(width, mlp)
    hidden = (8 if mlp == "swiglu" else 4) * units(width, mlp)
    assert stacked[FC1].shape == (2, hidden * (1 + (mlp == "swiglu")), width) and stacked[FC2].shape[2] == hidden
    for name, value in by_hand(core, mlp).items():
        torch.testing.assert_close(stacked[name], value)


@both_mlps
def test_one_tile_is_a_tucker_without_u_and_v(mlp: str) -> None:
    """With w = D, G is the templates laid into slices, X repeats the scalers."""
    width = 12
    core = init_kronecker(3, width, width, 30 * width**2, mlp, generator=generator())
    cores: list[Tensor] = []
    columns: list[tuple[Tensor, int]] = []  # scalers (L,) of a core matrix, and the slice that it belongs to

    def add(name: str, part: int, t: int, matrix: Tensor, component: int) -> None:
        cores.append(matrix)
        columns.append((core.scalers[name][:, part, 0, t], component))

    for t, template in enumerate(core.templates[QKV]):
        for part in range(3):
            add(QKV, part, t, template.t(), part)
    for t, template in enumerate(core.templates[PROJ]):
        add(PROJ, 0, t, template, 3)
    for name in (FC1, FC2):
        for t, template in enumerate(core.templates[name]):
            hidden = template if name == FC1 else template.t()
            for j, rows in enumerate(hidden.chunk(8 if mlp == "swiglu" else 4)):
                if mlp == "gelu":
                    add(name, 0, t, rows.t(), 4 + j + 4 * (name == FC2))
                    continue
                for part in range(2 if name == FC1 else 1):
                    matrix = torch.zeros(width, width)
                    matrix[:, (2 if name == FC2 else part) :: 3] = rows.t()
                    add(name, part, t, matrix, 4 + j)
    x = torch.zeros(3, SLICES, len(cores))
    for column, (values, component) in enumerate(columns):
        x[:, component, column] = values
    tucker = Tucker(torch.stack(cores), x.flatten(0, 1), torch.eye(width), torch.eye(width))
    expected = tucker.stacked(width, mlp)
    for name, value in core.stacked(width, mlp).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


@both_mlps
def test_a_prefix_of_tiles_is_a_prefix_slice(mlp: str) -> None:
    width, tile = 32, 8  # neither is a multiple of three: a SwiGLU tile ends within a slice
    core = init_kronecker(2, width, tile, 4000, mlp, generator=generator())
    full = core.stacked(width, mlp)
    for inner in (8, 9, 13, 16, 23, 24, 31):
        expected = select_inner(full, width, inner, mlp)
        for name, value in core.stacked(inner, mlp).items():
            torch.testing.assert_close(value, expected[name])
    for tiles in (1, 2, 3):
        fewer = {name: rows.unflatten(1, (-1, 4))[:, :, :tiles, :tiles].flatten(1, 2) for name, rows in
                 core.scalers.items()}  # fmt: skip
        narrow = replace(core, scalers=fewer).stacked(8 * tiles, mlp)
        expected = select_inner(full, width, 8 * tiles, mlp)
        for name, value in narrow.items():
            stream = slice(0, 8 * tiles)
            cut = expected[name][:, stream] if name in WRITERS else expected[name][..., stream]
            torch.testing.assert_close(value, cut)


@both_mlps
def test_layers_are_picked(mlp: str) -> None:
    core = init_kronecker(3, 24, 8, 4000, mlp, generator=generator())
    full, picked = core.stacked(24, mlp), core.at_layers([2, 0, 0]).stacked(24, mlp)
    assert all(torch.equal(picked[name], full[name][[2, 0, 0]]) for name in MATRICES)


@both_mlps
@pytest.mark.parametrize(("tile", "ranks"), [(32, (24, 64, 64)), (16, (24, 56, 56)), (96, (24, 96, 96))])
def test_templates_are_as_many_numbers_as_a_tucker_core(mlp: str, tile: int, ranks: tuple[int, int, int]) -> None:
    core = init_kronecker(2, 96, tile, ranks[0] * ranks[1] * ranks[2], mlp)
    wanted = init_tucker(2, 96, ranks).core.numel()
    assert abs(sum(t.numel() for t in core.templates.values()) - wanted) <= tile**2 / 2
    block = sum(kind.parts * kind.size for kind in tilings(tile, mlp))
    for name, kind, count in zip(MATRICES, tilings(tile, mlp), template_counts(wanted, tile, mlp), strict=True):
        assert len(core.templates[name]) == count == core.scalers[name].shape[3]
        assert core.scalers[name][0, :, :, 0].numel() == kind.count(96)
        assert count == pytest.approx(wanted * kind.parts / block, abs=2)


def test_there_is_always_a_template_of_each_kind() -> None:
    assert template_counts(1, 192, "swiglu") == (1, 1, 1, 1)


@both_mlps
def test_weights_have_the_deviation_of_a_tuckers(mlp: str) -> None:
    for name, value in init_kronecker(4, 96, 8, 100_000, mlp, generator=generator()).stacked(96, mlp).items():
        assert value.std().item() == pytest.approx(96**-0.5, rel=0.05), name


# -- the line -----------------------------------------------------------------------------------------------------


@both_families
@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_a_network_of_any_depth_lies_on_its_own_line(make_source: MakeSource, family: str, depth: int) -> None:
    source = make_source(family, "linear").source
    assert isinstance(source.core, Linear) and (source.depth, source.width) == (3, 24)
    for layers in ("even", "first"):
        weights = target_weights(source, depth, 24, order="prefix", layers=layers)
        for name, (base, slope) in (source.core.weights | source.blocks).items():
            for layer in range(depth):
                expected = base + slope * (layer / depth)
                torch.testing.assert_close(weights[f"blocks.{layer}.{name}"], expected)
    made = at_depth(source, depth, "even")
    assert isinstance(made.core, Full) and made.copies == () and made.depth == depth
    assert at_depth(made, depth, "even") is made


def test_the_line_answers_as_the_others_do(make_source: MakeSource) -> None:
    source = make_source("eva", "linear").source
    dense = at_depth(source, 3, "even").core
    for inner in (24, 10):
        expected = dense.stacked(inner, "swiglu")
        for name, value in source.core.stacked(inner, "swiglu").items():
            assert torch.equal(value, expected[name])


@both_families
def test_base_and_slope_start_alike_but_for_gains(family: str) -> None:
    config = ViTConfig(depth=5, heads=3, head_dim=8, img_size=16, patch_size=4, family=family)
    source = init_source(config, MaeConfig(), constraint="linear", ranks=(), generator=generator())
    for base, slope in source.core.tensors().values():
        assert slope.std().item() == pytest.approx(base.std().item(), rel=0.1) and not torch.equal(base, slope)
    for name, (base, slope) in source.blocks.items():
        assert not slope.any() and bool((base == name.endswith("weight")).all())


# -- both ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("constraint", ["tucker", "none", "linear", "kronecker"])
def test_tensors_and_back(make_source: MakeSource, constraint: str) -> None:
    core = make_source("eva", constraint).source.core
    again = core_of(constraint, core.tensors(), 3)
    assert type(again) is type(core) and again.constraint == constraint and (again.depth, again.width) == (3, 24)
    assert all(again.tensors()[name] is value for name, value in core.tensors().items())
    for missing in core.tensors():
        if constraint != "tucker" or missing not in ("u", "v"):
            with pytest.raises(KeyError):
                core_of(constraint, {n: v for n, v in core.tensors().items() if n != missing}, 3)


def prediction(stored: StoredSource, depth: int, heads: int, order: str) -> Tensor:
    """Prediction of a target through its sliced decoder."""
    config = stored.config.resized(depth, heads)
    weights = target_weights(stored.source, depth, config.width, order=order)
    images = torch.randn(2, 3, 16, 16, generator=generator(1))
    noise = torch.rand(2, 16, generator=generator(2))
    positions = sincos(config.grid, stored.mae.decoder_width)
    return reconstruct(weights, images, noise, config, stored.mae, positions).prediction


@both_families
@pytest.mark.parametrize("constraint", ["linear", "kronecker"])
def test_the_principal_order_and_growth_change_no_function(
    make_source: MakeSource, family: str, constraint: str
) -> None:
    stored = make_source(family, constraint, ordered=True)
    assert absorb(stored.source) is stored.source
    own = prediction(stored, 3, 3, "prefix")
    for heads in (3, 4):
        assert (prediction(stored, 3, heads, "principal") - own).norm() < 1e-5 * own.norm()
    for order in ("prefix", "principal"):
        assert prediction(stored, 2, 1, order).isfinite().all() and prediction(stored, 5, 2, order).isfinite().all()


@both_families
@pytest.mark.parametrize("constraint", ["linear", "kronecker"])
def test_gradients_reach_everything(make_source: MakeSource, family: str, constraint: str) -> None:
    stored = make_source(family, constraint)
    model = MaskedAutoencoder(stored.source, stored.config, stored.mae)
    images, noise = torch.randn(2, 3, 16, 16, generator=generator(1)), torch.rand(2, 16, generator=generator(2))
    for networks in (None, [Network(3, 2, 3), Network(2, 3, 2)], [Network(3, 1, 1)]):
        model.zero_grad()
        model(images, noise, networks).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
