"""A model folder as the network of a task: to be trained, or ready to be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sweet.errors import UserError
from sweet.files import TENSORS, read_tensors
from sweet.models.store import load_model, read_config
from sweet.tasks import Task, task_class

from .device import keep_memory, resolve_device, use_plain_attention


def start_network(folder: Path, job: Task, task: str, *, seed: int = 0, drop_path: float = 0.0) -> nn.Module:
    """The backbone of a model folder with the head of ``job``: its own where it was trained for the same.

    Else a new head is drawn by ``seed``. Raises UserError naming the folder and the parameter that does not fit.
    """
    info = read_config(folder, ("model",))
    options = dict(job.timm_options, drop_path_rate=drop_path)
    vit, _ = load_model(folder, num_classes=job.outputs, seed=seed, **options)
    network = with_new_head(vit, job, seed)
    same = info.get("task") == task and info["data"]["classes"] == job.classes
    if same and network is not vit and job.Options(**info["head"]).of_weights() == job.head.of_weights():
        network.load_state_dict(read_tensors(folder / TENSORS["model"]))
    return network


def with_new_head(vit: nn.Module, job: Task, seed: int) -> nn.Module:
    """The network of a task around a ViT; what the task adds is drawn by ``seed``, and no other draw is touched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return job.network(vit)


class Ready:
    """A fine-tuned model on its device, with its task and what is needed to feed it. Raises UserError for another."""

    def __init__(self, folder: Path, device: str) -> None:
        info = read_config(folder, ("model",))
        if "task" not in info:
            raise UserError(f"{folder}: was not trained for anything; fine-tune it first (sweet finetune)")
        self.task: str = info["task"]
        self.facts: dict[str, Any] = info["data"]
        self.job = task_class(self.task)(self.facts["classes"], head=info.get("head"))
        self.model = start_network(folder, self.job, self.task).eval()
        self.device = resolve_device(device)
        keep_memory()
        self.model.to(self.device)
        use_plain_attention(self.model, self.device)
