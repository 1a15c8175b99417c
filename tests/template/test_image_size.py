"""One number is a square, two are height and width; everything else is refused with its value."""

from __future__ import annotations

import pytest

from sweet.template.image_size import joined, read_image_size, sides, size_text, whole_patches


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        *[(96, 96), ("96", 96), (1, 1), ("16384x1", (16384, 1)), ("96x160", (96, 160))],
        *[([96, 160], (96, 160)), ((96, 160), (96, 160)), ([32, 32], 32), ("32x32", 32), ([16], 16)],
    ],
)
def test_what_is_a_size(given: object, expected: object) -> None:
    size = read_image_size(given)
    assert size == expected
    assert read_image_size(size_text(size)) == joined(*sides(size)) == size


@pytest.mark.parametrize(
    "given",
    [
        *[0, -4, 16385, True, 16.0, None, {"height": 16}, [], [16, 24, 3], [16, 0], [16, "24"], [True, 16]],
        *["", "x", "16x", "x24", "16x0", "16x24x3", "16,24", "16 x 24", " 16", "1" * 30],
    ],
)
def test_what_is_none(given: object) -> None:
    with pytest.raises(ValueError, match="should be pixels from 1 to 16384, or height and width, got"):
        read_image_size(given)


def test_both_sides_must_be_whole_patches() -> None:
    assert whole_patches((16, 24), 8) and whole_patches(16, 8)
    assert not whole_patches((16, 20), 8) and not whole_patches((20, 16), 8)
