"""Predict on what people name: files, folders, patterns; what cannot be read, and how sure is sure enough."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from sweet.cli import app
from sweet.data import open_images
from sweet.errors import UserError
from sweet.inference.evaluate import predict
from sweet.tasks.detection.detect import Detect
from sweet.tasks.multilabel.multilabel import MultiLabel
from sweet.tasks.segmentation.segment import Segment
from sweet.tasks.task import EvalSettings


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images, one of them below, and one file that is none."""
    val = open_images("shapes:n=64,size=16", "val")
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for index, name in enumerate(("a.png", "b.jpg", "more/c.png")):
        val.decode(index).save(tmp_path / "photos" / name)  # type: ignore[union-attr]
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    return tmp_path / "photos"


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, words), "--device", "cpu", "--json"])


def names(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [Path(row["image"]).name for row in json.loads(result.stdout)]


def test_folders_patterns_and_what_cannot_be_read(classifier: Path, photos: Path) -> None:
    whole = run(classifier, photos, "--top", 1)
    assert sorted(names(whole)) == ["a.png", "b.jpg", "c.png"]
    assert "warning:" in whole.stderr and "broken.png" in whole.stderr and "left out" in whole.stderr
    assert names(run(classifier, f"{photos}/*.jpg", photos / "more", "--top", 1)) == ["b.jpg", "c.png"]
    assert sorted(names(run(classifier, f"{photos}/**/[ac].png", "--top", 1))) == ["a.png", "c.png"]
    whole = run(classifier, f"{photos}/**", "--top", 1)  # the folder, the one in it, and all files
    assert sorted(names(whole)) == ["a.png", "b.jpg", "c.png"] and whole.stderr.count("broken.png: ") == 1
    (photos / "odd[1].png").write_bytes((photos / "a.png").read_bytes())
    assert names(run(classifier, photos / "odd[1].png", "--top", 1)) == ["odd[1].png"]


def test_a_validation_split_that_is_drawn_is_said(classifier: Path, tmp_path: Path) -> None:
    """A path one level too deep has no splits: what is measured is a share of it."""
    train = open_images("shapes:n=128,size=16", "train")
    for index, label in enumerate(train.labels or []):
        folder = tmp_path / "deep" / (train.classes or [])[label]
        folder.mkdir(parents=True, exist_ok=True)
        train.decode(index).save(folder / f"{index}.png")  # type: ignore[union-attr]
    words = ["evaluate", str(classifier), "--data", f"folder:{tmp_path / 'deep'}", "--device", "cpu", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    images = json.loads(result.stdout)["images"]
    assert f"has no val split: {images} of its images, drawn by seed 0, stand in" in result.stderr and images < len(
        train
    )


@pytest.mark.parametrize(
    ("word", "message"),
    [("*.gif", "no such file or folder"), ("broken.png", "not a readable image"), ("none", "holds no images")],
)
def test_nothing_to_predict(classifier: Path, photos: Path, word: str, message: str) -> None:
    (photos / "none").mkdir()
    result = run(classifier, photos / word)
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1


def test_a_threshold_for_classes(classifier: Path, photos: Path) -> None:
    every = predict(classifier, [photos / "a.png"], 99, "cpu")
    scores = sorted(float(row["probability"]) for row in every)
    gap, middle = max((high - low, (high + low) / 2) for low, high in pairwise(scores))
    assert gap > 1e-4  # the rows are rounded
    some = predict(classifier, [photos / "a.png"], 99, "cpu", threshold=middle)
    assert some == [row for row in every if float(row["probability"]) >= middle] and 0 < len(some) < len(every)


def test_how_many_boxes_are_above_it(tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        """Finds two boxes, one of them nearly sure."""

        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            boxes = torch.tensor([[0.0, 0, 8, 8], [2, 2, 9, 9]])
            one = {"boxes": boxes, "scores": torch.tensor([0.9, 0.2]), "labels": torch.tensor([0, 1])}
            return [one for _ in images]

    images = open_images("shapes:n=64,size=16", "val").select([0, 1])
    shape = {"img_size": 16, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    from sweet.storage.records import DataConfig

    def found(threshold: float | None) -> tuple[int, str]:
        task = Detect(["a", "b"])
        settings = EvalSettings(DataConfig.model_validate(shape), threshold=threshold)
        rows = task.predict(Two(), images, settings, top=100, out=tmp_path / str(threshold))
        return len(rows), task.notes[0]

    assert found(None) == (4, "2 of 4 boxes above 0.5, in 2 images")
    assert found(0.95) == (0, "0 of 4 boxes above 0.95, in 2 images")
    assert found(0.1) == (4, "4 of 4 boxes above 0.1, in 2 images")
    with Image.open(next((tmp_path / "0.95").iterdir())) as bare, Image.open(next((tmp_path / "0.1").iterdir())) as two:
        assert bare.tobytes() != two.tobytes()


def test_other_tasks() -> None:
    from sweet.storage.records import DataConfig

    data = DataConfig(img_size=16, mean=(0.5,) * 3, std=(0.25,) * 3, thresholds=[0.9, 0.9])
    images = open_images("shapes:n=64,size=16", "val").select([0])
    with pytest.raises(UserError, match=r"--threshold 0.5: has no meaning for a segmenter"):
        Segment(["a", "b"]).predict(torch.nn.Identity(), images, EvalSettings(data, threshold=0.5), top=5, out=None)

    class Sure(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.0, 1.0]]).expand(len(images), 2)  # probabilities 0.5 and 0.73

    tags = MultiLabel(["a", "b"])
    assert tags.predict(Sure(), images, EvalSettings(data), top=5, out=None) == []
    (row,) = tags.predict(Sure(), images, EvalSettings(data, threshold=0.6), top=5, out=None)
    assert (row["class"], row["threshold"]) == ("b", 0.6)
