"""A source becomes networks of other sizes: what is exact is exact, the rest has the right shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import apply_rot_embed_cat
from torch import Tensor

from sweet.models.config import ViTConfig
from sweet.models.forward import encode, linear, patchify
from sweet.models.mae import reconstruct, sincos, source_from_state
from sweet.models.moments import compute_order
from sweet.models.vit import encoder_shapes, rope_module
from sweet.storage.folders import StoredSource
from sweet.template.constraints import core_of
from sweet.template.fold import folded
from sweet.template.hosvd import factored
from sweet.template.sizes import hidden_features
from sweet.template.slices import PROJ, SLICES, pack
from sweet.template.source import Source, target_layers
from sweet.template.target import absorb, masked_weights, target_weights
from sweet.template.tucker import Tucker

MakeSource = Callable[..., StoredSource]

both_families = pytest.mark.parametrize("family", ["eva", "vit"])
both_constraints = pytest.mark.parametrize("constraint", ["tucker", "none"])


def error(value: Tensor, expected: Tensor) -> float:
    """Relative error of a whole tensor."""
    return ((value - expected).norm() / expected.norm()).item()


def images_and_noise(config: ViTConfig) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(3, config.in_chans, config.img_size, config.img_size, generator=generator)
    return images, torch.rand(3, config.patches, generator=generator)


def prediction(stored: StoredSource, depth: int, heads: int, **options: object) -> Tensor:
    """MAE prediction of a target, through its sliced decoder."""
    config = stored.config.resized(depth, heads)
    w = target_weights(stored.source, depth, config.width, **options)
    positions = sincos(config.grid, stored.mae.decoder_width)
    return reconstruct(w, *images_and_noise(config), config, stored.mae, positions).prediction


# -- exact prefix slicing -----------------------------------------------------------------------------------------


def masked_slices(source: Source, live_u: Tensor, live_v: Tensor) -> Tensor:
    """Eq. 8: the matrices from rows of U and V times their masks (Eq. 7), at full width (L, 12, D, D)."""
    core = source.core
    if isinstance(core, Tucker):
        u, v = live_u[:, None] * core.u, live_v[:, None] * core.v
        return torch.einsum("abc,ma,ib,jc->mij", core.core, core.x, u, v).unflatten(0, (-1, SLICES))
    return pack(core.weights, source.mlp) * live_u[:, None] * live_v


def live_norm(x: Tensor, gain: Tensor, shift: Tensor | None, live: Tensor, eps: float) -> Tensor:
    """RMSNorm, or LayerNorm where there is a shift, with its moments taken over the live channels."""
    if shift is not None:
        x = (x - x.sum(-1, keepdim=True) / live.sum()) * live
    x = x * (x.square().sum(-1, keepdim=True) / live.sum() + eps).rsqrt() * gain
    return x if shift is None else (x + shift) * live


def masked_encode(
    stored: StoredSource, images: Tensor, residual: int, inner: int, *, stream: int, counted: int = 0
) -> Tensor:
    """The encoder at full width with masks, written apart from the package's: slices are used as slices.

    Masks of ``residual`` and ``inner`` channels on the matrices. Beyond ``stream`` channels the stream is silenced too;
    norms take their moments over ``counted`` channels, by default over as many as are heard.
    """
    source, config = stored.source, stored.config
    width, head_dim, stem, blocks = config.width, config.head_dim, source.stem, source.blocks
    dtype = stem["cls_token"].dtype
    live_w, live_v, live_u, live_n = (
        (torch.arange(width) < channels).to(dtype) for channels in (residual, inner, stream, counted or stream)
    )
    slices = masked_slices(source, live_w, live_v)

    rope = rope_module(config).get_embed().to(dtype)

    def norm(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return live_norm(x, weight, bias, live_n, config.eps)

    x = F.conv2d(images, stem["patch_embed.proj.weight"], stem["patch_embed.proj.bias"], stride=config.patch_size)
    x = torch.cat([stem["cls_token"].expand(len(images), -1, -1), x.flatten(2).transpose(1, 2)], 1)
    x = (x + stem.get("pos_embed", 0.0)) * live_u
    for layer, w in enumerate(slices):
        norm1, norm2 = (
            (blocks[f"{n}.weight"][layer], blocks.get(f"{n}.bias", [None] * 9)[layer]) for n in ("norm1", "norm2")
        )
        y = norm(x, *norm1)
        qkv = zip(w[:3], blocks["attn.qkv.bias"][layer].view(3, width), strict=True)
        q, k, v = ((y @ matrix + bias).unflatten(-1, (-1, head_dim)).transpose(1, 2) for matrix, bias in qkv)
        if config.family == "eva":
            q, k = (
                torch.cat([part[:, :, :1], apply_rot_embed_cat(part[:, :, 1:], rope, half=True)], 2) for part in (q, k)
            )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + (attended @ w[3].t() + blocks["attn.proj.bias"][layer]) * live_u
        y, out, bias = norm(x, *norm2), 0.0, blocks["mlp.fc1.bias"][layer]
        if source.mlp == "swiglu":
            units = width // 3
            for j, (gate_bias, up_bias) in enumerate(bias.view(2, 8, units).transpose(0, 1)):
                gate, up, down = (w[4 + j][:, part : 3 * units : 3] for part in range(3))
                out = out + (F.silu(y @ gate + gate_bias) * (y @ up + up_bias)) @ down.t()
        else:
            for j in range(4):
                out = out + F.gelu(y @ w[4 + j] + bias.view(4, width)[j]) @ w[8 + j].t()
        x = x + (out + blocks["mlp.fc2.bias"][layer]) * live_u
    return norm(x, stem["norm.weight"], stem.get("norm.bias"))


@both_families
@both_constraints
@pytest.mark.parametrize(
    ("residual", "inner"), [(3, 3), (2, 2), (1, 1), (1, 3), (3, 1), (2, 3), (1, 2)], ids=lambda heads: f"H{heads}"
)
def test_a_slice_is_the_masked_network_with_a_masked_stream(
    make_source: MakeSource, family: str, constraint: str, residual: int, inner: int
) -> None:
    """Not Eq. 7-8, which mask the matrices alone: here all that has a width is masked."""
    stored = make_source(family, constraint, depth=2)
    config = stored.config
    d_u, d_v = residual * config.head_dim, inner * config.head_dim
    images, _ = images_and_noise(config)
    with torch.no_grad():
        masked = masked_encode(stored, images, d_u, d_v, stream=d_u)
        w = target_weights(stored.source, config.depth, d_u, inner_width=d_v, order="prefix")
        sliced = encode(w, patchify(images, config.patch_size), config)
    assert sliced.shape[-1] == d_u
    assert not masked[..., d_u:].any()
    assert error(sliced, masked[..., :d_u]) < 1e-6
    embedded = F.linear(masked, stored.source.decoder["embed.weight"], stored.source.decoder["embed.bias"])
    assert error(linear(sliced, w, "decoder.embed"), embedded) < 1e-6


# -- Eq. 7-8, read literally --------------------------------------------------------------------------------------


def in_double(stored: StoredSource) -> StoredSource:
    """The source in float64, every tensor ready to take a gradient."""
    source = stored.source

    def double(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.double().requires_grad_(name != "pos_embed") for name, value in tensors.items()}

    core = core_of(source.core.constraint, double(source.core.tensors()), source.depth)
    parts = {name: double(getattr(source, name)) for name in ("blocks", "stem", "decoder")}
    return replace(stored, source=replace(source, core=core, **parts))


def leaves(source: Source) -> dict[str, Tensor]:
    every = {"core": source.core.tensors(), "blocks": source.blocks, "stem": source.stem, "decoder": source.decoder}
    return {f"{part}.{name}": value for part, values in every.items() for name, value in values.items()}


@both_families
@both_constraints
@pytest.mark.parametrize(
    ("residual", "inner"), [(3, 3), (2, 2), (1, 1), (1, 3), (3, 1), (2, 3), (1, 2)], ids=lambda heads: f"H{heads}"
)
def test_masked_weights_are_the_full_network_with_masked_matrices(
    make_source: MakeSource, family: str, constraint: str, residual: int, inner: int
) -> None:
    """Numbers and gradients of Eq. 8, in float64: nothing but W knows of the masks."""
    stored = in_double(make_source(family, constraint, depth=2))
    source, config = stored.source, stored.config
    d_u, d_v = residual * config.head_dim, inner * config.head_dim
    images = images_and_noise(config)[0].double()
    naive = masked_encode(stored, images, d_u, d_v, stream=config.width)
    naive = F.linear(naive, source.decoder["embed.weight"], source.decoder["embed.bias"])
    w = masked_weights(source, 2, d_u, d_v)
    ours = linear(encode(w, patchify(images, config.patch_size), config), w, "decoder.embed")
    assert error(ours, naive) < 1e-9
    assert w["blocks.0.attn.qkv.weight"].shape == (3 * d_v, d_u)  # only what is live is multiplied
    assert w["blocks.1.mlp.fc2.weight"].shape == (d_u, hidden_features(d_v, config.mlp))

    tensors = {name: value for name, value in leaves(source).items() if value.requires_grad}
    down = torch.randn(ours.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    grads = [torch.autograd.grad((x * down).sum(), list(tensors.values()), allow_unused=True) for x in (ours, naive)]
    for name, mine, theirs in zip(tensors, *grads, strict=True):
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            assert (mine - theirs).norm() <= 1e-9 * theirs.norm() + 1e-12, name


@both_families
def test_which_slices_are_equal_to_masked_matrices(make_source: MakeSource, family: str) -> None:
    """Masked V is a narrower inside. Masked U is no narrower network, and with a silent stream one of louder norms."""
    stored = in_double(make_source(family, ranks=(24, 128, 128), depth=6, heads=8, head_dim=16))
    source, config, width = stored.source, stored.config, stored.config.width
    images = images_and_noise(config)[0].double()
    patches = patchify(images, config.patch_size)
    with torch.no_grad():  # as trained ones are: blocks write much, and no bias drowns the images
        source.core.core.mul_(1.7)
        for name, value in (source.blocks | source.stem).items():
            value *= 1 / 6 if name.endswith(("bias", "token")) else 1

    def sliced(residual: int, inner: int, gains: str = "none") -> Tensor:
        w = target_weights(source, 6, residual, inner_width=inner, order="prefix", gains=gains)
        return encode(w, patches, config)

    with torch.no_grad():
        literal = encode(masked_weights(source, 6, width, 32), patches, config)
        assert error(sliced(width, 32), literal) < 1e-6
        for live in (32, 64):
            literal = encode(masked_weights(source, 6, live, live), patches, config)[..., :live]
            assert error(sliced(live, live), literal) > 0.2
            if family == "eva":  # a LayerNorm subtracts the mean of all channels too: there no gain makes them equal
                silent = masked_encode(stored, images, live, live, stream=live, counted=width)[..., :live]
                assert error(sliced(live, live, "sqrt"), silent) < 1e-3
                assert error(sliced(live, live), silent) > 0.2


@both_constraints
def test_a_slice_is_taken_of_the_chosen_layers(make_source: MakeSource, constraint: str) -> None:
    stored = make_source("eva", constraint)
    full, cut = (target_weights(stored.source, depth, 24, order="prefix", layers="even") for depth in (3, 2))
    for name, value in cut.items():
        origin = name.replace("blocks.1.", "blocks.2.")  # layers 0 and 2 of three
        torch.testing.assert_close(value, full[origin], rtol=1e-5, atol=1e-6)


# -- principal order ----------------------------------------------------------------------------------------------


@both_families
@both_constraints
@pytest.mark.parametrize("unit_gains", [False, True])
def test_principal_order_at_full_size_is_the_same_function(
    make_source: MakeSource, family: str, constraint: str, unit_gains: bool
) -> None:
    stored = make_source(family, constraint, ordered=True, unit_gains=unit_gains)
    rotation = stored.source.order.rotation
    assert (rotation - torch.eye(24)).norm() > 1  # so that something happens
    prefix, principal = (prediction(stored, 3, 3, order=order) for order in ("prefix", "principal"))
    assert error(principal, prefix) < 1e-5


@both_families
@pytest.mark.parametrize("heads", [1, 2])
def test_each_gain_is_the_scale_that_its_norm_keeps(make_source: MakeSource, family: str, heads: int) -> None:
    """The root mean square, over the target's channels, of what is left of a stream of mean square one."""
    stored = make_source(family, ordered=True)
    width, order = 8 * heads, stored.source.order
    w = target_weights(stored.source, 2, width, order="principal", layers="even")  # layers 0 and 2 of three
    left = order.energy[:, : width - (family == "vit")].sum(1) / width
    for name, index in {
        "blocks.0.norm1": 0,
        "blocks.0.norm2": 1,
        "blocks.1.norm1": 4,
        "blocks.1.norm2": 5,
        "norm": 6,
    }.items():
        torch.testing.assert_close(w[f"{name}.weight"], left[index].sqrt().expand(width))
    assert len(left.unique()) == 7


@both_families
def test_a_stream_of_few_directions_survives_slicing_to_them(make_source: MakeSource, family: str) -> None:
    """Grown from 16 to 24 channels and cut back to 16: the principal order finds the 16 that matter."""
    small = make_source(family, "none", heads=2, ordered=True)
    config = small.config.resized(3, 3)
    state = target_weights(small.source, 3, 24, order="principal")
    grown = replace(
        small, source=source_from_state(state, config), record=small.record.model_copy(update={"vit": config})
    )
    images, noise = images_and_noise(config)
    grown.source.order = compute_order(grown.source, config, [images, images.flip(0)])
    assert grown.source.order.kept(16).min() > 1 - 1e-5
    w = target_weights(grown.source, 3, 16, order="principal")  # and its new heads and units have the least energy
    positions = sincos(config.grid, small.mae.decoder_width)
    cut = reconstruct(w, images, noise, config.resized(3, 2), small.mae, positions).prediction
    # directions outside the 16 hold rounding errors only
    assert error(cut, prediction(small, 3, 2, order="principal")) < 1e-4


@both_families
@pytest.mark.parametrize("constraint", ["tucker", "none", "kronecker", "linear"])
def test_heads_and_units_of_the_highest_energy_stay_in_each_layer(
    make_source: MakeSource, family: str, constraint: str
) -> None:
    """The same network as one that keeps all heads and units, but of which the others write nothing."""
    stored = make_source(family, constraint, ordered=True)
    config, order = stored.config.resized(2, 1), stored.source.order
    heads, units = order.heads[[0, 2], :1], order.units[[0, 2], : hidden_features(8, config.mlp)]
    whole = target_weights(stored.source, 2, 8, inner_width=24)
    for layer in range(2):
        for name, kept, size in (("attn.proj", heads, 8), ("mlp.fc2", units, 1)):
            weight = whole[f"blocks.{layer}.{name}.weight"]
            stays = torch.zeros(weight.shape[1] // size).scatter(0, kept[layer].long(), 1.0)
            weight *= stays.repeat_interleave(size)
    kept, silenced = (
        encode(w, patchify(images_and_noise(config)[0], 4), config)
        for w in (target_weights(stored.source, 2, 8), whole)
    )
    assert error(kept, silenced) < 1e-5
    prefix = encode(
        target_weights(stored.source, 2, 8, inner="prefix"), patchify(images_and_noise(config)[0], 4), config
    )
    assert error(prefix, silenced) > 1e-2


@pytest.mark.parametrize("unit_gains", [False, True])
@pytest.mark.parametrize("ranks", [(10, 24, 24), (10, 20, 18)])
def test_absorbing_changes_no_target(make_source: MakeSource, ranks: tuple, unit_gains: bool) -> None:
    stored = make_source("eva", ranks=ranks, ordered=True, unit_gains=unit_gains)
    absorbed = replace(stored, source=absorb(stored.source))
    assert absorbed.source.order.absorbed == unit_gains
    assert (absorbed.source.core.u is None) == (ranks[1:] == (24, 24))
    assert absorb(absorbed.source).order.absorbed == unit_gains  # twice is once
    for order in ("prefix", "principal"):
        for depth, heads in ((3, 3), (2, 1), (4, 4)):
            before, after = (prediction(s, depth, heads, order=order) for s in (stored, absorbed))
            assert error(after, before) < 1e-5, (order, depth, heads)


@pytest.mark.parametrize(("family", "ratio"), [("eva", 4.0), ("vit", 2.0), ("vit", 2.5)])
@pytest.mark.parametrize("contract", [True, False])
def test_another_number_of_hidden_units_is_cut_as_the_dense_source_is(
    make_source: MakeSource, family: str, ratio: float, contract: bool
) -> None:
    stored = make_source(family, "none", mlp_ratio=ratio)
    template, dense = factored(stored.source), folded(stored.source)
    template = absorb(template) if contract else template
    assert isinstance(template.core, Tucker) and template.core.hidden == 24 * ratio
    for depth, heads, inner in ((2, 1, 1), (2, 2, 2), (3, 2, 1), (3, 1, 2), (3, 4, 4)):
        cut = {"depth": depth, "width": 8 * heads, "inner_width": 8 * inner, "order": "prefix"}
        expected = target_weights(dense, **cut)
        for name, value in target_weights(template, **cut).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=name)


# -- growth -------------------------------------------------------------------------------------------------------


@both_constraints
@pytest.mark.parametrize("heads", [4, 5, 7])
@pytest.mark.parametrize(("family", "order"), [("eva", "prefix"), ("eva", "principal"), ("vit", "principal")])
def test_a_wider_network_computes_the_same(
    make_source: MakeSource, constraint: str, heads: int, family: str, order: str
) -> None:
    """Up to eps: the norm divides by a smaller mean square, beside which eps (1e-6) weighs d / D times as much."""
    stored = make_source(family, constraint, ordered=True)
    wide, own = (prediction(stored, 3, h, order=order) for h in (heads, 3))
    assert error(wide, own) < 1e-5


def test_one_side_may_grow_alone(make_source: MakeSource) -> None:
    stored = make_source("eva")
    config = stored.config
    patches = patchify(images_and_noise(config)[0], config.patch_size)
    own, wide = (
        encode(target_weights(stored.source, 3, 24, inner_width=inner, order="prefix"), patches, config)
        for inner in (24, 40)
    )
    assert error(wide, own) < 1e-6


def test_readers_of_new_channels_are_drawn_by_the_seed(make_source: MakeSource) -> None:
    stored = make_source("eva")
    first, again, other = (
        target_weights(stored.source, 3, 32, order="prefix", seed=seed)["blocks.0.attn.qkv.weight"]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert torch.equal(first[:, :24], other[:, :24])
    assert not torch.isclose(first[:, 24:], other[:, 24:]).any()
    # a unit mixture of old readers has their scale
    assert 0.5 < first[:, 24:].std() / first[:, :24].std() < 2


@both_constraints
def test_a_deeper_network_shares_each_block_among_its_copies(make_source: MakeSource, constraint: str) -> None:
    stored = make_source("eva", constraint)
    own, deep = (target_weights(stored.source, depth, 24, order="prefix") for depth in (3, 5))
    assert target_layers(3, 5, "even") == [0, 0, 1, 1, 2]
    for matrix in (PROJ, "attn.proj.bias", "mlp.fc2.weight", "mlp.fc2.bias"):
        torch.testing.assert_close(deep[f"blocks.0.{matrix}"], own[f"blocks.0.{matrix}"] / 2)
        torch.testing.assert_close(deep[f"blocks.3.{matrix}"], own[f"blocks.1.{matrix}"] / 2)
        torch.testing.assert_close(deep[f"blocks.4.{matrix}"], own[f"blocks.2.{matrix}"])
    for name in ("attn.qkv.weight", "mlp.fc1.bias", "norm2.weight"):
        torch.testing.assert_close(deep[f"blocks.1.{name}"], own[f"blocks.0.{name}"])


# -- every size ---------------------------------------------------------------------------------------------------


@both_families
@pytest.mark.parametrize("order", ["prefix", "principal"])
def test_any_size_has_timms_names_and_shapes(make_source: MakeSource, family: str, order: str) -> None:
    sources = [make_source(family, constraint, ordered=True) for constraint in ("tucker", "none")]

    @settings(deadline=None, max_examples=8)
    @given(st.sampled_from(sources), st.integers(1, 5), st.integers(1, 5), st.sampled_from(["even", "first"]))
    def check(stored: StoredSource, depth: int, heads: int, layers: str) -> None:
        config = stored.config.resized(depth, heads)
        w = target_weights(stored.source, depth, config.width, order=order, layers=layers)
        encoder = {name: value.shape for name, value in w.items() if not name.startswith("decoder.")}
        assert encoder == encoder_shapes(config)
        assert all(bool(value.isfinite().all()) for value in w.values())
        images, _ = images_and_noise(config)
        assert encode(w, patchify(images, config.patch_size), config).isfinite().all()

    check()


@pytest.mark.parametrize(
    ("source", "depth", "even", "first"),
    [
        (12, 12, list(range(12)), list(range(12))),
        (12, 6, [0, 2, 4, 7, 9, 11], [0, 1, 2, 3, 4, 5]),
        (12, 3, [0, 6, 11], [0, 1, 2]),
        (12, 2, [0, 11], [0, 1]),
        (12, 1, [0], [0]),
        (3, 2, [0, 2], [0, 1]),
        (2, 5, [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]),
        (3, 6, [0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2]),
    ],
)
def test_layer_rules(source: int, depth: int, even: list[int], first: list[int]) -> None:
    assert target_layers(source, depth, "even") == even
    assert target_layers(source, depth, "first") == first


@given(st.integers(1, 24), st.integers(1, 24))
def test_even_layers_are_ordered_and_span_the_source(source: int, depth: int) -> None:
    chosen = target_layers(source, depth, "even")
    assert len(chosen) == depth and chosen == sorted(chosen)
    assert len(set(chosen)) == min(source, depth)
    assert chosen[0] == 0 and (depth == 1 or chosen[-1] == source - 1)


def test_mistakes(make_source: MakeSource) -> None:
    source = make_source("eva").source
    with pytest.raises(ValueError, match=r"unknown order 'best'.*principal, prefix"):
        target_weights(source, 1, 8, order="best")
    with pytest.raises(ValueError, match="no principal order"):
        target_weights(source, 1, 8, order="principal")
    with pytest.raises(ValueError, match=r"unknown layer rule 'last'.*even, first"):
        target_weights(source, 1, 8, order="prefix", layers="last")
