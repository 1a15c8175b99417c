"""Curves go to accelerate's trackers with the recipe and the name of the run; a missing one is said before the work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate.tracking
import pytest
from accelerate.tracking import GeneralTracker

from sweet.errors import UserError
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune


def test_a_service_gets_the_curve(
    model: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Any]] = []

    class Service(GeneralTracker):
        """As wandb's: it is given a project, and a name for the run."""

        name, requires_logging_directory, main_process_only = "wandb", False, True

        def __init__(self, project: str, name: str) -> None:
            super().__init__()
            calls.append(("begin", (project, name)))

        @property
        def tracker(self) -> Any:
            return self

        def start(self) -> None:
            pass

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            calls.append(("settings", values))

        def log(self, values: dict[str, Any], step: int | None, **_: Any) -> None:
            calls.append(("log", (step, values)))

        def finish(self) -> None:
            calls.append(("finish", None))

    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "wandb", Service)
    monkeypatch.setattr("accelerate.accelerator.LOGGER_TYPE_TO_CLASS", accelerate.tracking.LOGGER_TYPE_TO_CLASS)
    monkeypatch.setattr("sweet.training.trackers.get_available_trackers", lambda: ["tensorboard", "wandb"])
    finetune(model, tiny_finetune("log_with=[tensorboard,wandb]", "max_steps=2"), tmp_path / "mine", quiet=True)
    assert calls[0] == ("begin", ("sweet", "mine"))
    assert calls[1][0] == "settings" and calls[1][1]["lr"] == 2e-3 and calls[1][1]["data.img_size"] == 16
    logged = [values for what, values in calls if what == "log"]
    assert [step for step, _ in logged] == [1, 2, 2]
    assert {key for _, values in logged for key in values} == {
        *("loss", "lr", "img_per_s", "data_wait", "val_top1", "val_top5", "val_loss")
    }
    assert ("finish", None) in calls
    assert list((tmp_path / "mine" / "tensorboard").glob("events*"))


def test_one_that_is_not_installed(
    model: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweet.training.trackers.get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(UserError, match=r"log_with=comet_ml: is not installed \(pip install comet-ml\); here: tensor"):
        finetune(model, tiny_finetune("log_with=[comet_ml]"), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()
    finetune(model, tiny_finetune("log_with=[]", "max_steps=1"), tmp_path / "none", quiet=True)
    assert not (tmp_path / "none" / "tensorboard").exists()
