"""The verbs as functions: what they return, what they say of their progress, and that they check before torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sweet
from sweet.console import Progress
from sweet.files import read_json, write_json
from sweet.storage.paths import task_of_run

TINY = Path(__file__).parent / "tiny.yaml"
SHAPES = "shapes:n=64,size=16"


def test_from_images_to_metrics(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[Progress] = []
    keys = {"device": "cpu", "workers": 0, "max_steps": 4, "optim": {"precision": "fp32", "warmup": 0.5}}
    source, model, tuned = (tmp_path / name for name in ("source", "model", "tuned"))
    made = sweet.pretrain(TINY, out=source, max_steps=3, progress=seen.append)
    assert made["steps"] == 3 and read_json(source / "config.json")["kind"] == "template"
    assert [(one.what, one.done, one.total) for one in seen] == [("training", step, 3) for step in (1, 2, 3)]
    assert seen[0].values.keys() == {"loss", "lr", "img_per_s", "data_wait"}

    assert sweet.init(source, out=model, params="5k", order="prefix")["order"] == "prefix"
    seen.clear()
    result = sweet.finetune(
        model, out=tuned, data=SHAPES, progress=seen.append, overrides=["lr=1e-3"], val_every=0.5, **keys
    )
    assert list(result)[:2] == ["top1", "top5"] and result["training"]["steps"] == 4  # type: ignore[index]
    recipe = (tuned / "recipe.yaml").read_text()
    assert "warmup: 0.5" in recipe and "lr: 0.001" in recipe
    assert {"val_top1", "val_loss"} <= {key for one in seen for key in one.values}
    assert {one.what for one in seen} == {"training", "validation"}

    seen.clear()
    metrics = sweet.evaluate(tuned, data=SHAPES, device="cpu", batch_size=5, progress=seen.append)
    assert metrics == read_json(tuned / "config.json")["metrics"]
    assert [(one.what, one.done, one.total) for one in seen] == [("evaluate", done, 12) for done in (5, 10, 12)]
    assert capfd.readouterr().err == ""  # what is listened to is not shown


def test_an_unfinished_result_is_never_left_and_the_old_one_is_kept(tmp_path: Path) -> None:
    sweet.pretrain(TINY, out=tmp_path / "run", quiet=True)
    with pytest.raises(sweet.UserError, match="not empty"):
        sweet.pretrain(TINY, out=tmp_path / "run", quiet=True)
    with pytest.raises(sweet.UserError, match="nowhere: no such folder"):
        sweet.finetune(tmp_path / "nowhere", out=tmp_path / "out", data=SHAPES)
    with pytest.raises(sweet.UserError, match=r"--params 1: the smallest size"):
        sweet.init(tmp_path / "run", out=tmp_path / "out", params=1)
    with pytest.raises(sweet.UserError, match="sede: unknown key; did you mean seed"):
        sweet.pretrain(TINY, out=tmp_path / "out", sede=1)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


CHECKED = {
    "sweet.pretrain('micro', out='o', data='folder:nowhere')": "--data folder:nowhere: no such folder",
    "sweet.pretrain('mikro', out='o')": "did you mean micro",
    "sweet.finetune('nowhere', out='o', data='shapes:')": "MODEL nowhere: no such folder",
    "sweet.finetune('.', out='o', data='shapes:')": "not a sweet folder",
    "sweet.evaluate('.', data='shapes:')": "not a sweet folder",
    "sweet.init('nowhere', out='o', depth=1, heads=1)": "SOURCE nowhere: no such file or folder",
    "sweet.init('.', out='o', params='3X')": "--params 3X: expected a number",
    "sweet.init('.', out='o', depth=0, heads=1)": "depth=0: must be at least 1",
    "sweet.init('.', out='o', depth=1, heads=1.5)": "heads=1.5: expected a whole number",
    "sweet.init('.', out='o', depth=1, heads='2')": "heads='2': expected a whole number",
    "sweet.init('.', out='o', depth=1, heads=1, seed=-1)": "seed=-1: must be at least 0",
    "sweet.init('.', out='o', depth=1, heads=1, patch_size=0)": "patch_size=0: must be at least 1",
    "sweet.init('.', out='o', depth=1, heads=1, img_size=0)": "img_size=0: should be pixels",
    "sweet.evaluate('.', data='shapes:', batch_size=0)": "batch_size=0: must be at least 1",
    "sweet.evaluate('.', data='shapes:', limit=0)": "limit=0: must be at least 1",
}


def test_what_can_be_checked_is_checked_before_torch(tmp_path: Path) -> None:
    script = (
        "import sys, sweet\nfor line in sys.stdin:\n    try: exec(line)\n    except sweet.UserError as e: print(e)\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    command, lines = [sys.executable, "-c", script], "\n".join(CHECKED)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=tmp_path, check=True)
    for line, message in zip(done.stdout.splitlines(), CHECKED.values(), strict=True):
        assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_that_does_not_fit_is_said_at_once(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"device": "cpu", "workers": 0, "batch_size": 32, "val_every": 0}
    sweet.finetune(model, out=tmp_path / "few", data=SHAPES, epochs=2, **words)
    shown = capsys.readouterr().err
    few = "64 images in batches of 32 make 4 steps in all, few to learn from"
    assert shown.startswith(f"note: {few}; epochs=100 makes 200, batch_size=16 also makes more\n")
    sweet.finetune(model, out=tmp_path / "meant", data=SHAPES, epochs=2, max_steps=2, **words)
    assert "note" not in capsys.readouterr().err


def test_resume_goes_on_with_the_task_of_the_run(model: Path, tmp_path: Path) -> None:
    out, head = tmp_path / "out", {"channels": 16, "aux_channels": 8, "pool_scales": "1,2", "crop": 16, "short_side": 0}
    words = {"device": "cpu", "workers": 0, "batch_size": 8, "max_steps": 1, "quiet": True}
    done = sweet.finetune(model, out=out, data=SHAPES, task="segment", head=head, **words)  # type: ignore[arg-type]
    for unfinished in (False, True):
        if unfinished:
            (out / "config.json").unlink()
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".sweet"}
        with pytest.raises(
            sweet.UserError, match=r"^--task classify: --resume: --out .* was begun with --task segment"
        ):
            sweet.finetune(model, out=out, task="classify", resume=True)
        assert {path: path.stat().st_mtime_ns for path in before} == before
        again = sweet.finetune(model, out=out, resume=True, quiet=True)
        assert again["miou"] == done["miou"] and bool(again.get("finished_before")) != unfinished
    machine = read_json(out / "env.json")
    assert machine.pop("task") == "segment"
    write_json(out / "env.json", machine)  # of an earlier version
    assert task_of_run(out, str(out / "recipe.yaml"), None) == "classify"
    assert task_of_run(out, str(out / "recipe.yaml"), "segment") == "segment"


def test_init_takes_an_image_size_as_the_command_line_does(template: Path, tmp_path: Path) -> None:
    sweet.init(template, out=tmp_path / "wide", depth=1, heads=1, img_size="16x32")  # type: ignore[arg-type]
    assert read_json(tmp_path / "wide" / "config.json")["vit"]["img_size"] == [16, 32]


def test_a_finished_model_of_another_size_is_not_resumed(template: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    sweet.init(template, out=model, depth=2, heads=2)
    assert sweet.init(template, out=model, depth=2, heads=2, resume=True)["size"] == "L2H2"
    others: tuple[dict[str, object], ...] = (
        {"depth": 1}, {"heads": 1}, {"method": "random"}, {"seed": 5}, {"img_size": "16x32"}, {"patch_size": 2},
        {"in_chans": 1},
    )  # fmt: skip
    for other in others:
        given: dict[str, Any] = {"depth": 2, "heads": 2, **other}
        (name, value), *_ = other.items()
        option = f"--{name.replace('_', '-')}"
        with pytest.raises(sweet.UserError, match=rf"^--resume: {option} {value}, but .* holds a model of {option} "):
            sweet.init(template, out=model, resume=True, **given)
