"""The diffusion network around timm's blocks: neutral it is the ViT, at first it is nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from sweet.errors import UserError
from sweet.models.config import ViTConfig
from sweet.models.forward import patchify, unpatchify
from sweet.models.vit import build_vit, materialised
from sweet.tasks.generation.generate import Generate
from sweet.tasks.generation.jit import JiT, frequencies
from sweet.template.target import target_weights

IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TIMES, LABELS = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0, 1, 2])


MIXED = {"rope": "mixed", "rope_layout": "interleaved", "norm": "layer"}  # a rotary table of each block


@pytest.fixture(params=[("eva", {}), ("vit", {}), ("eva", MIXED)], ids=["eva", "vit", "mixed"])
def vit(request: pytest.FixtureRequest, make_source: Callable) -> Any:
    family, switches = request.param
    stored = make_source(family, **switches)
    weights = target_weights(stored.source, 3, 24, order="prefix")
    return build_vit(stored.config, {k: v for k, v in weights.items() if not k.startswith("decoder.")})


def test_neutral_modulation_is_the_plain_vit(vit: Any) -> None:
    jit = JiT(vit, 2, gate="one").eval()
    with torch.no_grad():
        seen = vit.norm(jit.features(IMAGES, torch.randn(3, 24), torch.randn(3, 24)))
        torch.testing.assert_close(seen, vit.forward_features(IMAGES))


def test_closed_gates_leave_the_embedding(vit: Any) -> None:
    jit = JiT(vit, 2, gate="zero").eval()
    with torch.no_grad():
        seen = jit.features(IMAGES, torch.randn(3, 24), torch.randn(3, 24))
        torch.testing.assert_close(seen[:, 1:], _embedded(vit, IMAGES))


def _embedded(vit: Any, images: torch.Tensor) -> torch.Tensor:
    tokens = vit.patch_embed(images)
    return tokens if vit.pos_embed is None else tokens + vit.pos_embed[:, 1:]


@pytest.mark.parametrize("options", [{}, {"bottleneck": 5, "context": 2}, {"context": 3, "context_start": 0.0}])
def test_it_starts_at_zero_and_every_parameter_learns(vit: Any, options: dict[str, Any]) -> None:
    jit = JiT(vit, 2, **options)
    with torch.no_grad():
        assert not jit(IMAGES, TIMES, LABELS).any()
        for layer in (*jit.modulations, jit.last_modulation, jit.last):
            layer.weight.normal_(std=0.1)
    made = jit(IMAGES, TIMES, LABELS)
    assert made.shape == IMAGES.shape
    made.square().mean().backward()
    for name, parameter in jit.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.any()), name
    assert vit.patch_embed.proj.weight.requires_grad == ("bottleneck" not in options)


@pytest.mark.parametrize("context", [0, 2])
def test_time_and_class_matter(vit: Any, context: int) -> None:
    torch.manual_seed(0)
    jit = JiT(vit, 2, context=context, gate="one").eval()
    nn.init.normal_(jit.last.weight)
    for layer in jit.modulations:
        nn.init.normal_(layer.weight, std=0.1)
    with torch.no_grad():
        seen = jit(IMAGES, TIMES, LABELS)
        assert (jit(IMAGES, TIMES.flip(0), LABELS)[0] - seen[0]).abs().max() > 1e-4
        assert (jit(IMAGES, TIMES, LABELS.flip(0))[0] - seen[0]).abs().max() > 1e-4
        torch.testing.assert_close(jit(IMAGES[:1], TIMES[:1], LABELS[:1]), seen[:1], rtol=1e-4, atol=1e-4)


def test_context_tokens_are_not_rotated_and_do_not_move_the_patches(vit: Any) -> None:
    """A context token that nothing attends to changes nothing: all else keeps its rotary position."""
    plain, jit = JiT(vit, 2, gate="one").eval(), JiT(vit, 2, context=2, context_start=0.5, gate="one").eval()
    hidden: list[torch.Tensor] = []
    for block in vit.blocks[1:]:
        block.attn.fused_attn = True
        block.attn.register_forward_pre_hook(_mask_context, with_kwargs=True)
        block.attn.register_forward_pre_hook(lambda _, args, kwargs: hidden.append(args[0]), with_kwargs=True)
    condition = torch.randn(3, 24)
    with torch.no_grad():
        torch.testing.assert_close(
            jit.features(IMAGES, condition, condition)[:, -16:], plain.features(IMAGES, condition, condition)[:, -16:]
        )
    assert [x.shape[1] for x in hidden] == [19, 19, 17, 17]


def _mask_context(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    tokens = args[0].shape[1]
    allowed = torch.ones(tokens, tokens, dtype=torch.bool)
    if tokens == 19:
        allowed[:, 1:3] = False
    return args, kwargs | {"attn_mask": allowed}


def test_a_beit_is_refused() -> None:
    beit = materialised(ViTConfig(1, 2, 8, 16, 4, family="beit", final_norm="pooled"))
    with pytest.raises(UserError, match="--task generate: not with a BEiT"):
        Generate(["a", "b"]).network(beit)


def test_unpatchify_undoes_patchify() -> None:
    assert unpatchify(patchify(IMAGES, 4), 4, 3, (4, 4)).equal(IMAGES)


def test_frequencies_tell_times_apart() -> None:
    codes = frequencies(torch.linspace(0, 1, 101))
    distance = torch.cdist(codes, codes) + 1e3 * torch.eye(101)
    assert distance.min() > 0.5
