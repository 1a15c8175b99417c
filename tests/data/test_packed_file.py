from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sweet.data import open_images, pack
from sweet.data.repack import pack_to
from sweet.errors import UserError
from sweet.files import read_tensors, write_tensors


def test_a_packed_file_is_a_source(tmp_path: Path) -> None:
    scenes, out = "shapes:n=40,size=16", tmp_path / "some.safetensors"
    report = pack_to(scenes, out, 16, per_class={"train": 2, "val": 1}, seed=5)
    assert report.images == {"train": 20, "val": 10} and report.bytes == out.stat().st_size
    stored = read_tensors(out)  # plain pixels
    assert [(name, tuple(value.shape), value.dtype) for name, value in sorted(stored.items())] == [
        ("train.images", (20, 3, 16, 16), torch.uint8), ("train.labels", (20,), torch.int64),
        ("val.images", (10, 3, 16, 16), torch.uint8), ("val.labels", (10,), torch.int64),
    ]  # fmt: skip
    whole, some = open_images(scenes, "train"), open_images(f"packed:{out}", "train")
    assert some.classes == whole.classes and some.labels is not None
    assert [some.labels.count(label) for label in range(10)] == [2] * 10
    known = {whole.decode(index).tobytes() for index in range(len(whole))}
    pixels = [some.decode(index).tobytes() for index in range(len(some))]
    assert len(set(pixels)) == 20 and set(pixels) <= known
    assert torch.equal(pack(some, 16).images, read_tensors(out)["train.images"])
    other = tmp_path / "other.safetensors"
    pack_to(scenes, other, 16, per_class={"train": 2}, seed=6)
    assert not torch.equal(read_tensors(other)["train.images"], read_tensors(out)["train.images"])
    assert set(read_tensors(other)) == {"train.images", "train.labels"}


def test_unlabelled_images_stay_unlabelled(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "plain.safetensors"
    pack_to(f"folder:{folder / 'ant' / 'more'}", out, 8)
    images = open_images(f"packed:{out}", "train", val_share=0)
    assert (len(images), images.labels, images.classes) == (1, None, None)


def test_bytes_are_kept_where_nothing_changes(
    tmp_path: Path, write_parquet: Callable[..., Path], make_image: Callable[..., Image.Image]
) -> None:
    import io

    jpegs = []
    for number, width in enumerate((8, 8, 12)):
        buffer = io.BytesIO()
        make_image(number, width, 8).save(buffer, format="JPEG")
        jpegs.append(buffer.getvalue())
    write_parquet(tmp_path / "set" / "train.parquet", [0, 1, 1], images=jpegs)
    pack_to(f"parquet:{tmp_path / 'set'}", tmp_path / "out", 8, per_class={"train": 2})
    images = open_images(f"parquet:{tmp_path / 'out'}", "train", val_share=0)
    assert [images.stored(index) == jpegs[index] for index in range(3)] == [True, True, False]
    assert images.labels == [0, 1, 1] and images.size(2) == (8, 8)
    assert np.asarray(images.decode(0)).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("packed:nowhere.safetensors", "--data packed:nowhere.safetensors: no such file"),
        ("packed:text.safetensors", "not a safetensors file"),
        ("packed:weights.safetensors", "holds no images; make one with sweet data pack"),
        ("packed:floats.safetensors", "train.images is torch.float32 (2, 3, 4, 4), expected uint8"),
    ],
)
def test_what_is_no_packed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.safetensors").write_text("no tensors")
    write_tensors(Path("weights.safetensors"), {"weight": torch.zeros(2)})
    write_tensors(Path("floats.safetensors"), {"train.images": torch.zeros(2, 3, 4, 4)})
    with pytest.raises(UserError) as caught:
        open_images(spec, "train")
    assert message in str(caught.value)


def test_a_split_or_label_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(UserError, match=r"--per-class dev=N: shapes:n=40 has no such split, it has train, val"):
        pack_to("shapes:n=40", out, 8, per_class={"dev": 2})
    with pytest.raises(UserError, match=r"--per-class: .* has no class labels"):
        pack_to(f"folder:{folder / 'ant' / 'more'}", out, 8, per_class={"train": 2})
    assert not out.exists()
