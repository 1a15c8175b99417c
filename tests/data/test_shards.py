"""Tar shards: every image once in an epoch, whoever reads it; damage has a name."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from sweet.convert.checkpoints import Checkpoint
from sweet.convert.order_images import OrderImages
from sweet.data import Batches, Skips, open_images
from sweet.data.epoch_order import WINDOW, ShardOrder
from sweet.data.identity import identity
from sweet.data.shards import ShardImages, list_shard
from sweet.errors import UserError
from sweet.files import cache_folder
from sweet.models.config import ViTConfig
from sweet.storage.records import DataConfig

SHARDS, EACH = 5, 12


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def write(folder: Path, split: str = "train", *, labels: bool = True, shards: int = SHARDS) -> Path:
    """Image n of the set is of the colour (n, 0, 255) and of class n % 3."""
    folder.mkdir(exist_ok=True)
    for shard in range(shards):
        with tarfile.open(folder / f"{split}-{shard:04d}.tar", "w") as archive:
            for row in range(EACH):
                number = shard * EACH + row
                buffer = io.BytesIO()
                Image.new("RGB", (9, 8), (number, 0, 255)).save(buffer, format="PNG")
                add(archive, f"a/{number:06d}.png", buffer.getvalue())
                add(archive, f"a/{number:06d}.json", b"{}")
                if labels:
                    add(archive, f"a/{number:06d}.cls", str(number % 3).encode())
    return folder


def numbers(pixels: torch.Tensor) -> list[int]:
    return [round(255 * value) for value in pixels[:, 0, 0, 0].tolist()]


def batches(folder: Path, **options: object) -> Batches:
    images = open_images(f"wds:{folder}", "train", val_share=0)
    shape = {"img_size": 8, "augment": "none", "mean": (0.0,) * 3, "std": (1.0,) * 3, "seed": 7, "batch_size": 6}
    return Batches(images, **(shape | options))  # type: ignore[arg-type]


def test_images_labels_and_names(tmp_path: Path) -> None:
    images = open_images(f"wds:{write(tmp_path / 'set')}", "train", val_share=0)
    assert len(images) == SHARDS * EACH and images.classes == ["0", "1", "2"]
    assert images.labels == [number % 3 for number in range(SHARDS * EACH)]
    assert images.decode(37).getpixel((3, 3)) == (37, 0, 255)  # type: ignore[union-attr]
    assert images.where(37).endswith("train-0003.tar a/000037.png")
    (tmp_path / "set" / "classes.txt").write_text("ant\nbee\ncat\n")
    assert open_images(f"wds:{tmp_path / 'set'}", "train", val_share=0).classes == ["ant", "bee", "cat"]


def test_every_image_once_an_epoch_by_two_ranks_and_two_workers(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    epoch = [
        batches(folder, batch_size=5, rank=rank, world=2, workers=2).iterate(0, SHARDS * EACH // 10)
        for rank in range(2)
    ]
    seen = [number for rank in epoch for pixels, _ in rank for number in numbers(pixels)]
    assert sorted(seen) == list(range(SHARDS * EACH))
    assert seen != sorted(seen)


def test_a_batch_does_not_depend_on_who_reads_it_and_where_it_begins(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    alone = [(numbers(pixels), labels) for pixels, labels in batches(folder).iterate(0, 25)]
    halves = [[*batches(folder, batch_size=3, rank=rank, world=2).iterate(13, 25)] for rank in range(2)]
    for step, ((whole, labels), first, second) in enumerate(zip(alone[13:], *halves, strict=True)):
        assert whole == numbers(first[0]) + numbers(second[0]), step
        assert labels is not None and labels.tolist() == [number % 3 for number in whole]
    assert sorted(alone[0][0]) != sorted(alone[10][0])  # another epoch


@pytest.mark.parametrize("counts", [[100] * 7, [1, 2 * WINDOW + 9, 3, 70], [3], [1] * 200])
@pytest.mark.parametrize(("batch_size", "world"), [(64, 1), (32, 2), (5, 3), (12, 1)])
def test_orders_of_uneven_shards(counts: list[int], batch_size: int, world: int) -> None:
    orders = [ShardOrder(counts, batch_size=batch_size, seed=1, rank=rank, world=world) for rank in range(world)]
    total, batch = sum(counts), batch_size * world
    for epoch in range(2):
        first = epoch * orders[0].steps_per_epoch
        steps = [[order.indices(first + step) for order in orders] for step in range(orders[0].steps_per_epoch)]
        seen = torch.cat([torch.cat(step) for step in steps])
        assert torch.equal(seen[:batch], orders[0].whole(first))
        assert int(seen.min()) >= 0 and int(seen.max()) < total
        if total >= batch:
            assert len(seen) == len(seen.unique()) == total // batch * batch
        else:
            assert len(seen.unique()) == total


def test_a_validation_split_is_drawn_of_whole_shards_and_reads_no_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = f"wds:{write(tmp_path / 'set')}"
    train, val = (open_images(spec, split) for split in ("train", "val"))
    assert (len(train), len(val)) == ((SHARDS - 1) * EACH, EACH) and train.is_drawn and val.is_drawn
    assert train.shard_counts == [EACH] * (SHARDS - 1) and val.shard_counts == [EACH]
    assert not {train.where(index) for index in range(len(train))} & {val.where(index) for index in range(len(val))}
    assert len(open_images(spec, "train", val_share=0.5)) == 2 * EACH
    held = int(val.where(0).partition(".tar")[0][-4:])
    assert train.labels == [number % 3 for number in range(SHARDS * EACH) if number // EACH != held]
    whole = open_images(spec, "train", val_share=0)
    assert isinstance(whole, ShardImages) and whole.labels is not None  # they are read
    assert whole.of_shards([1]).labels == whole.labels[EACH : 2 * EACH]
    monkeypatch.setattr(ShardImages, "read_labels", lambda images: pytest.fail("labels were read"))
    assert open_images(spec, "train").is_labelled


def test_processes_read_different_shards() -> None:
    order = [ShardOrder([1000] * 64, batch_size=128, seed=0, rank=rank, world=2) for rank in range(2)]
    shards = [{int(i) // 1000 for step in range(4) for i in one.indices(step)} for one in order]
    assert not shards[0] & shards[1]


def test_splits_patterns_and_stated_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(write(tmp_path / "set"), "validation", shards=2)
    assert len(open_images(f"wds:{folder}", "val")) == 2 * EACH
    for pattern, count in (("train-{0001..0003}.tar", 3), ("*-0000.tar", 2), ("train-{0000,0002}.tar", 2)):
        assert len(open_images(f"wds:{folder}/{pattern}", "train", val_share=0)) == count * EACH
    lengths = {"filenames": [f"train-{shard:04d}.tar" for shard in range(SHARDS)], "shard_lengths": [EACH] * SHARDS}
    info = {"splits": {"train": lengths}}
    (folder / "_info.json").write_text(json.dumps(info))
    monkeypatch.setenv("SWEET_CACHE", str(tmp_path / "cache"))
    list_shard.cache_clear()
    images = open_images(f"wds:{folder}", "train", val_share=0).pixels_only()
    assert len(images) == SHARDS * EACH and images.labels is None
    assert len(list((cache_folder() / "data" / "shards").iterdir())) == 1  # only the first was listed
    lengths["shard_lengths"][2] = EACH + 1
    (folder / "_info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"train-0002.tar: holds 12 images, expected 13"):
        open_images(f"wds:{folder}", "train", val_share=0).pixels_only().decode(2 * EACH)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("train-{0000..0007}.tar", "no such shard .*train-0005.tar"),
        ("no-*.tar", "no such shard .*no-"),
        ("https://somewhere/a.tar", "shards are read from a disk"),
        ("pipe:cat a.tar", "shards are read from a disk"),
        ("empty", "no .tar files"),
    ],
)
def test_what_is_not_there(tmp_path: Path, pattern: str, message: str) -> None:
    (write(tmp_path / "set") / "empty").mkdir()
    place = pattern if ":" in pattern else f"{tmp_path / 'set'}/{pattern}"
    with pytest.raises(UserError, match=message):
        open_images(f"wds:{place}", "train", val_share=0)


def test_any_name_is_read_back_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEET_CACHE", str(tmp_path / "cache"))
    buffer = io.BytesIO()
    Image.new("RGB", (9, 8)).save(buffer, format="PNG")
    names = ["a\u2028b.png", "caf\u0085.png", "c.png"]
    with tarfile.open(tmp_path / "train-0.tar", "w") as archive:
        for name in names:
            add(archive, name, buffer.getvalue())
    for _ in range(2):  # listed, then read again
        list_shard.cache_clear()
        images = open_images(f"wds:{tmp_path}", "train", val_share=0)
        assert [images.where(index).rpartition("/")[2].partition(" ")[2] for index in range(3)] == names


def test_a_sample_of_two_images_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        for name in ("a/0.jpg", "a/0.cls", "a/0.mask.png"):
            add(archive, name, b"0")
    with pytest.raises(UserError, match=r"train\.tar: a/0\.mask\.png: a second image of a/0, beside a/0\.jpg$"):
        open_images(f"wds:{tmp_path}", "train", val_share=0)


@pytest.mark.parametrize("damage", ["cut", "shorter", "header", "empty", "text"])
def test_a_damaged_shard_is_named(tmp_path: Path, damage: str) -> None:
    file = write(tmp_path / "set") / "train-0002.tar"
    whole = file.read_bytes()
    cut = {
        "cut": whole[: len(whole) // 2 + 100],
        "shorter": whole[: 20 * 512],
        "header": whole[:2048] + b"x" * 512 + whole[2560:],
        "empty": b"",
        "text": b"hello" * 300,
    }
    file.write_bytes(cut[damage])
    with pytest.raises(UserError, match=r"train-0002.tar: not a readable tar shard"):
        open_images(f"wds:{file.parent}", "train", val_share=0)


def test_a_shard_damaged_later_is_left_out_where_a_recipe_allows_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    reader = batches(folder, skips=Skips(tmp_path / "skipped.jsonl", most=1))
    (folder / "train-0001.tar").write_bytes(b"broken" * 1000)
    seen = {number for pixels, _ in reader.iterate(0, 10) for number in numbers(pixels)}
    assert seen == set(range(SHARDS * EACH)) - set(range(EACH, 2 * EACH))
    assert "train-0001.tar" in (tmp_path / "skipped.jsonl").read_text()
    reader.skips = None
    with pytest.raises(UserError, match=r"train-0001.tar: not a readable tar shard"):
        list(reader.iterate(0, 10))


def test_identity_changes_with_the_shards(tmp_path: Path) -> None:
    one = identity(open_images(f"wds:{write(tmp_path / 'one')}", "train", val_share=0))
    assert one == identity(open_images(f"wds:{write(tmp_path / 'two')}", "train", val_share=0))
    assert one != identity(open_images(f"wds:{write(tmp_path / 'three', shards=4)}", "train", val_share=0))
    renamed = write(tmp_path / "four")
    (renamed / "train-0002.tar").rename(renamed / "train-0009.tar")
    assert one != identity(open_images(f"wds:{renamed}", "train", val_share=0))


def test_unlabelled_and_half_labelled(tmp_path: Path) -> None:
    plain = open_images(f"wds:{write(tmp_path / 'plain', labels=False)}", "train", val_share=0)
    assert plain.labels is None and plain.classes is None
    folder = write(tmp_path / "half")
    write(folder, "train-x", labels=False, shards=1)
    with pytest.raises(UserError, match=r"train-x-0000.tar a/000000.png: has no class"):
        _ = open_images(f"wds:{folder}", "train", val_share=0).labels


def test_a_shard_may_end_with_a_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", shards=1)
    with tarfile.open(folder / "train-0000.tar", "a") as archive:
        last = tarfile.TarInfo("b")
        last.type = tarfile.DIRTYPE
        archive.addfile(last)
    assert len(open_images(f"wds:{folder}", "train", val_share=0)) == EACH


def test_an_order_is_computed_from_few_shards_and_no_label(tmp_path: Path) -> None:
    folder = write(tmp_path / "half")
    write(folder, "train-x", labels=False, shards=1)  # a label that is missing, which an order does not need
    config = ViTConfig(1, 1, 8, 8, 4)
    data = DataConfig(img_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    found = OrderImages.of(Checkpoint("x", "", config, {}, data), f"wds:{folder}", 8, None, torch.device("cpu"))
    assert len(found.found) == 8 and sum(len(batch) for batch in found) == 8
