from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sweet.data import open_images, pack
from sweet.data.decode import PixelFormat
from sweet.data.repack import pack_to
from sweet.errors import UserError
from sweet.files import read_tensors, write_tensors
from sweet.template.image_size import ImageSize, sides


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


def test_splits_of_different_classes(tmp_path: Path, make_image: Callable[..., Image.Image]) -> None:
    """All splits of the file have one list of classes; a split may lack some, but has none of its own."""

    def write(split: str, names: list[str]) -> None:
        categories = [{"id": number, "name": name} for number, name in enumerate(names)]
        objects = [{"id": 1, "image_id": 1, "category_id": len(names) - 1, "bbox": [0, 0, 4, 4]}]
        entries = [{"id": 1, "file_name": "a.png", "width": 12, "height": 10}]
        values = {"images": entries, "categories": categories, "annotations": objects}
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(values))

    for name in ("annotations", "images"):
        (tmp_path / name).mkdir()
    make_image(0).save(tmp_path / "images" / "a.png")
    write("train", ["ant", "bee", "cow"])
    write("val", ["cow"])
    out = tmp_path / "out.safetensors"
    pack_to(f"coco:{tmp_path}", out, 8)
    for split in ("train", "val"):
        images = open_images(f"packed:{out}", split)
        assert images.classes == ["ant", "bee", "cow"] and images.label_lists == [[2]]
    write("val", ["dog"])
    with pytest.raises(UserError, match=r"val of coco:.* has other classes than another split"):
        pack_to(f"coco:{tmp_path}", out, 8)


def test_unlabelled_images_stay_unlabelled(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plain.safetensors"
    pack_to(f"folder:{folder / 'ant' / 'more'}", out, 8)
    images = open_images(f"packed:{out}", "train", val_share=0)
    assert (len(images), images.labels, images.classes) == (1, None, None)
    assert capsys.readouterr().err == ""


def test_boxes_and_masks_are_left_out_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack_to("shapes:n=10,size=16", tmp_path / "out", 16)
    images = open_images(f"parquet:{tmp_path / 'out'}", "train")
    assert not images.has_boxes and images.mask_classes is None and images.labels is not None
    assert "note: shapes:n=10,size=16: boxes and masks are not kept" in capsys.readouterr().err


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


@pytest.mark.parametrize("form", ["out", "out.safetensors"])
def test_lists_of_labels_are_kept_in_every_split(
    tmp_path: Path, form: str, make_image: Callable[..., Image.Image]
) -> None:
    """The images of val have one label each: lists all the same, as those of train are."""
    for number in range(5):
        make_image(number).save(tmp_path / f"{number}.png")
    rows = ["image,labels,split", "0.png,b;a,train", "1.png,,train", "2.png,c,train", "3.png,c,val", "4.png,a,val"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    pack_to(f"csv:{tmp_path}", tmp_path / form, 8)
    spec = f"{'packed' if form.endswith('s') else 'parquet'}:{tmp_path / form}"
    train, val = open_images(spec, "train"), open_images(spec, "val")
    assert (train.label_lists, train.classes) == ([[0, 1], [], [2]], ["a", "b", "c"])
    assert (val.label_lists, val.classes) == ([[2], [0]], ["a", "b", "c"])
    assert train.labels is None and val.labels is None
    packed = pack(train, 8)
    assert packed.labels is not None and packed.labels.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("form", ["out", "out.safetensors"])
@pytest.mark.parametrize(("channels", "kind"), [(2, np.uint8), (5, np.uint16), (12, np.float32)])
def test_all_channels_are_kept(tmp_path: Path, form: str, channels: int, kind: type[np.generic]) -> None:
    top = {np.uint8: 255, np.uint16: 4000, np.float32: 40}[kind]
    values = (np.random.default_rng(0).random((16, 20, channels)) * top).astype(kind)
    np.save(tmp_path / "0.npy", values)
    spec, value_range = f"folder:{tmp_path}", None if kind is np.uint8 else (0.0, float(top))
    pack_to(spec, tmp_path / form, (16, 20), value_range=value_range)
    images = open_images(f"{'packed' if form.endswith('s') else 'parquet'}:{tmp_path / form}", "train", val_share=0)
    expected = np.clip(np.round(values.astype(np.float64) * 255 / top), 0, 255).astype(np.uint8)
    assert np.array_equal(np.asarray(images.read_as(PixelFormat(channels)).decode(0)), expected)
    if kind is np.float32:
        with pytest.raises(UserError, match="in packing --value-range LOW,HIGH"):
            pack_to(spec, tmp_path / "no", 8)


@pytest.mark.parametrize("size", [(8, 20), (20, 8), 10])
def test_any_shape(tmp_path: Path, size: ImageSize, make_image: Callable[..., Image.Image]) -> None:
    make_image(3, 40, 30).save(tmp_path / "0.png")
    pack_to(f"folder:{tmp_path}", tmp_path / "out.safetensors", size)
    assert read_tensors(tmp_path / "out.safetensors")["train.images"].shape == (1, 3, *sides(size))
