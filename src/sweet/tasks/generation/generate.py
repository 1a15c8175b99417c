"""Class-conditional images by pixel diffusion (JiT): velocity loss, FID and Inception score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sweet.data import ImageSource, Packed, step_generator
from sweet.errors import UserError
from sweet.recipes.schema import FinetuneRecipe
from sweet.storage.records import DataConfig
from sweet.tasks.labelled import Labelled, images_of
from sweet.tasks.pictures import contact_sheet
from sweet.tasks.task import Options, TrainBatches

from .diffusion import draw_times, noisy, sample, velocity
from .extractor import BUNDLED, Comparison, find_extractor
from .jit import JiT

LABEL_DROP = 0.1  # share of the training images whose class is not told, for guidance
SHEET = (10, 8)  # most classes, and images of each, on a sheet


class HeadOptions(Options):
    """The network (see :class:`sweet.tasks.generation.jit.JiT`), how it is sampled, and how the samples are judged."""

    use = frozenset({"gate", "steps", "guidance", "guidance_from", "guidance_to", "samples", "extractor"})

    bottleneck: Annotated[int, Field(ge=0)] = 0
    context: Annotated[int, Field(ge=0)] = 0
    context_start: Annotated[float, Field(ge=0, lt=1)] = 1 / 3
    gate: Literal["zero", "one"] = "zero"
    noise: Annotated[float, Field(gt=0)] = 1.0  # its scale; pixels have about unit variance
    steps: Annotated[int, Field(ge=1)] = 50
    guidance: Annotated[float, Field(ge=1)] = 1.0
    guidance_from: Annotated[float, Field(ge=0, le=1)] = 0.1
    guidance_to: Annotated[float, Field(ge=0, le=1)] = 1.0
    samples: Annotated[int, Field(ge=2)] = 5000  # made for an evaluation, the same number of each class
    extractor: str = BUNDLED

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.guidance_from > self.guidance_to:
            raise UserError(f"head.guidance_from={self.guidance_from:g}: above head.guidance_to={self.guidance_to:g}")
        return self


class Generate(Labelled):
    """A denoiser of ``len(classes)`` classes in the pixels that its ViT knows (mean and std of the model)."""

    Options = HeadOptions
    head: HeadOptions

    def __init__(
        self, classes: list[str], recipe: FinetuneRecipe | None = None, head: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(classes, recipe, head)
        self.seed, self.rank = recipe.seed if recipe else 0, 0
        if recipe:
            find_extractor(self.head.extractor)  # what is not there should be missed before the training

    def network(self, vit: Any) -> nn.Module:
        return JiT(
            vit,
            len(self.classes),
            bottleneck=self.head.bottleneck,
            context=self.head.context,
            context_start=self.head.context_start,
            gate=self.head.gate,
        )

    def batches(
        self,
        data: ImageSource | Packed,
        recipe: FinetuneRecipe,
        *,
        batch_size: int,
        rank: int,
        world: int,
        device: torch.device,
    ) -> TrainBatches:
        self.rank = rank  # processes must not draw the same noise
        return super().batches(data, recipe, batch_size=batch_size, rank=rank, world=world, device=device)

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor, step: int) -> Tensor:
        """Mean squared error of the velocity, of images (B, C, S, S) at times and noises drawn by the step."""
        seed = step_generator(self.seed, step, self.rank, "noise").initial_seed()
        generator = torch.Generator(inputs.device).manual_seed(seed)
        times = draw_times(len(inputs), generator)
        noise = torch.randn(inputs.shape, generator=generator, device=inputs.device) * self.head.noise
        dropped = torch.rand(len(inputs), generator=generator, device=inputs.device) < LABEL_DROP
        z = noisy(inputs, noise, times)
        seen = model(z, times, targets.masked_fill(dropped, len(self.classes))).float()
        return (velocity(seen, z, times) - velocity(inputs, z, times)).square().mean()

    def sample(
        self,
        model: nn.Module,
        labels: list[int],
        data_config: DataConfig,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 256,
        device: torch.device | str = "cpu",
    ) -> Iterator[Tensor]:
        """Images of the classes ``labels``, in batches (b, C, S, S) uint8 on the device.

        The n-th image of a class depends on (seed, class, n) and on nothing else that is asked for.
        """
        model.eval()
        size, head = data_config.img_size, self.head
        shape, made = (len(data_config.mean), size, size), Counter[int]()
        for start in range(0, len(labels), batch_size):
            part = labels[start : start + batch_size]
            draws = []
            for label in part:
                draws.append(torch.randn(shape, generator=step_generator(seed, made[label], label, "sample")))
                made[label] += 1
            images = sample(
                model,
                (head.noise * torch.stack(draws)).to(device),
                torch.tensor(part, device=device),
                steps=steps or head.steps,
                none=len(self.classes),
                guidance=guidance or head.guidance,
                interval=(head.guidance_from, head.guidance_to),
            )
            yield pixels_of(images, data_config)

    def evaluate(
        self,
        model: nn.Module,
        data: ImageSource | Packed,
        data_config: DataConfig,
        *,
        batch_size: int = 256,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> dict[str, Any]:
        """``samples`` images, the same number of each class, against all ``images`` of a set.

        {"fid"}, {"is"}, the counts, the {"fid_extractor"} that both belong to, {"steps"} and {"guidance"}.
        """
        if len(data) < 2:
            raise UserError(f"--data: FID needs at least two images, not {len(data)}")
        compare = Comparison(find_extractor(self.head.extractor), torch.device(device))
        for images, _ in images_of(data, data_config, batch_size, device, workers):
            compare.update(pixels_of(images, data_config), real=True)
        labels = [number % len(self.classes) for number in range(self.head.samples)]
        for made in self.sample(model, labels, data_config, batch_size=batch_size, device=device):
            compare.update(made, real=False)
        return compare.compute() | {
            "samples": self.head.samples,
            "images": len(data),
            "fid_extractor": compare.extractor.label,
            "steps": self.head.steps,
            "guidance": self.head.guidance,
        }

    def predict(
        self,
        model: nn.Module,
        images: ImageSource,
        data_config: DataConfig,
        *,
        top: int,
        device: torch.device,
        out: Path | None,
    ) -> list[dict[str, Any]]:
        """Raises UserError: there is nothing to see for a model that makes images."""
        raise UserError(
            "MODEL: was trained to generate images, not to look at them; use sweet generate MODEL --out DIR"
        )

    def pictures(
        self,
        model: nn.Module,
        data: ImageSource | Packed,
        data_config: DataConfig,
        metrics: Mapping[str, Any],
        out: Path,
        device: torch.device,
    ) -> None:
        """``samples.png``: a row of images for each of the first classes."""
        rows, each = min(len(self.classes), SHEET[0]), SHEET[1]
        labels = [label for label in range(rows) for _ in range(each)]
        images = torch.cat([part.cpu() for part in self.sample(model, labels, data_config, device=device)])
        title = f"FID {metrics['fid']:.2f} ({metrics['fid_extractor']})"
        contact_sheet(out / "samples.png", images, self.classes[:rows], title=title)


def pixels_of(images: Tensor, data_config: DataConfig) -> Tensor:
    """Normalised images (B, C, S, S) back to uint8."""
    mean, std = (
        torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (data_config.mean, data_config.std)
    )
    return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


TASK = Generate
