"""``sweet pretrain`` under the constraints of the paper's Table 4: to a source, to a target, interrupted, continued."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from sweet.convert.convert import convert
from sweet.costs.plan import plan
from sweet.describe import inspect
from sweet.errors import UserError
from sweet.files import read_json, sha256
from sweet.initialise.apply import initialise
from sweet.models.mae import MaskedAutoencoder
from sweet.models.vit import build_vit
from sweet.recipes.resolved import resolve
from sweet.recipes.schema import PretrainRecipe
from sweet.storage.folders import load_source
from sweet.template.constraints import Kronecker, Linear
from sweet.template.sizes import Size
from sweet.template.target import target_weights
from sweet.training.pretrain import initial_source, parameter_groups, pretrain

Tiny = Callable[..., PretrainRecipe]
CrashAt = Callable[[int], AbstractContextManager[None]]

both_constraints = pytest.mark.parametrize("constraint", ["linear", "kronecker"])
SCALED = ("width.mode=independent", "depth.mode=even", "depth.min_blocks=1", "max_steps=3", "template.order_images=16")


@both_constraints
def test_a_run_and_its_resumption_are_the_same(tiny: Tiny, tmp_path: Path, crash_at: CrashAt, constraint: str) -> None:
    recipe = tiny(f"template.constraint={constraint}", *SCALED)
    pretrain(recipe, tmp_path / "whole", quiet=True)
    with crash_at(2):  # the step after the checkpoint
        pretrain(recipe, tmp_path / "half", quiet=True)
    pretrain(recipe, tmp_path / "half", resume=True, quiet=True)
    assert sha256(tmp_path / "half" / "template.safetensors") == sha256(tmp_path / "whole" / "template.safetensors")


@both_constraints
@pytest.mark.parametrize("family", ["eva", "vit"])
def test_what_was_learned_is_a_source(tiny: Tiny, tmp_path: Path, constraint: str, family: str) -> None:
    recipe = tiny(f"template.constraint={constraint}", f"model.family={family}", "max_steps=2")
    pretrain(recipe, tmp_path, quiet=True)
    info = read_json(tmp_path / "config.json")
    assert (info["kind"], info["constraint"]) == ("template", constraint) and "ranks" not in info
    stored = load_source(tmp_path)
    assert isinstance(stored.source.core, Linear if constraint == "linear" else Kronecker)
    assert (stored.source.depth, stored.source.width) == (2, 16) and stored.source.order is not None
    for method in ("sweet", "tleg") if constraint == "linear" else ("sweet",):
        assert build_vit(stored.config.resized(3, 1), initialise(method, stored, Size(3, 1, 8)))
    shown = inspect(tmp_path)
    assert shown["constraint"] == constraint and shown["checksums"].startswith("not checked") and "ranks" not in shown
    planned = plan(recipe)
    assert "template.safetensors" in planned["writes"] and "ranks" not in planned
    for planned_key, key in (("template_params_m", "parameters_m"), ("share_of_slices", "share_of_slices")):
        assert planned[planned_key] == shown[key]
    assert ("tile" in planned) == ("tile" in shown) == (constraint == "kronecker")


@both_constraints
def test_a_source_goes_on_where_it_stopped(tiny: Tiny, tmp_path: Path, constraint: str) -> None:
    chosen = f"template.constraint={constraint}"
    pretrain(tiny(chosen, "max_steps=3"), tmp_path / "first", quiet=True)
    still = tiny(chosen, f"init_from={tmp_path / 'first'}", "lr=1e-12", "max_steps=1", "optim.weight_decay=0")
    pretrain(still, tmp_path / "second", quiet=True)
    first, second = (load_source(tmp_path / name).source for name in ("first", "second"))
    for name, value in target_weights(first, 2, 16, order="prefix").items():
        torch.testing.assert_close(target_weights(second, 2, 16, order="prefix")[name], value, rtol=0, atol=1e-6)
    with pytest.raises(UserError, match=f"its constraint is {constraint}, the recipe says tucker"):
        pretrain(tiny(f"init_from={tmp_path / 'first'}"), tmp_path / "third", quiet=True)


@pytest.mark.parametrize("family", ["eva", "vit"])
@pytest.mark.parametrize(("learn", "constraint"), [("whole", "none"), ("tiles", "kronecker")])
def test_a_template_learned_otherwise_is_the_source_of_the_same_run(
    tiny: Tiny, tmp_path: Path, family: str, learn: str, constraint: str
) -> None:
    """The same function as a run under that constraint gives, as a template of full ranks; it may go on from that."""
    chosen = (f"model.family={family}", "max_steps=3", "width.mode=shared")
    other = tiny(f"template.constraint={constraint}", *chosen)
    pretrain(other, tmp_path / "other", quiet=True)
    recipe = tiny(f"template.learn={learn}", *chosen)
    pretrain(recipe, tmp_path / "whole", quiet=True)
    info = read_json(tmp_path / "whole" / "config.json")
    assert (info["kind"], info["constraint"], info["ranks"]) == ("template", "tucker", [24, 16, 16])
    assert plan(recipe)["ranks"] == info["ranks"]
    assert plan(recipe)["rebuild_share_of_step"] == (0 if learn == "whole" else plan(other)["rebuild_share_of_step"])
    convert(str(tmp_path / "other"), tmp_path / "converted")
    learned, whole, converted = (load_source(tmp_path / name) for name in ("other", "whole", "converted"))
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for size in (Size(2, 2, 8), Size(1, 1, 8)):
        starts = [initialise("sweet", stored, size) for stored in (learned, whole, converted)]
        if constraint == "none":
            starts.append(initialise("principal_slice", learned, size, gains="equal", inner="energy"))
        made = [build_vit(learned.config.resized(size.depth, size.heads), start).eval() for start in starts]
        for vit in made[1:]:
            torch.testing.assert_close(made[0](images), vit(images), rtol=0, atol=1e-4)
    again = tiny(f"template.learn={learn}", *chosen, f"init_from={tmp_path / 'other'}", "max_steps=1")
    assert pretrain(again, tmp_path / "again", quiet=True)["steps"] == 1
    with pytest.raises(UserError, match=f"its constraint is tucker, the recipe says {constraint}"):
        pretrain(again.model_copy(update={"init_from": str(tmp_path / "whole")}), tmp_path / "third", quiet=True)


@pytest.mark.parametrize(
    ("constraint", "still"),
    [("linear", set()), ("kronecker", {f"core.scalers/{n}/weight" for n in
                                       ("attn/qkv", "attn/proj", "mlp/fc1", "mlp/fc2")})],
)  # fmt: skip
def test_templates_decay_and_scalers_do_not(tiny: Tiny, constraint: str, still: set[str]) -> None:
    recipe = tiny(f"template.constraint={constraint}", "optim.weight_decay=0.3", "template.lr_x=0.5")
    resolved = resolve(recipe)
    model = MaskedAutoencoder(initial_source(resolved), resolved.vit, resolved.mae)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, recipe)
    without = {names[p] for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    slow = {names[p] for group in groups if group["lr_scale"] == 0.5 for p in group["params"]}
    assert {name for name in without if name.startswith("core")} == still == slow
    assert {name for name in names.values() if name.startswith("blocks")} <= without
