"""What people do next with a built model, in a few lines each: adapters, freezing, EMA, compile, bf16, MPS."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3, freeze
from torch import nn

from sweet.api import Template

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 1])


@pytest.fixture(params=["eva", "vit"])
def vit(request: pytest.FixtureRequest, make_source: Callable[..., Template]) -> Any:
    return make_source(request.param, ordered=True).build(2, 2, num_classes=3)


def step(model: nn.Module) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    F.cross_entropy(model(IMAGES), LABELS).backward()
    optimizer.step()


def test_lora_by_peft(vit: Any) -> None:
    peft = pytest.importorskip("peft")
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    config = peft.LoraConfig(
        r=2, target_modules=["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"], modules_to_save=["head"]
    )
    model = peft.get_peft_model(vit, config)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "head" in name for name in trained) and len(trained) == 2 * 4 * 2 + 2
    step(model)
    adapted = model.eval()(IMAGES)
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(IMAGES), adapted, rtol=1e-4, atol=1e-5)
    assert not torch.equal(merged.blocks[0].attn.qkv.weight, before["blocks.0.attn.qkv.weight"])
    assert torch.equal(merged.blocks[0].norm1.weight, before["blocks.0.norm1.weight"])


def test_freezing(vit: Any) -> None:
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    freeze(vit, ["patch_embed", "blocks.0"], include_bn_running_stats=False)
    vit.cls_token.requires_grad_(False)
    step(vit)
    changed = {name for name, value in vit.state_dict().items() if not torch.equal(value, before[name])}
    assert "head.weight" in changed and "blocks.1.attn.qkv.weight" in changed
    assert not any(name.startswith(("patch_embed", "blocks.0", "cls_token")) for name in changed)


def test_timms_ema(vit: Any) -> None:
    ema = ModelEmaV3(vit, decay=0.5)
    before = vit.head.weight.detach().clone()
    step(vit)
    ema.update(vit, step=10)
    torch.testing.assert_close(ema.module.head.weight, (before + vit.head.weight) / 2)
    assert ema.module(IMAGES).shape == (4, 3)


def test_compile(vit: Any) -> None:
    """The graph is whole and trains; what a backend makes of it is the next test."""
    compiled = compile_quietly(vit, "eager")
    torch.testing.assert_close(compiled(IMAGES), vit(IMAGES), rtol=1e-4, atol=1e-5)
    step(compiled)
    assert vit.head.weight.grad is not None


@pytest.mark.slow
def test_compile_by_inductor(
    make_source: Callable[..., Template], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    vit: Any = make_source("eva", ordered=True).build(1, 1, num_classes=3)
    with torch.no_grad():
        torch.testing.assert_close(compile_quietly(vit, "inductor")(IMAGES), vit(IMAGES), rtol=1e-4, atol=1e-5)


def compile_quietly(vit: nn.Module, backend: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler, about itself
        compiled = torch.compile(vit, backend=backend, fullgraph=True)
        compiled(IMAGES)
        return compiled


def test_autocast(vit: Any) -> None:
    expected = vit(IMAGES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = vit(IMAGES)
        F.cross_entropy(found.float(), LABELS).backward()
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() <= 0.05 * expected.norm()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vit.parameters())


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS here")
def test_mps(vit: Any) -> None:
    expected = vit(IMAGES).detach()
    model = vit.to("mps")
    found = model(IMAGES.to("mps"))
    F.cross_entropy(found, LABELS.to("mps")).backward()
    torch.testing.assert_close(found.detach().cpu(), expected, rtol=1e-3, atol=1e-4)
