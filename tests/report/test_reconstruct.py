"""Pictures of hidden patches: put back where they were, in the colours they had."""

from __future__ import annotations

import torch

from sweet.models.forward import patchify
from sweet.models.mae import patch_targets
from sweet.report.reconstruct import filled, sheet, sizes_shown, unnormalised


def test_true_patches_give_the_image_back() -> None:
    images = torch.randn(2, 3, 16, 16)
    masked = torch.tensor([[0, 5, 15], [3, 2, 9]])
    patches = patchify(images, 4)
    true = patches.gather(1, masked[..., None].expand(-1, -1, 48))
    assert torch.equal(filled(images, masked, true, 4), images)
    predicted = patch_targets(patches, True).gather(1, masked[..., None].expand(-1, -1, 48))
    torch.testing.assert_close(unnormalised(images, masked, predicted, 4, True), true)
    grey = filled(images, masked, torch.zeros_like(true), 4)
    assert (grey[0, :, :4, :4] == 0).all() and (grey[0, :, 4:8, 4:8] == 0).all()
    assert torch.equal(grey[1, :, :4, :4], images[1, :, :4, :4])


def test_sheet() -> None:
    black, white = torch.full((2, 3, 32, 32), -2.0), torch.full((2, 3, 32, 32), 2.0)
    made = sheet([black, white], {"mean": [0.5] * 3, "std": [0.25] * 3})
    assert (made.size, made.getpixel((0, 0)), made.getpixel((127, 127))) == ((128, 128), (0, 0, 0), (255, 255, 255))


def test_sizes() -> None:
    assert sizes_shown(12, 12) == [(12, 12), (12, 6), (6, 12), (6, 6), (3, 3)]
    assert sizes_shown(1, 1) == [(1, 1)]
