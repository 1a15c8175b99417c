"""The networks whose features FID and the Inception score are computed from, and the two numbers (torchmetrics).

There are three: ``shapes32``, a small classifier that comes with sweet (``scripts/extractor`` trains it on synthetic
scenes); the folder of any classifier that sweet fine-tuned; ``inception``, the network of the published figures, where
its weights are at hand. Figures of different extractors cannot be compared, so each goes with the extractor's name and
checksum.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweet.data import normalise
from sweet.errors import UserError
from sweet.files import sha256
from sweet.models.device import own_draws
from sweet.storage.folders import load_model
from sweet.storage.layout import TENSORS
from sweet.template.image_size import sides

BUNDLED, INCEPTION = "shapes32", "inception"
INCEPTION_SUM = "6726825d"  # its SHA-256 begins so
INCEPTION_FILE = f"weights-inception-2015-12-05-{INCEPTION_SUM}.pth"  # the name under which torch-fidelity keeps it
SPLITS = 10  # of the Inception score


class Extractor(nn.Module):
    """Images (B, 3, H, W) uint8 -> features (B, F) and logits (B, K), float32; never trained.

    ``label`` is its name and the start of its weights' SHA-256.
    """

    label: str
    num_features: int

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class Classifier(Extractor):
    """A classifier that sweet trained; images of other sizes are resampled to its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        vit, record = load_model(folder)
        if record.task != "classify":
            raise UserError(f"{folder} is not a classifier (sweet finetune --task classify makes one)")
        self.vit: Any = vit.requires_grad_(False)
        self.data_config = record.data
        self.num_features = record.vit.width
        self.label = f"{folder.name} {sha256(folder / TENSORS['model'])[:12]}"

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        size = sides(self.data_config.img_size)
        images = pixels.float() / 255
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        features = self.vit.forward_features(normalise(images, self.data_config.mean, self.data_config.std))
        return self.vit.forward_head(features, pre_logits=True), self.vit.forward_head(features)


class Inception(Extractor):
    """Inception v3 of 2015 by torch-fidelity, as torchmetrics uses it. Raises UserError when it is not at hand."""

    num_features = 2048

    def __init__(self) -> None:
        super().__init__()
        from torchmetrics.image.fid import NoTrainInceptionV3

        file = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
        if not file.is_file():
            raise UserError(f"head.extractor={INCEPTION}: no file {file}, and nothing is downloaded unasked")
        found = sha256(file)
        if not found.startswith(INCEPTION_SUM):
            raise UserError(f"head.extractor={INCEPTION}: {file} is damaged, its SHA-256 begins with {found[:8]}")
        try:
            with _tensors_only():
                self.net = NoTrainInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(file))
        except ModuleNotFoundError:
            raise UserError(f"head.extractor={INCEPTION}: needs the package torch-fidelity") from None
        self.label = f"{INCEPTION} {found[:12]}"

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.net._torch_fidelity_forward(pixels)
        return features.flatten(1), logits


@contextmanager
def _tensors_only() -> Iterator[None]:
    """torch-fidelity would unpickle anything that the file holds; within the block torch refuses all but tensors."""
    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        yield
    finally:
        os.environ.pop(key)
        if before is not None:
            os.environ[key] = before


def find_extractor(name: str) -> Extractor:
    """The extractor that the option ``head.extractor`` names. Raises UserError when there is no such one."""
    if name == INCEPTION:
        return Inception().eval()
    bundled = name == BUNDLED
    try:
        return Classifier(Path(__file__).parent / BUNDLED if bundled else Path(name)).eval()
    except UserError as problem:
        raise UserError(f"head.extractor={name}: {problem}; expected {BUNDLED}, {INCEPTION} or DIR") from None


class _Given(nn.Identity):
    """Stands for the network inside a metric that takes features, not images."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


class ImageQuality:
    """FID and Inception score of generated images, from the features and logits of an extractor."""

    def __init__(self, extractor: Extractor, device: torch.device) -> None:
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.inception import InceptionScore

        self.extractor = extractor.to(device)
        self.frechet = FrechetInceptionDistance(feature=_Given(extractor.num_features)).to(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it keeps all logits: a few MB
            self.score = InceptionScore(feature=_Given(0), splits=SPLITS).to(device)

    @torch.no_grad()
    def update(self, pixels: Tensor, *, real: bool) -> None:
        """Add images (B, 1 or 3, H, W) uint8, ``real`` or generated."""
        with torch.autocast(pixels.device.type, enabled=False):
            features, logits = self.extractor(pixels.expand(-1, 3, -1, -1))
        self.frechet.update(features, real=real)
        if not real:
            self.score.update(logits)

    def compute(self) -> dict[str, float]:
        """``fid``: the Fréchet distance of two normal distributions; ``is``: the mean Inception score of ten splits."""
        with own_draws(0), warnings.catch_warnings():  # torchmetrics shuffles before it splits
            warnings.simplefilter("ignore")  # the spread of a single split
            score = float(self.score.compute()[0])
        return {"fid": round(float(self.frechet.compute()), 4), "is": round(score, 4)}
