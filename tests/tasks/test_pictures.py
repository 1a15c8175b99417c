"""Pictures pixel by pixel: colours, places and sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sweet.data import IGNORE
from sweet.tasks import fonts
from sweet.tasks.pictures import contact_sheet, drawn, overlay, palette, save_grid, sheet_of_pairs, short


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("count", [1, 10, 11, 20, 21, 150])
def test_every_class_has_its_colour(count: int) -> None:
    colours = palette(count)
    assert colours.shape == (count, 3) and colours.dtype == np.uint8
    assert len({tuple(colour) for colour in colours.tolist()}) == count


def test_an_overlay_mixes_image_and_colours() -> None:
    image = Image.new("RGB", (3, 1), (100, 200, 50))
    mixed = overlay(image, np.array([[0, 1, IGNORE]], np.uint8), np.array([[255, 0, 0], [0, 0, 10]], np.uint8), 0.6)
    assert mixed.tolist() == [[[193, 80, 20], [40, 80, 26], [40, 80, 20]]]  # what has no class is dark


def test_boxes_stand_where_they_belong() -> None:
    image = Image.new("RGB", (40, 20), "white")
    picture = np.asarray(drawn(image, torch.tensor([[4.0, 6.0, 30.0, 16.0]]), [3], [""], None))
    colour = palette(10)[3].tolist()
    assert picture.shape == (20, 40, 3)
    assert picture[6:16, 4].tolist() == [colour] * 10 and picture[6, 4:30].tolist() == [colour] * 26
    assert (picture[8:15, 6:29] == 255).all() and (picture[:, 32:] == 255).all()
    larger = np.asarray(drawn(image, torch.tensor([[4.0, 6.0, 30.0, 16.0]]), [3], [""], None, side=80))
    assert larger.shape == (40, 80, 3) and larger[12:32, 8].tolist() == [colour] * 20


def test_a_mask_tints_its_pixels() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 2:5, 3:7] = True
    picture = np.asarray(drawn(Image.new("RGB", (8, 8), "black"), torch.zeros(0, 4), [1], [], mask))
    tint = (palette(10)[1] * 0.4).astype(np.uint8)
    assert abs(picture[2:5, 3:7].astype(int) - tint).max() <= 1
    assert picture[~mask[0].numpy()].sum() == 0


def test_pairs_side_by_side() -> None:
    red, blue = (Image.new("RGB", (20, 10), colour) for colour in ("red", "blue"))
    sheet = np.asarray(sheet_of_pairs([(red, blue)] * 3, ("left", "right"), 24))
    tile, gap = (10 + 22, 24), 4  # a caption of 22 pixels
    assert sheet.shape == (3 * (tile[0] + gap) + gap, 2 * (tile[1] + gap) + gap, 3)  # two in a row would leave a hole
    for column, colour in enumerate([(255, 0, 0), (0, 0, 255)]):
        left = gap + column * (tile[1] + gap)
        assert (sheet[gap + 22 : gap + 32, left : left + 20] == colour).all()
    even = sheet_of_pairs([(red, blue)] * 4, ("left", "right"), 24)
    assert even.size == (4 * (tile[1] + gap) + gap, 2 * (tile[0] + gap) + gap)


def test_names_of_boxes_can_be_read_and_lie_apart() -> None:
    """A plate in the colour of its box behind each name, 14 pixels high or more; two boxes in one place, two plates."""
    boxes = torch.tensor([[40.0, 60.0, 100.0, 120.0]] * 2)
    image = Image.new("RGB", (320, 320), (9, 9, 9))
    named, plain = (np.asarray(drawn(image, boxes, [0, 3], names, None)) for names in (["cat", "dog"], ["", ""]))
    changed = (named != plain).any(2)
    rows = np.flatnonzero(changed.any(1))
    assert rows.min() < 60 and len(rows) >= 2 * 14
    for label in (0, 3):
        plate = (named == palette(10)[label]).all(2) & changed
        assert plate.sum() > 100 and len(np.flatnonzero(plate.any(1))) >= 14
    assert not ((named == palette(10)[0]).all(2) & (named == palette(10)[3]).all(2)).any()


def test_what_no_font_can_draw_is_written_as_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = fonts.files()[0]
    assert fonts.visible("caf\u00e9 a\nb") == "caf\u00e9 a\\nb"
    for letter in fonts.PROBES:  # drawn where this machine has a font for it
        there = any(fonts.has(path, letter) for path in fonts.files())
        assert short(letter) == (letter if there else letter.encode("unicode_escape").decode())
        best = fonts.pillow_font(letter, 12)
        assert not there or fonts.has(str(best.path), letter)
    monkeypatch.setattr(fonts, "files", lambda: (plain,))
    assert short("\u82b1 daisy") == "\\u82b1 daisy"
    assert fonts.width("\u82b1a") == 3


def test_a_contact_sheet_keeps_every_pixel(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    contact_sheet(tmp_path / "sheet.png", images, ["a", "bb"], columns=["x", "y", "z"], title="six")
    sheet, zoom, gap = opened(tmp_path / "sheet.png"), 4, 2
    left, top = 14 + 7 * 2, 10 + 16 + 20  # names of rows, names of columns and the title
    assert sheet.shape == ((2 * (16 + gap) + gap) * zoom + top + 6, (3 * (16 + gap) + gap) * zoom + left + 6, 3)
    for number, image in enumerate(images):
        row, column = divmod(number, 3)
        y, x = top + zoom * (gap + row * (16 + gap)), left + zoom * (gap + column * (16 + gap))
        large = image.permute(1, 2, 0).repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
        found = sheet[y : y + 16 * zoom, x : x + 16 * zoom]
        assert (found == large.numpy()).mean() > 0.99  # the frame of the axes may touch a line


def test_a_grid_has_a_legend_of_its_colours(tmp_path: Path) -> None:
    colours = palette(3)
    pictures = [np.full((30, 40, 3), shade, np.uint8) for shade in (90, 150)]
    save_grid(tmp_path / "grid.png", [pictures], ["one", "two"], list(zip("abc", colours, strict=True)))
    grid = opened(tmp_path / "grid.png")
    assert grid.shape == (round(120 * (4 * 30 / 40 + 0.3 + 0.25)), 2 * 4 * 120, 3)
    for colour in (*colours.tolist(), [90] * 3, [150] * 3):
        assert (grid == colour).all(2).sum() > 50, colour
    halves = [(grid[100:300] == shade).all(2).nonzero()[1] for shade in (90, 150)]
    assert halves[0].max() < 480 < halves[1].min()
