"""Quick checks against brute force: image by image, neighbour by neighbour."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sweet.data import Packed, normalise, open_images, pack, step_generator
from sweet.inference import checks
from sweet.inference.checks import knn, mae_loss
from sweet.models.mae import reconstruct, sincos
from sweet.models.vit import build_vit
from sweet.storage.folders import StoredSource
from sweet.storage.records import DataConfig
from sweet.template.target import target_weights

DATA = DataConfig(img_size=16, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture(scope="module")
def images() -> Packed:
    return pack(open_images("shapes:n=40,size=16", "train"), 16)


@pytest.mark.parametrize("family", ["eva", "vit"])
def test_mae_loss_is_the_mean_over_images(
    family: str, images: Packed, make_source: Callable[..., StoredSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source(family, "none")
    config, mae = source.config.resized(2, 2), source.mae
    weights = target_weights(source.source, 2, config.width, order="prefix")
    found = mae_loss(weights, config, mae, images, DATA, seed=3)

    noise = torch.rand(len(images), 16, generator=step_generator(3, 0, 0, "held-out masks"))
    positions = sincos(4, mae.decoder_width)
    losses = []
    for pixels, draws in zip(images.images, noise, strict=True):
        batch = normalise(pixels[None], DATA.mean, DATA.std)
        losses.append(reconstruct(weights, batch, draws[None], config, mae, positions).loss.item())
    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-5)

    monkeypatch.setattr(checks, "BATCH", 7)
    assert mae_loss(weights, config, mae, images, DATA, seed=3) == pytest.approx(found, rel=1e-5)
    assert mae_loss(weights, config, mae, images, DATA, seed=4) != pytest.approx(found, rel=1e-5)
    bare = {name: value for name, value in weights.items() if not name.startswith("decoder.")}
    assert mae_loss(bare, config, mae, images, DATA) is None


class Pooled(nn.Module):
    """Features that are the images themselves."""

    def forward_features(self, images: Tensor) -> Tensor:
        return images

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        assert pre_logits
        return x


def by_hand(keys: Tensor, labels: Tensor, queries: Tensor, truth: Tensor, k: int, temperature: float) -> float:
    right = 0
    for query, label in zip(queries.tolist(), truth.tolist(), strict=True):
        cosines = []
        for key, known in zip(keys.tolist(), labels.tolist(), strict=True):
            dot = sum(a * b for a, b in zip(query, key, strict=True))
            cosines.append((dot / math.hypot(*query) / math.hypot(*key), known))
        votes: defaultdict[int, float] = defaultdict(float)
        for cosine, known in sorted(cosines, reverse=True)[:k]:
            votes[known] += math.exp(cosine / temperature)
        right += max(votes, key=votes.__getitem__) == label
    return 100 * right / len(queries)


def test_neighbours_are_those_of_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 6, generator=generator)
    labels, truth = (torch.randint(3, (n,), generator=generator) for n in (50, 31))
    keys, queries = (centres[y] + 1.5 * torch.randn(len(y), 6, generator=generator) for y in (labels, truth))
    train = list(zip(keys.split(20), labels.split(20), strict=True))
    test = list(zip(queries.split(8), truth.split(8), strict=True))
    found = set()
    for k, temperature in ((1, 0.07), (7, 0.07), (20, 1.0), (999, 0.5)):
        expected = by_hand(keys, labels, queries, truth, k, temperature)
        assert knn(Pooled(), train, test, k=k, temperature=temperature) == pytest.approx(expected)
        found.add(expected)
    assert len(found) > 1 and max(found) < 100


def test_a_near_vote_outweighs_two_that_are_far() -> None:
    keys, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1, 1])
    test = [(torch.tensor([[1.0, 0.2]]), torch.tensor([0]))]
    assert knn(Pooled(), [(keys, labels)], test, k=3) == 100
    assert knn(Pooled(), [(keys, labels)], test, k=3, temperature=100.0) == 0
    assert Counter(labels.tolist()).most_common(1)[0][0] == 1  # what plain counting would say


@pytest.mark.parametrize("family", ["eva", "vit"])
def test_features_are_the_mean_of_the_patch_tokens(family: str, make_source: Callable[..., StoredSource]) -> None:
    """A head that was put on the model changes nothing."""
    source = make_source(family, "none")
    weights = target_weights(source.source, 2, 16, order="prefix")
    vit = build_vit(source.config.resized(2, 2), weights, num_classes=4)
    generator = torch.Generator().manual_seed(0)
    pixels, labels = torch.randn(30, 3, 16, 16, generator=generator), torch.randint(4, (30,), generator=generator)
    with torch.no_grad():
        tokens = vit.forward_features(pixels)[:, 1:].mean(1)
    expected = by_hand(tokens[:20], labels[:20], tokens[20:], labels[20:], 5, 0.07)
    assert knn(vit.train(), [(pixels[:20], labels[:20])], [(pixels[20:], labels[20:])], k=5) == pytest.approx(expected)
