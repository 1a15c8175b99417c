"""Masked autoencoding: loss and targets equal transformers' ViTMAE, masks, sub-networks and their gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

from sweet.models.config import ViTConfig
from sweet.models.forward import patchify
from sweet.models.mae import (
    MaeConfig,
    MaskedAutoencoder,
    init_source,
    patch_targets,
    reconstruct,
    sincos,
    source_from_state,
    split_patches,
)
from sweet.storage.folders import StoredSource
from sweet.template.networks import APPLY, MODES, Network, draw_widths
from sweet.template.slices import MATRICES, READERS, inner_index, pack, stack_blocks
from sweet.template.target import target_weights

MakeSource = Callable[..., StoredSource]

CONFIG = ViTConfig(depth=2, heads=3, head_dim=8, img_size=16, patch_size=4, family="vit")


def inputs(config: ViTConfig = CONFIG, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(3, config.in_chans, config.img_size, config.img_size, generator=generator)
    return images, torch.rand(3, config.patches, generator=generator)


# -- an independent reference -------------------------------------------------------------------------------------


def reference(mae: MaeConfig) -> ViTMAEForPreTraining:
    """transformers' MAE of the same shape, all its parameters random and of order one."""
    config = ViTMAEConfig(
        hidden_size=CONFIG.width,
        num_hidden_layers=CONFIG.depth,
        num_attention_heads=CONFIG.heads,
        intermediate_size=4 * CONFIG.width,
        layer_norm_eps=CONFIG.eps,
        image_size=CONFIG.img_size,
        patch_size=CONFIG.patch_size,
        decoder_hidden_size=mae.decoder_width,
        decoder_num_hidden_layers=mae.decoder_depth,
        decoder_num_attention_heads=mae.decoder_width // mae.decoder_head_dim,
        decoder_intermediate_size=4 * mae.decoder_width,
        mask_ratio=mae.mask_ratio,
        norm_pix_loss=mae.norm_pix,
    )
    model = ViTMAEForPreTraining(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("decoder_pos_embed"):
                value.copy_(sincos(CONFIG.grid, mae.decoder_width)[None])  # compared in a test of its own
            else:
                scale = 0.3 if value.dim() == 1 else value.shape[-1] ** -0.5
                value.copy_(torch.randn(value.shape, generator=generator) * scale + ("norm.weight" in name))
    return model


def translated(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of transformers' MAE under timm's names."""
    names = {
        "vit.embeddings.cls_token": "cls_token",
        "vit.embeddings.position_embeddings": "pos_embed",
        "vit.embeddings.patch_embeddings.projection": "patch_embed.proj",
        "vit.layernorm": "norm",
        "vit.layers": "blocks",
        "decoder.decoder_layers": "decoder.blocks",
        "decoder.decoder_": "decoder.",
        "attention.o_proj": "attn.proj",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
    }
    ours: dict[str, Tensor] = {}
    for name, value in theirs.items():
        for old, new in names.items():
            name = name.replace(old, new)
        ours[name] = value
    for name in [name for name in ours if "q_proj" in name]:
        parts = [ours.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        ours[name.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    del ours["decoder.pos_embed"]
    # the last layer's pixels: theirs are (row, column, channel), ours as in a convolution kernel
    for name in ("decoder.pred.weight", "decoder.pred.bias"):
        pixels = ours[name].unflatten(0, (CONFIG.patch_size, CONFIG.patch_size, 3))
        ours[name] = pixels.movedim(2, 0).flatten(0, 2)
    return ours


@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("mask_ratio", [0.75, 0.5])
def test_loss_equals_transformers(norm_pix: bool, mask_ratio: float) -> None:
    mae = MaeConfig(mask_ratio, norm_pix, decoder_width=16, decoder_depth=2, decoder_head_dim=8)
    theirs = reference(mae)
    ours = MaskedAutoencoder(source_from_state(translated(theirs.state_dict()), CONFIG), CONFIG, mae)
    images, noise = inputs()
    with torch.no_grad():
        expected = theirs(images, noise=noise).loss
        loss = ours(images, noise)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss > 0.5


@pytest.mark.parametrize(("grid", "width"), [(4, 16), (7, 24)])
def test_positions_are_maes(grid: int, width: int) -> None:
    theirs = build_2d_sinusoidal_position_embedding(grid, grid, width, cls_token=True)
    rows, columns = theirs.chunk(2, -1)
    torch.testing.assert_close(sincos(grid, width), torch.cat([columns, rows], -1))


def test_nested_positions_are_the_same_channels_in_another_order() -> None:
    plain, nested = sincos(5, 16), sincos(5, 16, nested=True)
    torch.testing.assert_close(nested.sort(1).values, plain.sort(1).values)
    # the first half alone tells every patch apart, which MAE's layout cannot (it holds one axis only)
    assert len(nested[:, :8].unique(dim=0)) == 26
    assert len(plain[1:, :8].unique(dim=0)) == 5


@pytest.mark.parametrize("nested", [False, True])
def test_positions_of_a_width_that_four_does_not_divide(nested: bool) -> None:
    table = sincos(3, 10, nested=nested)
    assert table.shape == (10, 10)
    assert not table[0].any() and not table[:, 8:].any()


# -- masks and targets --------------------------------------------------------------------------------------------


def test_the_smallest_noise_stays() -> None:
    _, noise = inputs()
    keep, masked = split_patches(noise, 0.75)
    assert keep.shape == (3, 4) and masked.shape == (3, 12)
    assert bool((noise.gather(1, keep).max(1).values < noise.gather(1, masked).min(1).values).all())
    assert torch.equal(torch.cat([keep, masked], 1).sort(1).values, torch.arange(16).expand(3, -1))


def test_patches_are_in_the_order_of_a_convolution() -> None:
    images, _ = inputs()
    kernel = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    expected = torch.nn.functional.conv2d(images, kernel, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patchify(images, 4) @ kernel.flatten(1).t(), expected, rtol=1e-4, atol=1e-4)


def test_normalised_targets() -> None:
    patches = patchify(inputs()[0], 4) * 3 + 1
    assert patch_targets(patches, False) is patches
    targets = patch_targets(patches, True)
    torch.testing.assert_close(targets.mean(-1), torch.zeros(3, 16), rtol=0, atol=1e-6)
    torch.testing.assert_close(targets.std(-1), torch.ones(3, 16))
    assert patch_targets(torch.ones(1, 1, 48), True).isfinite().all()


# -- learning a source --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("apply", APPLY)
@pytest.mark.parametrize("family", ["eva", "vit"])
@pytest.mark.parametrize(
    "widths", [None, [(3, 3), (1, 1), (2, 2)], [(2, 3)], [(3, 1)]], ids=["full", "sandwich", "2x3", "3x1"]
)
def test_gradients_reach_all_that_is_used_and_nothing_else(
    make_source: MakeSource, family: str, widths: list[tuple[int, int]] | None, apply: str
) -> None:
    stored = make_source(family)
    model = MaskedAutoencoder(stored.source, stored.config, stored.mae, apply=apply)
    networks = widths and [Network(stored.config.depth, *sides) for sides in widths]
    loss = model(*inputs(stored.config), networks)
    assert loss.isfinite()
    loss.backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, grad in grads.items() if grad is None or not grad.isfinite().all()] == []
    assert [name for name, grad in grads.items() if not grad.any()] == []
    residual, inner = (max(side) * 8 for side in zip(*(widths or [(3, 3)]), strict=True))
    for name, live in (("core.u", residual), ("core.v", inner)):
        rows = grads[name].any(1)
        # with SwiGLU the columns 3 p + 2 are the last of a hidden unit, q, k, v, o use every row
        assert rows.tolist() == [True] * live + [False] * (24 - live), name
    assert bool(grads["core.x"].any(1).all())
    stream = 24 if apply == "mask" else residual
    assert grads["decoder.embed/weight"].any(0).tolist() == [True] * stream + [False] * (24 - stream)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ["eva", "vit"])
@pytest.mark.parametrize("constraint", ["tucker", "none", "linear", "kronecker"])
def test_a_masked_step_is_the_whole_network_with_zeros(
    make_source: MakeSource, family: str, constraint: str, mode: str
) -> None:
    """Eq. 8 in float64: the loss of each drawn sub-network, from full matrices with rows and columns set to zero."""
    stored = make_source(family, constraint)
    model = MaskedAutoencoder(stored.source, stored.config, stored.mae).double()
    images, noise = (value.double() for value in inputs(stored.config))
    generator = torch.Generator().manual_seed(1)
    drawn = draw_widths(mode, 3, min_heads=1, full_probability=0.2, generator=generator)
    for residual, inner in drawn:
        whole, config = model.weights(model.whole)
        naive = {name: zeroed(name, value, residual * 8, inner * 8, config) for name, value in whole.items()}
        expected = reconstruct(naive, images, noise, config, stored.mae, model.decoder_positions).loss
        loss = model(images, noise, [Network(3, residual, inner)])
        assert loss.dtype == torch.float64
        assert abs(loss - expected) < 1e-9 * expected
    with pytest.raises(ValueError, match="unknown apply 'half'"):
        MaskedAutoencoder(stored.source, stored.config, stored.mae, apply="half")


def zeroed(name: str, weight: Tensor, live: int, inner: int, config: ViTConfig) -> Tensor:
    """A matrix of a block outside of the masks set to zero; anything else as it is."""
    kind = name.partition(".")[2].partition(".")[2]
    if not name.startswith("blocks.") or kind not in MATRICES:
        return weight
    width = config.width
    kept = torch.zeros(weight.shape[0 if kind in READERS else 1], dtype=torch.bool)
    kept[inner_index(width, inner, config.mlp, kind)] = True
    stream = torch.arange(width) < live
    return weight * (kept[:, None] & stream if kind in READERS else stream[:, None] & kept)


def test_several_sub_networks_share_the_loss_evenly(make_source: MakeSource) -> None:
    stored = make_source("eva")
    model = MaskedAutoencoder(stored.source, stored.config, stored.mae)
    with torch.no_grad():
        networks = [Network(3, 3, 3), Network(3, 1, 1), Network(3, 2, 1), Network(2, 3, 3)]
        alone = [model(*inputs(stored.config), [network]) for network in networks]
        together = model(*inputs(stored.config), networks)
    assert together.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-6)
    assert len({round(loss.item(), 4) for loss in alone}) == len(networks)


@pytest.mark.parametrize("apply", ["mask", "slice"])
@pytest.mark.parametrize(("layers", "kept"), [("first", (0, 1)), ("even", (0, 2))])
def test_a_shallower_sub_network_is_made_of_its_blocks(
    make_source: MakeSource, layers: str, kept: tuple[int, int], apply: str
) -> None:
    stored = make_source("eva")
    model = MaskedAutoencoder(stored.source, stored.config, stored.mae, apply=apply, layers=layers)
    whole, config = model.weights(model.whole)
    blocks = {f"blocks.{old}.": f"blocks.{new}." for new, old in enumerate(kept)}
    weights = {name: value for name, value in whole.items() if not name.startswith("blocks.")}
    for old, new in blocks.items():
        weights |= {new + name.removeprefix(old): value for name, value in whole.items() if name.startswith(old)}
    images, noise = inputs(stored.config)
    with torch.no_grad():
        expected = reconstruct(
            weights, images, noise, config.resized(2, config.heads), stored.mae, model.decoder_positions
        ).loss
        loss = model(images, noise, [Network(2, config.heads, config.heads)])
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("constraint", ["tucker", "none"])
@pytest.mark.parametrize("family", ["eva", "vit"])
def test_a_source_learns(constraint: str, family: str) -> None:
    config = ViTConfig(depth=2, heads=2, head_dim=8, img_size=16, patch_size=4, family=family)
    mae = MaeConfig(decoder_width=16, decoder_depth=1, decoder_head_dim=8)
    generator = torch.Generator().manual_seed(0)
    source = init_source(config, mae, constraint=constraint, ranks=(24, 12, 12), generator=generator)
    model = MaskedAutoencoder(source, config, mae)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    images, noise = inputs(config)
    losses = []
    for _ in range(40):
        loss = model(images, noise)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert 0.8 < losses[0] < 2  # targets have unit variance
    assert losses[-1] < 0.6 * losses[0]


def test_a_seed_gives_the_same_source() -> None:
    def make(seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        source = init_source(CONFIG, MaeConfig(), constraint="tucker", ranks=(4, 8, 8), generator=generator)
        return source.core.tensors() | source.blocks | source.stem | source.decoder

    first, again, other = make(0), make(0), make(1)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["core"], other["core"])


def test_initial_scales_are_maes() -> None:
    """Xavier-uniform for every matrix, q, k and v as one; gains one, biases zero, positions fixed."""
    source = init_source(CONFIG, MaeConfig(), constraint="none", ranks=(), generator=torch.Generator().manual_seed(0))
    weights = source.core.weights
    for name, fan in {"attn.qkv": 96, "attn.proj": 48, "mlp.fc1": 120, "mlp.fc2": 120}.items():
        assert weights[f"{name}.weight"].std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.05)
        assert weights[f"{name}.weight"].abs().max() <= (6 / fan) ** 0.5
    assert not any(value.any() for name, value in source.blocks.items() if name.endswith("bias"))
    assert all(bool((value == 1).all()) for name, value in source.blocks.items() if name.endswith("norm1.weight"))
    assert torch.equal(source.stem["pos_embed"][0], sincos(4, 24, nested=True))
    model = MaskedAutoencoder(source, CONFIG, MaeConfig())
    assert "pos_embed" not in dict(model.named_parameters())  # fixed, yet stored
    assert "pos_embed" in model.state_dict()


@pytest.mark.parametrize("ranks", [(16, 96, 96), (48, 56, 56), (40, 96, 96)])
@pytest.mark.parametrize("family", ["eva", "vit"])
def test_templates_begin_at_the_scale_of_a_dense_source(family: str, ranks: tuple[int, int, int]) -> None:
    """So that a table of constraints compares constraints."""
    config = ViTConfig(depth=4, heads=6, head_dim=16, img_size=16, patch_size=4, family=family)

    def weights(constraint: str) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        source = init_source(config, MaeConfig(), constraint=constraint, ranks=ranks, generator=generator)
        return stack_blocks(target_weights(source, 4, 96, order="prefix", layers="first"), 4)

    def deviations(matrices: dict[str, Tensor]) -> Tensor:
        """Of the twelve slices, each of all layers."""
        slices = pack(matrices, config.mlp).transpose(0, 1).flatten(1)
        return (slices.square().sum(1) / (slices != 0).sum(1)).sqrt()

    dense, tucker, tiles = (weights(constraint) for constraint in ("none", "tucker", "kronecker"))
    torch.testing.assert_close(deviations(tucker), deviations(dense), rtol=0.05, atol=0)
    for name in MATRICES:
        assert tiles[name].std().item() == pytest.approx(dense[name].std().item(), rel=0.05), name
