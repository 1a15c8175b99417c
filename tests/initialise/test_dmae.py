"""The loss against timm's own modules; what trains and what does not; how long it runs when nobody says."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from sweet.data import ImageSource
from sweet.errors import UserError
from sweet.initialise.apply import initialise
from sweet.initialise.dmae import Distillation, aligned, fair_share, groups
from sweet.models.config import ViTConfig
from sweet.models.mae import sincos
from sweet.models.source_module import as_tensors
from sweet.models.vit import build_vit
from sweet.storage.folders import StoredSource, source_tensors
from sweet.storage.records import TrainingRecord
from sweet.template.sizes import Size
from sweet.training import short_run
from sweet.training.checkpoint import steps_of
from sweet.training.log import RunLog

Wide = Callable[..., StoredSource]


def test_blocks_at_three_quarters_of_the_depth_are_aligned() -> None:
    assert {depth: aligned(depth) for depth in (1, 2, 3, 6, 8, 12, 24)} == {
        1: 0, 2: 1, 3: 1, 6: 4, 8: 5, 12: 8, 24: 17,
    }  # fmt: skip


def visible(vit: nn.Module, images: Tensor, keep: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """timm's own blocks on the kept patches of one image: (output of block ``index``, tokens after the norm)."""
    x = vit.patch_embed(images)
    x = x if x.dim() == 3 else x.flatten(1, 2)
    if vit.pos_embed is not None:
        x = x + vit.pos_embed[:, 1:]
    cls = vit.cls_token if vit.pos_embed is None else vit.cls_token + vit.pos_embed[:, :1]
    x = torch.cat([cls, x[:, keep]], 1)
    seen: list[Tensor] = []
    hook = vit.blocks[index].register_forward_hook(lambda _, __, output: seen.append(output))
    for block in vit.blocks:
        x = block(x) if getattr(vit, "rope", None) is None else block(x, rope=vit.rope.get_embed()[keep])
    hook.remove()
    return seen[0], vit.norm(x)


def decoded(w: dict[str, Tensor], tokens: Tensor, keep: Tensor, config: ViTConfig, width: int) -> Tensor:
    """MAE's decoder of timm's blocks for one image: (N, pixels)."""
    x = F.linear(tokens, w["decoder.embed.weight"], w["decoder.embed.bias"])
    full = w["decoder.mask_token"].repeat(1, config.patches, 1)
    full[:, keep] = x[:, 1:]
    x = torch.cat([x[:, :1], full], 1) + sincos(config.grid, width)
    block = Block(width, width // 8, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=config.eps))
    prefix = "decoder.blocks.0."
    block.load_state_dict({n.removeprefix(prefix): v for n, v in w.items() if n.startswith(prefix)})
    x = F.layer_norm(block(x), (width,), w["decoder.norm.weight"], w["decoder.norm.bias"], config.eps)
    return F.linear(x, w["decoder.pred.weight"], w["decoder.pred.bias"])[0, 1:]


@torch.no_grad()
@pytest.mark.parametrize("family", ["eva", "vit"])
def test_the_loss_is_that_of_timms_modules(family: str, wide: Wide) -> None:
    """Image by image, patch by patch: decoder, targets, features and distance written out once more."""
    source, size, alpha = wide(family), Size(6, 5, 4), 0.7
    model = Distillation(source, size, alpha, torch.Generator().manual_seed(1))
    config, mae = model.config, source.mae
    generator = torch.Generator().manual_seed(2)
    images, noise = torch.randn(3, 3, 16, 16, generator=generator), torch.rand(3, 16, generator=generator)

    weights = {name: value.detach() for name, value in as_tensors(model.student).items()}
    student = build_vit(config, weights)
    teacher = build_vit(source.config, {n: v for n, v in source_tensors(source.source).items() if "order." not in n})
    pixels, distances = [], []
    for one, draws in zip(images.split(1), noise, strict=True):
        keep = draws.topk(4, largest=False, sorted=True).indices
        ours, tokens = visible(student, one, keep, 4)
        theirs, _ = visible(teacher, one, keep, 8)
        ours = ours @ model.projection.weight.t() + model.projection.bias
        distances.append((ours / ours.norm(dim=-1, keepdim=True) - theirs / theirs.norm(dim=-1, keepdim=True)).abs())
        prediction = decoded(weights, tokens, keep, config, mae.decoder_width)
        for patch in set(range(16)) - set(keep.tolist()):
            row, column = divmod(patch, 4)
            target = one[0, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten()
            target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
            pixels.append((prediction[patch] - target).square().mean())
    expected = torch.stack(pixels).mean() + alpha * torch.stack(distances).mean()
    torch.testing.assert_close(model(images, noise), expected, rtol=1e-4, atol=1e-5)


def test_only_student_and_map_learn(wide: Wide) -> None:
    model = Distillation(wide("vit"), Size(3, 4, 4), 1.0, torch.Generator().manual_seed(0))
    model(torch.randn(2, 3, 16, 16), torch.rand(2, 16)).backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None}
    learning = {name for name, p in model.named_parameters() if not name.startswith("teacher.")} - {"student.pos_embed"}
    assert moved == learning
    decays, rest = groups(model)
    assert (decays["weight_decay"], rest["weight_decay"]) == (0.05, 0.0)
    assert len(decays["params"]) + len(rest["params"]) == len(learning)
    assert {p.dim() for p in rest["params"]} == {1, 3} and len([p for p in rest["params"] if p.dim() == 3]) == 2


def test_it_learns_and_leaves_the_teacher_alone(wide: Wide, images: ImageSource, tmp_path: Path) -> None:
    source = wide("eva")
    before = {name: value.clone() for name, value in source_tensors(source.source).items()}
    size = Size(2, 3, 4)
    weights = initialise("dmae", source, size, data=images, steps=40, batch=16, lr=3e-3, device="cpu", run=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]
    assert all(torch.equal(value, before[name]) for name, value in source_tensors(source.source).items())
    assert {name for name in weights if name.startswith("decoder.")} == {
        f"decoder.{name}" for name in source.source.decoder
    }


def test_killed_it_goes_on_from_its_checkpoint(
    wide: Wide, images: ImageSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bench gives a start a folder for that; the weights are those of an unbroken run."""
    options: dict[str, Any] = {"data": images, "steps": 6, "batch": 16, "device": "cpu"}
    whole = initialise("dmae", wide("eva"), Size(2, 3, 4), **options)
    monkeypatch.setattr(short_run, "CHECKPOINT", 2)

    log = RunLog.step

    def killed(self: Any, step: int, *values: Any) -> None:
        log(self, step, *values)
        if step == 4:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(RunLog, "step", killed)
        initialise("dmae", wide("eva"), Size(2, 3, 4), run=tmp_path, **options)
    assert steps_of(tmp_path) == [4, 5]  # an error between two steps saves as well
    again = initialise("dmae", wide("eva"), Size(2, 3, 4), run=tmp_path, **options)
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]


def test_the_fair_share_is_a_fifth_of_the_sources_samples(
    make_source: Callable[..., StoredSource], images: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweet.initialise import dmae

    source = make_source("eva", "none")
    with pytest.raises(UserError, match="does not say how many images it was trained on; give steps=N"):
        initialise("dmae", source, Size(1, 1, 8), data=images)
    training = TrainingRecord(steps=1, images=399360, loss=0.0, seconds=0.0)
    source.record = source.record.model_copy(update={"training": training})
    assert (fair_share(source, 128), fair_share(source, 10**9)) == (624, 1)
    called: dict[str, Any] = {}

    def spy(model: nn.Module, data: Any, source: Any, run: Any, **more: Any) -> None:
        called.update(more, run=run, images=len(data))

    monkeypatch.setattr(dmae, "train_on", spy)
    initialise("dmae", source, Size(1, 1, 8), data=images, seed=5)
    run = called["run"]
    assert (run.steps, run.batch_size, run.lr, run.warmup) == (624, 128, 1.5e-3, 0.1)
    assert (called["images"], called["budget"], called["seed"]) == (64, None, 5)
