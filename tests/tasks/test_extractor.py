"""FID and Inception score where the answer is known, and what the bundled extractor is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from sweet.data import open_images, packed
from sweet.data.packed import Packed
from sweet.errors import UserError
from sweet.files import check_sums, sha256
from sweet.tasks.generation import extractor
from sweet.tasks.generation.extractor import BUNDLED, Extractor, ImageQuality, find_extractor

CPU = torch.device("cpu")
FOLDER = Path(extractor.__file__).parent / BUNDLED


class Table(Extractor):
    """Sees whatever row of a table the first pixel names."""

    label = "table"

    def __init__(self, features: Tensor, logits: Tensor) -> None:
        super().__init__()
        self.rows, self.answers, self.num_features = features, logits, features.shape[1]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        rows = pixels[:, 0, 0, 0].long()
        return self.rows[rows], self.answers[rows]


def numbered(start: int, stop: int) -> Tensor:
    return torch.arange(start, stop, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)


def exactly_normal(count: int, mean: Tensor, std: Tensor, seed: int) -> Tensor:
    """(count, F) whose sample mean and covariance are ``mean`` and diag(std^2), not only nearly."""
    draws = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    draws = draws - draws.mean(0)
    white = torch.linalg.qr(draws).Q * (count - 1) ** 0.5
    return (white * std + mean).float()


def test_the_distance_of_two_normal_distributions() -> None:
    means, stds = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, 0.0]]), torch.tensor([[1.0, 2.0, 0.5], [3.0, 2.0, 1.0]])
    features = torch.cat([exactly_normal(100, m, s, i) for i, (m, s) in enumerate(zip(means, stds, strict=True))])
    compare = ImageQuality(Table(features, torch.zeros(200, 5)), CPU)
    for start in (0, 40):  # in batches
        compare.update(numbered(start, min(start + 60, 100)) if start == 0 else numbered(60, 100), real=True)
    compare.update(numbered(100, 200), real=False)
    found = compare.compute()
    # ||m1 - m2||^2 + sum (s1 - s2)^2 for diagonal covariances
    assert found["fid"] == pytest.approx(5.0 + 4.25, rel=1e-4)
    assert found["is"] == pytest.approx(1.0)  # every class is equally likely for every image


def test_the_score_of_confident_and_even_answers_is_the_number_of_classes() -> None:
    logits = 50.0 * torch.eye(4).repeat(50, 1)
    compare = ImageQuality(Table(torch.randn(200, 2), logits), CPU)
    compare.update(numbered(0, 200), real=True)
    compare.update(numbered(0, 200), real=False)
    assert 3.5 < compare.compute()["is"] <= 4.0
    one = ImageQuality(Table(torch.randn(200, 2), logits[:1].repeat(200, 1)), CPU)
    one.update(numbered(0, 200), real=True)
    one.update(numbered(0, 200), real=False)
    assert one.compute()["is"] == pytest.approx(1.0)


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    """Two halves of real images."""
    scenes = packed(open_images("shapes:n=400,size=32,seed=5", "train"), 32)
    assert isinstance(scenes, Packed)
    return scenes.images[:200], scenes.images[200:]


def distance(real: Tensor, made: Tensor) -> float:
    compare = ImageQuality(find_extractor(BUNDLED), CPU)
    compare.update(real, real=True)
    compare.update(made, real=False)
    return compare.compute()["fid"]


def test_it_is_torchmetrics_on_our_features(images: tuple[Tensor, Tensor]) -> None:
    class Features(nn.Module):
        num_features = find_extractor(BUNDLED).num_features

        def forward(self, pixels: Tensor) -> Tensor:
            return find_extractor(BUNDLED)(pixels)[0]

    theirs = FrechetInceptionDistance(feature=Features())
    for half, real in zip(images, (True, False), strict=True):
        theirs.update(half, real=real)
    assert distance(*images) == pytest.approx(float(theirs.compute()), abs=1e-3)


def test_worse_images_are_further_away(images: tuple[Tensor, Tensor]) -> None:
    real, other = images
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(other.shape, generator=random)
    noisy = [distance(real, (other + level * noise).clamp(0, 255).to(torch.uint8)) for level in (0, 20, 60, 120)]
    print(noisy)
    assert distance(real, real) == pytest.approx(0, abs=1e-3)
    assert noisy[0] < noisy[1] < noisy[2] < noisy[3]
    blurred = nn.functional.avg_pool2d(other.float(), 5, 1, 2, count_include_pad=False).to(torch.uint8)
    assert distance(real, blurred) > 2 * noisy[0]


def test_the_bundled_extractor() -> None:
    found = find_extractor(BUNDLED)
    assert check_sums(FOLDER) and all(check_sums(FOLDER).values())
    assert found.label == f"{BUNDLED} {sha256(FOLDER / 'model.safetensors')[:12]}"
    assert sum(parameter.numel() for parameter in found.parameters()) == 115_898
    assert not any(parameter.requires_grad for parameter in found.parameters())
    small, grey = torch.zeros(2, 3, 20, 20, dtype=torch.uint8), torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    features, logits = found(small)
    assert features.shape == (2, found.num_features) and logits.shape == (2, 10)
    compare = ImageQuality(found, CPU)
    compare.update(grey, real=True)


def test_a_classifier_of_ones_own(classifier: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_extractor(str(classifier))
    assert found.label.startswith(f"{classifier.name} ")
    assert found(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))[0].shape == (2, 16)
    for name, why in ((str(model), "is not a classifier"), ("nowhere", "no such folder"), ("inception", "no file")):
        monkeypatch.setattr("torch.hub.get_dir", lambda: "nowhere")
        with pytest.raises(UserError, match=f"head.extractor={name}: .*{why}"):
            find_extractor(name)
