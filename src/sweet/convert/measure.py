"""What a conversion lost: relative errors of the weights and of the final features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from sweet.models.config import ViTConfig
from sweet.models.forward import encode, patchify
from sweet.storage.records import WeightError
from sweet.template.order import Order
from sweet.template.slices import FC1, FC2, PROJ, QKV, stack_blocks
from sweet.template.source import Source
from sweet.template.target import target_weights
from sweet.template.tucker import Full

COMPARED = 64  # images on which features are compared, at most


def second_moment(order: Order) -> Tensor:
    """E[u u^T] (D, D) over all norm inputs: the order's rotation is made of its eigenvectors."""
    return (order.rotation * order.energy.mean(0)) @ order.rotation.t()


def slice_errors(dense: Source, template: Source) -> WeightError:
    """Relative Frobenius error of the block matrices of ``template``: overall, of each component, of each layer."""
    assert isinstance(dense.core, Full)
    rebuilt = _components(stack_blocks(_full_size(template), dense.depth), dense.mlp)
    difference, norms = {}, {}
    for name, value in _components(dense.core.weights, dense.mlp).items():
        norms[name] = value.square().sum((1, 2))
        difference[name] = (rebuilt[name] - value).square().sum((1, 2))
    lost, all_of = torch.stack([*difference.values()]), torch.stack([*norms.values()])

    def relative(error: Tensor, norm: Tensor) -> float:
        return float(f"{(error.sum() / norm.sum().clamp_min(1e-30)).sqrt().item():.4g}")

    return WeightError(
        overall=relative(lost, all_of),
        components={name: relative(difference[name], norms[name]) for name in norms},
        layers=[relative(lost[:, i], all_of[:, i]) for i in range(dense.depth)],
    )


@torch.no_grad()
def feature_error(
    dense: Source, template: Source, config: ViTConfig, batches: Iterable[Tensor], device: torch.device
) -> float:
    """Relative error of the template's features after the final norm, all tokens of the first images of ``batches``.

    ``batches`` are normalised images (B, C, H, W).
    """
    ours, theirs = ({k: v.to(device) for k, v in _full_size(s).items()} for s in (template, dense))
    lost, whole, seen = 0.0, 0.0, 0
    for images in batches:
        if seen >= COMPARED:
            break
        patches = patchify(images, config.patch_size)
        expected = encode(theirs, patches, config)
        lost += float((encode(ours, patches, config) - expected).square().sum())
        whole += float(expected.square().sum())
        seen += len(images)
    return float(f"{(lost / whole) ** 0.5:.4g}")


def _full_size(source: Source) -> dict[str, Tensor]:
    return target_weights(replace(source, order=None), source.depth, source.width, order="prefix", layers="first")


def _components(weights: Mapping[str, Tensor], mlp: str) -> dict[str, Tensor]:
    attention = dict(zip("qkv", weights[QKV].chunk(3, 1), strict=True)) | {"o": weights[PROJ]}
    if mlp == "swiglu":
        gate, up = weights[FC1].chunk(2, 1)
        return attention | {"gate": gate, "up": up, "down": weights[FC2]}
    return attention | {"fc1": weights[FC1], "fc2": weights[FC2]}
