"""A model folder as the network of a task: to be trained, or to be used."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from sweet.errors import UserError
from sweet.files import read_tensors
from sweet.models.device import own_draws, resolve_device
from sweet.models.vit import mismatch
from sweet.storage.folders import load_model
from sweet.storage.integrity import check_finite
from sweet.storage.layout import TENSORS
from sweet.storage.records import DataConfig, read_record
from sweet.tasks.registry import task_class
from sweet.tasks.task import Task

from .device import keep_memory


def start_network(folder: Path, task: Task, task_name: str, *, seed: int = 0, drop_path: float = 0.0) -> nn.Module:
    """The backbone of a model folder with the head of ``task``: its own where it was trained for the same.

    Else a new head is drawn by ``seed``; that a trained one is left behind is a note of the task.
    Raises UserError naming the folder and the parameter that does not fit.
    """
    record = read_record(folder, ("model",))
    same = record.task == task_name and record.data.classes == task.classes
    other_head = record.task is not None and not same
    if other_head:
        what = "other classes" if record.task == task_name else f"--task {record.task}"
        task.notes.append(f"the trained head of {folder} is not taken over: it is for {what}")
    options = {**task.timm_options, "drop_path_rate": drop_path, "new_head": other_head}
    vit, _ = load_model(folder, num_classes=task.outputs, seed=seed, **options)
    network = with_new_head(vit, task, seed)
    if network is vit or not same:
        return network
    trained, wanted = task.Options(**record.head or {}).of_weights(), task.head.of_weights()
    if other := [f"head.{key}={wanted[key]}, not {trained[key]}" for key in wanted if wanted[key] != trained[key]]:
        task.notes.append(f"the trained head of {folder} is not taken over: {'; '.join(other)}")
    else:
        state, file = read_tensors(folder / TENSORS["model"]), folder / TENSORS["model"]
        if problem := mismatch(state, {name: value.shape for name, value in network.state_dict().items()}):
            raise UserError(f"{file}: {problem}")
        check_finite(file, state)
        network.load_state_dict(state)
    return network


def with_new_head(vit: nn.Module, task: Task, seed: int) -> nn.Module:
    """The network of a task around a ViT; what the task adds is drawn by ``seed``, and no other draw is touched."""
    with own_draws(seed):
        return task.network(vit)


class FinetunedModel:
    """A fine-tuned model on its device, with its task and what is needed to feed it.

    Raises UserError for a model that was not fine-tuned.
    """

    def __init__(self, folder: Path, device: str) -> None:
        record = read_record(folder, ("model",))
        if record.task is None:
            raise UserError(f"{folder}: was not trained for anything; fine-tune it first (sweet finetune)")
        self.task_name: str = record.task
        self.data: DataConfig = record.data
        self.task = task_class(record.task)(record.data.classes or [], head=record.head)
        self.model = start_network(folder, self.task, record.task).eval()
        self.device = resolve_device(device)
        keep_memory()
        self.model.to(self.device)
