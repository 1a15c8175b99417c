"""Built models are plain timm models: same numbers, every parameter from the source, all of timm's abilities."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from sweet.api import Template
from sweet.errors import UserError
from sweet.models import forward
from sweet.models.config import ViTConfig
from sweet.models.forward import encode, patchify
from sweet.models.vit import build_vit, check_timm, encoder_shapes, materialised, skeleton
from sweet.template.target import target_weights
from sweet.template.tucker import Full, Tucker

MakeSource = Callable[..., Template]

both_families = pytest.mark.parametrize("family", ["eva", "vit"])


def images(size: int = 16, channels: int = 3, count: int = 2) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module", params=["eva", "vit"])
def source(request: pytest.FixtureRequest, make_source: MakeSource) -> Template:
    return make_source(request.param, ordered=True)


# -- the same numbers as timm -------------------------------------------------------------------------------------


@both_families
@pytest.mark.parametrize(("depth", "heads", "head_dim"), [(3, 3, 8), (2, 5, 4), (1, 1, 20)])
def test_encode_is_timms_forward_features(
    make_source: MakeSource, family: str, depth: int, heads: int, head_dim: int
) -> None:
    stored = make_source(family, "none", depth=depth, heads=heads, head_dim=head_dim)
    config = stored.config
    w = target_weights(stored.source, depth, config.width, order="prefix")
    x = images()
    with torch.no_grad():
        expected = build_vit(config, w).forward_features(x)
        torch.testing.assert_close(encode(w, patchify(x, 4), config), expected, rtol=1e-4, atol=1e-5)


@both_families
def test_permuted_patches_give_permuted_tokens(make_source: MakeSource, family: str) -> None:
    stored = make_source(family)
    config = stored.config
    w = target_weights(stored.source, 3, 24, order="prefix")
    patches = patchify(images(), 4)
    keep = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(i)) for i in range(2)])
    tokens = torch.cat([torch.zeros(2, 1, dtype=torch.long), keep + 1], 1)
    full, permuted = encode(w, patches, config), encode(w, patches, config, keep=keep)
    torch.testing.assert_close(permuted, full.gather(1, tokens[..., None].expand_as(full)), rtol=1e-4, atol=1e-5)


@both_families
def test_kept_patches_see_only_each_other(
    make_source: MakeSource, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoding a quarter of the patches = encoding all with the others hidden from attention."""
    stored = make_source(family)
    config = stored.config
    w = target_weights(stored.source, 3, 24, order="prefix")
    patches = patchify(images(), 4)
    keep = torch.tensor([[3, 9, 1, 12], [15, 0, 7, 6]])
    tokens = torch.cat([torch.zeros(2, 1, dtype=torch.long), keep + 1], 1)
    kept = encode(w, patches, config, keep=keep)
    visible = torch.zeros(2, 17, dtype=torch.bool).scatter(1, tokens, True)[:, None, None]
    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(forward, "attention", lambda q, k, v, _: attend(q, k, v, attn_mask=visible))
    full = encode(w, patches, config)
    torch.testing.assert_close(kept, full.gather(1, tokens[..., None].expand(-1, -1, 24)), rtol=1e-4, atol=1e-5)


# -- every parameter comes from the source ------------------------------------------------------------------------


def poisoned(stored: Template) -> Template:
    """The same source with every tensor NaN: whatever is made of it is NaN, whatever is drawn at random is not."""

    def nan(tensors: dict[str, Any]) -> dict[str, Any]:
        return {name: torch.full_like(value, torch.nan) for name, value in tensors.items()}

    source = stored.source
    core = source.core
    assert source.order is not None
    return replace(
        stored,
        source=replace(
            source,
            core=Tucker(**nan(core.tensors())) if isinstance(core, Tucker) else Full(nan(core.weights)),
            blocks=nan(source.blocks),
            stem=nan(source.stem),
            decoder=nan(source.decoder),
            order=replace(source.order, **nan({"rotation": source.order.rotation, "energy": source.order.energy})),
        ),
    )


@both_families
@pytest.mark.parametrize("constraint", ["tucker", "none"])
@pytest.mark.parametrize("order", ["prefix", "principal"])
@pytest.mark.parametrize(("depth", "heads"), [(3, 3), (2, 1), (3, 2), (5, 3)])
def test_no_parameter_is_random(
    make_source: MakeSource, family: str, constraint: str, order: str, depth: int, heads: int
) -> None:
    stored = make_source(family, constraint, ordered=True)
    model = poisoned(stored).build(depth, heads, order=order)
    assert not [name for name, value in model.named_parameters() if not value.isnan().all()]
    shapes = {name: value.shape for name, value in model.named_parameters()}
    assert shapes == encoder_shapes(stored.config.resized(depth, heads))


@pytest.mark.parametrize("constraint", ["tucker", "none"])
@pytest.mark.parametrize(("depth", "heads"), [(3, 3), (2, 1), (3, 2), (5, 3)])
def test_biases_of_layer_norm_are_folded_into_their_readers(
    make_source: MakeSource, constraint: str, depth: int, heads: int
) -> None:
    model = make_source("vit", constraint, ordered=True).build(depth, heads, order="principal")
    norms = {f"blocks.{i}.norm{j}.bias" for i in range(depth) for j in (1, 2)} | {"norm.bias"}
    assert {name for name, value in model.named_parameters() if not value.any()} == norms


@pytest.mark.parametrize(("depth", "heads"), [(3, 3), (2, 1), (4, 5)])
def test_the_global_seed_has_no_say(source: Template, depth: int, heads: int) -> None:
    builds = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        builds.append(source.build(depth, heads, num_classes=3).state_dict())
    assert all(torch.equal(value, builds[1][name]) for name, value in builds[0].items())


def test_nothing_is_left_without_memory(source: Template) -> None:
    model = source.build(2, 2, num_classes=3)
    held = [*model.parameters(), *model.buffers()]
    held += [v for m in model.modules() for v in vars(m).values() if isinstance(v, Tensor)]
    assert {value.device.type for value in held} == {"cpu"}
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


@pytest.mark.parametrize("order", ["prefix", "principal"])
@pytest.mark.parametrize("heads", [2, 3])
def test_training_a_model_leaves_the_source_alone(source: Template, order: str, heads: int) -> None:
    before = {name: value.clone() for name, value in source.build(3, heads, order=order).state_dict().items()}
    model = source.build(3, heads, order=order)
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    after = source.build(3, heads, order=order).state_dict()
    assert [name for name, value in after.items() if not torch.equal(value, before[name])] == []


# -- timm's abilities ---------------------------------------------------------------------------------------------


def test_forward_intermediates(source: Template) -> None:
    model = source.build(3, 2)
    x = images()
    final, maps = model.forward_intermediates(x, indices=[0, 2])
    assert [tuple(m.shape) for m in maps] == [(2, 16, 4, 4)] * 2
    torch.testing.assert_close(final, model.forward_features(x))
    tokens = model.forward_intermediates(x, indices=[2], norm=True, output_fmt="NLC", intermediates_only=True)[0]
    torch.testing.assert_close(tokens, final[:, 1:])


def test_features_only(source: Template) -> None:
    x = images()
    expected = source.build(3, 2).forward_intermediates(x, indices=[0, 1], intermediates_only=True)
    net = FeatureGetterNet(source.build(3, 2), out_indices=[0, 1])
    assert net.feature_info.channels() == [16, 16]
    assert net.feature_info.reduction() == [4, 4]
    assert len(net.model.blocks) == 2  # the block behind the last wanted map is gone
    for value, wanted in zip(net(x), expected, strict=True):
        torch.testing.assert_close(value, wanted)


def test_set_input_size_is_the_same_as_building_for_it(source: Template) -> None:
    model = source.build(2, 2)
    model.set_input_size(img_size=24)
    x = images(24)
    torch.testing.assert_close(model(x), source.build(2, 2, img_size=24)(x))
    with pytest.raises(AssertionError):
        model(images(16))


def test_rotary_positions_are_scaled_to_the_grid_of_pre_training(make_source: MakeSource) -> None:
    """Every other patch of a grid twice as fine lies where a patch of the source's grid lay."""
    source = make_source("eva", ordered=True)
    same, twice = (source.build(1, 1, img_size=size).rope.get_embed() for size in (16, 32))
    torch.testing.assert_close(twice.view(8, 8, -1)[::2, ::2], same.view(4, 4, -1))


def test_another_patch_size(source: Template) -> None:
    model = source.build(2, 2, num_classes=5, img_size=32, patch_size=8)
    assert model.patch_embed.proj.weight.shape == (16, 3, 8, 8)
    assert model.patch_embed.grid_size == (4, 4)
    assert model(images(32)).shape == (2, 5)


def test_one_channel_sees_grey_images_as_three_do(source: Template) -> None:
    grey = images(channels=1)
    model = source.build(2, 2, in_chans=1)
    assert model.in_chans == 1
    torch.testing.assert_close(model(grey), source.build(2, 2)(grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_other_channels(source: Template, channels: int) -> None:
    assert source.build(2, 2, num_classes=4, in_chans=channels)(images(channels=channels)).shape == (2, 4)


@both_families
@pytest.mark.parametrize("channels", [3, 4])
def test_channels_from_a_source_of_one(make_source: MakeSource, family: str, channels: int) -> None:
    grey = make_source(family, in_chans=1, ordered=True)
    model = grey.build(2, 2, in_chans=channels)
    x = images(channels=1)
    # the same mean response: a grey image shown in every channel looks as it did in one
    torch.testing.assert_close(model(x.expand(-1, channels, -1, -1)), grey.build(2, 2)(x), rtol=1e-4, atol=1e-5)


def test_dynamic_image_size(source: Template) -> None:
    model = source.build(2, 2, dynamic_img_size=True)
    for size in (16, 24):
        torch.testing.assert_close(model(images(size)), source.build(2, 2, img_size=size)(images(size)))
    assert model(torch.randn(1, 3, 16, 24)).shape == (1, 16)


def test_a_new_head_is_small_and_drawn_by_its_seed(source: Template) -> None:
    first, again, other = (source.build(2, 3, num_classes=500, seed=seed).head for seed in (1, 1, 2))
    assert isinstance(first, nn.Linear) and first.weight.shape == (500, 24)
    assert first.weight.std().item() == pytest.approx(2e-5, rel=0.05)
    assert not first.bias.any()
    assert torch.equal(first.weight, again.weight) and not torch.equal(first.weight, other.weight)
    assert source.build(2, 3, num_classes=5)(images()).shape == (2, 5)
    assert source.build(2, 3)(images()).shape == (2, 24)


def test_options_of_timm_pass_through(source: Template) -> None:
    model = source.build(3, 2, num_classes=2, drop_path_rate=0.3)
    assert model.blocks[2].drop_path1.drop_prob == pytest.approx(0.3)


def test_gradients_reach_every_parameter(source: Template) -> None:
    model = source.build(2, 2, num_classes=3).train()
    model(images()).square().mean().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


# -- mistakes -----------------------------------------------------------------------------------------------------


def test_wrong_weights_are_named() -> None:
    config = ViTConfig(1, 1, 8, img_size=8, patch_size=4)
    weights = {name: torch.zeros(shape) for name, shape in encoder_shapes(config).items()}
    build_vit(config, weights)
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.proj\.bias is missing"):
        build_vit(config, {k: v for k, v in weights.items() if k != "blocks.0.attn.proj.bias"})
    with pytest.raises(ValueError, match="pos_embed is unknown"):
        build_vit(config, weights | {"pos_embed": torch.zeros(1, 5, 8)})
    with pytest.raises(ValueError, match=r"cls_token: shape \(1, 1, 4\), expected \(1, 1, 8\)"):
        build_vit(config, weights | {"cls_token": torch.zeros(1, 1, 4)})


@pytest.mark.parametrize("change", [{"depth": 0}, {"heads": 0}])
def test_impossible_sizes(source: Template, change: dict[str, int]) -> None:
    [(name, value)] = change.items()
    with pytest.raises(UserError, match=f"^{name}={value}: must be at least 1"):
        source.build(**{"depth": 1, "heads": 1} | change)


def test_config_goes_through_json() -> None:
    config = ViTConfig(2, 3, 8, img_size=16, patch_size=4, family="vit", in_chans=1)
    assert ViTConfig(**config.to_dict()) == config
    assert config.resized(5, 2).to_dict() | {"depth": 2, "heads": 3} == config.to_dict()
    with pytest.raises(ValueError, match="unknown family 'cnn'"):
        ViTConfig(1, 1, 8, img_size=8, patch_size=4, family="cnn")
    with pytest.raises(ValueError, match="not a multiple"):
        ViTConfig(1, 1, 8, img_size=9, patch_size=4)


@pytest.mark.parametrize("family", ["vit", "eva", "beit"])
def test_a_skeleton_has_the_tensors_of_timms_own_model(family: str) -> None:
    config = ViTConfig(depth=2, heads=2, head_dim=32, img_size=32, patch_size=8, family=family)

    def tensors(model: Any) -> dict[str, Any]:
        named = [*model.named_parameters(), *model.named_buffers()]
        return {name: (value.shape, value.dtype, value.requires_grad) for name, value in named}

    assert tensors(skeleton(config, 10)) == tensors(materialised(config, 10))


def test_a_skeleton_holds_no_memory() -> None:
    config = ViTConfig(12, 12, 64, img_size=224, patch_size=16)
    assert {p.device.type for p in skeleton(config).parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("version", "fits"), [("1.0.29", False), ("1.0.31", True), ("1.0.31.dev0", True), ("1.1.0", True)]
)
def test_a_timm_that_lays_rotary_tables_out_otherwise_is_refused(version: str, fits: bool) -> None:
    with nullcontext() if fits else pytest.raises(UserError, match=r"timm 1\.0\.29: sweet needs 1\.0\.31"):
        check_timm(version)


@pytest.mark.parametrize(
    "switches",
    [
        {"family": "beit", "final_norm": "pooled"},
        {"family": "vit", "pre_norm": True, "class_token": False, "mlp_ratio": 3.7},
        {"family": "vit", "registers": 3, "patch_norm": True, "mlp": "swiglu", "activation": "silu", "norm": "rms"},
        {"family": "eva", "norm": "layer", "rope": "mixed", "rope_layout": "interleaved", "mlp_norm": True},
        {"family": "eva", "attn_norm": True, "qk_norm": True, "final_norm": "none", "positions": "table"},
    ],
)
def test_parameters_of_any_architecture_are_counted(switches: dict[str, Any]) -> None:
    config = ViTConfig(3, 3, 8, 16, 4, **switches)
    counted = config.cost().parameters(positions=config.positions == "table")
    assert counted == sum(value.numel() for value in skeleton(config).parameters())
    assert ViTConfig(**config.to_dict()) == config
