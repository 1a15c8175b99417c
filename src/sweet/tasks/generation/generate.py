"""Class-conditional images by pixel diffusion (JiT): velocity loss, FID and Inception score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sweet.data import BatchSource, ImageSet, ImageSource, step_generator
from sweet.errors import UserError
from sweet.storage.records import DataConfig
from sweet.tasks.labelled import Labelled, images_of
from sweet.tasks.pictures import contact_sheet
from sweet.tasks.registry import TASKS, measured_by
from sweet.tasks.task import EvalSettings, Metrics, Options, Row, TrainSettings
from sweet.template.image_size import sides

from .diffusion import draw_times, noisy, sample, velocity
from .extractor import BUNDLED, ImageQuality, find_extractor
from .jit import JiT

LABEL_DROP = 0.1  # share of the training images whose class the network does not get, for guidance
SHEET = (10, 8)  # most classes, and images of each, on a sheet


class GenerateOptions(Options):
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

    Options = GenerateOptions
    without_effect: ClassVar[tuple[str, ...]] = ("mixup", "cutmix", "label_smoothing", "data.scale_jitter")
    head: GenerateOptions

    cheap_to_evaluate = False
    rank, world = 0, 1  # of this process, see :class:`TrainSettings`

    def adapt(self, train: ImageSource, val: ImageSource) -> None:
        """Looks for the extractor: what is not there should be missed before the training. Raises UserError."""
        find_extractor(self.head.extractor)
        channels = train.pixel_format.channels
        if channels not in (1, 3):
            raise UserError(f"--task generate: makes images of 1 or 3 channels, the model takes {channels}")

    def network(self, vit: Any) -> nn.Module:
        if not hasattr(vit, "_pos_embed"):  # timm's Beit
            raise UserError("--task generate: not with a BEiT, whose relative positions are of its own tokens alone")
        return JiT(
            vit,
            len(self.classes),
            bottleneck=self.head.bottleneck,
            context=self.head.context,
            context_start=self.head.context_start,
            gate=self.head.gate,
        )

    def batches(self, data: ImageSet, settings: TrainSettings) -> BatchSource:
        self.rank, self.world = settings.rank, settings.world
        return super().batches(data, settings)

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor, step: int) -> Tensor:
        """Mean squared error of the velocity, of images (B, C, H, W) at times and noises drawn by the step."""
        seed = step_generator(self.seed, step, 0, "noise").initial_seed()
        generator = torch.Generator(inputs.device).manual_seed(seed)
        # drawn for the batch of all processes, so that their number changes no draw
        whole, mine = len(inputs) * self.world, slice(self.rank * len(inputs), (self.rank + 1) * len(inputs))
        times = draw_times(whole, generator)[mine]
        noise = torch.randn((whole, *inputs.shape[1:]), generator=generator, device=inputs.device)[mine]
        noise = noise * self.head.noise
        dropped = (torch.rand(whole, generator=generator, device=inputs.device) < LABEL_DROP)[mine]
        z = noisy(inputs, noise, times)
        seen = model(z, times, targets.masked_fill(dropped, len(self.classes))).float()
        return (velocity(seen, z, times) - velocity(inputs, z, times)).square().mean()

    def sample(
        self,
        model: nn.Module,
        labels: list[int],
        settings: EvalSettings,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Iterator[Tensor]:
        """Images of the classes ``labels``, in batches (b, C, H, W) uint8 on the device.

        The n-th image of a class depends on (seed, class, n) and on no other argument.
        """
        model.eval()
        config, head = settings.data_config, self.head
        shape, made = (len(config.mean), *sides(config.img_size)), Counter[int]()
        starts = range(0, len(labels), settings.batch_size)
        for start in settings.shown(starts, len(labels)):
            batch = labels[start : start + settings.batch_size]
            draws = []
            for label in batch:
                draws.append(torch.randn(shape, generator=step_generator(seed, made[label], label, "sample")))
                made[label] += 1
            images = sample(
                model,
                (head.noise * torch.stack(draws)).to(settings.device),
                torch.tensor(batch, device=settings.device),
                steps=steps or head.steps,
                none=len(self.classes),
                guidance=guidance or head.guidance,
                interval=(head.guidance_from, head.guidance_to),
            )
            yield pixels_of(images, config)

    def evaluate(self, model: nn.Module, data: ImageSet, settings: EvalSettings) -> Metrics:
        """``samples`` images, the same number of each class, against all images of a set: ``fid`` and ``is``.

        Both belong to the extractor in the notes. Raises UserError for a set of fewer than two images.
        """
        if len(data) < 2:
            raise UserError(f"--data: FID needs at least two images, not {len(data)}")
        head, quality = self.head, ImageQuality(find_extractor(self.head.extractor), torch.device(settings.device))
        for images, _ in images_of(data, settings):
            quality.update(pixels_of(images, settings.data_config), real=True)
        labels = [number % len(self.classes) for number in range(head.samples)]
        for made in self.sample(model, labels, settings):
            quality.update(made, real=False)
        counts = {"samples": head.samples, "steps": head.steps, "guidance": head.guidance}
        return Metrics(quality.compute() | counts, len(data), notes={"fid_extractor": quality.extractor.label})

    def predict(
        self, model: nn.Module, images: ImageSource, settings: EvalSettings, *, top: int, out: Path | None
    ) -> list[Row]:
        """Raises UserError: a model that makes images predicts nothing."""
        raise UserError(
            "MODEL: was trained to generate images, not to look at them; use sweet generate MODEL --out DIR"
        )

    def pictures(self, model: nn.Module, data: ImageSet, settings: EvalSettings, metrics: Metrics, out: Path) -> None:
        """``samples.png``: a row of images for each of the first classes."""
        rows, each = min(len(self.classes), SHEET[0]), SHEET[1]
        labels = [label for label in range(rows) for _ in range(each)]
        images = torch.cat([batch.cpu() for batch in self.sample(model, labels, settings)])
        fid = measured_by(TASKS["generate"], metrics.notes["fid_extractor"])
        title = f"{fid.label} {metrics.scores['fid']:.2f}"
        contact_sheet(out / "samples.png", images, self.classes[:rows], title=title)


def pixels_of(images: Tensor, data_config: DataConfig) -> Tensor:
    """Normalised images (B, C, H, W) back to uint8."""
    mean, std = (
        torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (data_config.mean, data_config.std)
    )
    return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


TASK = Generate
