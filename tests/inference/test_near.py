"""Embeddings with the names of their images; neighbours by cosine, against a table of all of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sweet.data import open_images
from sweet.errors import UserError
from sweet.inference import near as near_module
from sweet.inference.embed import embed
from sweet.inference.near import near
from sweet.storage.records import read_record


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve scenes, one of them twice."""
    root, scenes = tmp_path_factory.mktemp("photos"), open_images("shapes:n=12,size=16", "train")
    for index in range(12):
        scenes.decode(index).save(root / f"{index:02d}.png")
    shutil.copy(root / "03.png", root / "twin.png")
    return root


@pytest.fixture(scope="module")
def embedded(model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embedded") / "e.parquet"
    embed(model, f"folder:{photos}", out, "train", 5, "cpu")
    return out


def test_names_stand_beside_the_vectors(embedded: Path, photos: Path, model: Path) -> None:
    table = pq.read_table(embedded)
    images = open_images(f"folder:{photos}", "train", val_share=0)
    assert table.num_rows == 13  # none is kept back for a validation
    assert table["image"].to_pylist() == [images.where(index) for index in range(len(images))]
    assert {len(vector) for vector in table["embedding"]} == {read_record(model, ("model",)).vit.width}


@pytest.mark.parametrize("rows", [3, 1024])
def test_pairs_are_those_of_the_whole_table(embedded: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(near_module, "AT_ONCE", rows)
    table = pq.read_table(embedded)
    names, vectors = table["image"].to_pylist(), np.array(table["embedding"].to_pylist())
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    pairs = [(cosines[i, j], names[i], names[j]) for i in range(len(names)) for j in range(i + 1, len(names))]
    expected = sorted(pairs, reverse=True)[:9]
    found = near(embedded, query=None, model=None, top=9)
    assert [row["cosine"] for row in found] == pytest.approx([pair[0] for pair in expected], abs=2e-5)
    assert found[0]["cosine"] == pytest.approx(1, abs=1e-5)
    assert {"03", "twin"} == {Path(str(found[0][key])).stem for key in ("image", "other")}
    assert len(near(embedded, query=None, model=None, top=10_000)) == len(pairs)


def test_neighbours_of_an_image(embedded: Path, photos: Path, model: Path) -> None:
    found = near(embedded, query=photos / "twin.png", model=model, top=3, device="cpu")
    assert len(found) == 3
    names = [Path(str(row["image"])).stem for row in found if row["cosine"] >= 0.99999]  # type: ignore[operator]
    assert set(names) & {"03", "twin"}


def test_a_query_is_read_as_the_model_reads_images(model: Path, tmp_path: Path) -> None:
    """Resized by the model's own interpolation."""
    random = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / f"{name}.png")
    embed(model, f"folder:{tmp_path}", tmp_path / "e.parquet", "train", 2, "cpu")
    found = near(tmp_path / "e.parquet", query=tmp_path / "b.png", model=model, top=1, device="cpu")
    assert found == [{"image": str(tmp_path / "b.png"), "cosine": 1.0}]


def test_what_it_refuses(embedded: Path, photos: Path, classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--query and --model: go together"):
        near(embedded, query=photos / "00.png", model=None, top=3)
    with pytest.raises(UserError, match="was made by another model"):
        near(embedded, query=photos / "00.png", model=classifier, top=3, device="cpu")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(UserError, match=r"text.parquet: not a parquet file"):
        near(tmp_path / "text.parquet", query=None, model=None, top=3)
    pq.write_table(pa.table({"embedding": [[1.0]]}), tmp_path / "old.parquet")
    with pytest.raises(UserError, match=r"old.parquet: has no column image; write it anew with sweet embed"):
        near(tmp_path / "old.parquet", query=None, model=None, top=3)
    for column in ([[1.0, 2.0], [1.0]], ["a", "b"], [[1.0], None], [[], []], [[1.0], [float("nan")]]):
        pq.write_table(pa.table({"image": ["a", "b"], "embedding": column}), tmp_path / "odd.parquet")
        with pytest.raises(UserError, match=r"odd.parquet: column embedding does not hold one vector of numbers an"):
            near(tmp_path / "odd.parquet", query=None, model=None, top=3)
