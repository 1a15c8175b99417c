"""Tar shards of 1.3 million images: the first step, memory, every image once, kill and resume; the loader and timm's.

    python benchmarks/shards.py make FOLDER [--images 1300000]
    python benchmarks/shards.py measure FOLDER [--json FILE]

``make`` writes shards of 1,000 small JPEG files, each of which ends with its number, and ``_info.json``. ``measure``
compares all of them with the first 100 shards. The loaders read 400-pixel scenes at 224 px on one core, taking turns.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import torch
from measure import medians, memory_mb, ratio, report
from PIL import Image

from sweet.data import Batches, open_images
from sweet.data.batches import ahead
from sweet.data.epoch_order import ShardOrder
from sweet.data.shards import ShardImages
from sweet.files import sha256

EACH, FEW = 1000, 100
RECIPE = [
    "nano", "model.depth=1", "model.heads=2", "data.img_size=128", "model.patch_size=32", "batch_size=64",
    "workers=2", "device=cpu", "checkpoint_every=5", "template.constraint=none", "template.order_images=64",
    "optim.compile=false",
]  # fmt: skip


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    """An image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Write a file into a shard."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def make(folder: Path, images: int) -> None:
    """Shards of images of 48 pixels, some hundred different ones; the number of each stands behind its JPEG."""
    folder.mkdir(parents=True)
    scenes = open_images("shapes:n=256,size=48", "train", val_share=0)
    files = [jpeg(scenes.decode(index)) for index in range(256)]  # type: ignore[arg-type]
    names, began = [], time.monotonic()
    for shard in range(images // EACH):
        names.append(f"train-{shard:05d}.tar")
        with tarfile.open(folder / names[-1], "w") as archive:
            for number in range(shard * EACH, (shard + 1) * EACH):
                add(archive, f"{number:08d}.jpg", files[number % 256] + number.to_bytes(4, "big"))
                add(archive, f"{number:08d}.cls", str(number % 1000).encode())
        if shard % 100 == 99:
            print(f"{shard + 1} shards in {time.monotonic() - began:.0f} s", file=sys.stderr)
    lengths = {"name": "train", "num_samples": images, "filenames": names, "shard_lengths": [EACH] * len(names)}
    (folder / "_info.json").write_text(json.dumps({"splits": {"train": lengths}}))


def child(spec: str, out: str, steps: int, began: float) -> None:
    """Pre-train for some steps; print when the first one had ended, and the peaks of this process and its workers."""
    from sweet.recipes.loader import load_recipe
    from sweet.recipes.schema import PretrainRecipe
    from sweet.training.log import RunLog
    from sweet.training.pretrain import pretrain

    seen: dict[str, object] = {}
    step = RunLog.step

    def noted(log: RunLog, *values: object) -> None:
        step(log, *values)  # type: ignore[arg-type]
        if not seen:
            seen.update(first_step_s=round(time.time() - began, 2), first_step_cpu_s=round(time.process_time(), 2))
        peaks = [memory_mb("VmHWM", worker.pid or 0) for worker in active_children()]
        seen["workers_mb"] = peaks or seen.get("workers_mb", [])

    RunLog.step = noted  # type: ignore[method-assign, assignment]
    name, *overrides = RECIPE
    recipe = load_recipe(PretrainRecipe, name, [*overrides, f"data.source={spec}", f"max_steps={steps}"])
    pretrain(recipe, Path(out), resume=True, quiet=True)
    print(json.dumps(seen | {"main_mb": memory_mb("VmHWM")}))


def start(spec: str, out: Path, steps: int) -> subprocess.Popen[str]:
    """``child`` in a process of its own."""
    command = [sys.executable, __file__, "child", spec, str(out), str(steps), str(time.time())]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def few_and_all(folder: Path, work: Path) -> dict[str, object]:
    """The first step and the peaks of memory, of 100 shards and of all, each with an empty cache."""
    found: dict[str, object] = {}
    for name, spec in (("few", f"wds:{folder}/train-{{00000..{FEW - 1:05d}}}.tar"), ("all", f"wds:{folder}")):
        shutil.rmtree(os.environ["SWEET_CACHE"], ignore_errors=True)
        process = start(spec, work / name, 100)
        output, _ = process.communicate()
        found[name] = json.loads(output.splitlines()[-1])
    return found


def killed_and_resumed(folder: Path, work: Path, steps: int = 40) -> dict[str, object]:
    """A run that is killed three times, against an unbroken one: the same bytes?"""
    start(f"wds:{folder}", work / "unbroken", steps).communicate()
    kills = 0
    while not (work / "broken" / "config.json").is_file():
        process = start(f"wds:{folder}", work / "broken", steps)
        before = len(list((work / "broken").glob("checkpoints/step-*")))
        while kills < 3 and process.poll() is None:
            if len(list((work / "broken").glob("checkpoints/step-*"))) > before or before > 1:
                time.sleep(random.uniform(0.5, 3))
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.05)
        process.communicate()
    sums = {sha256(next((work / name).glob("*.safetensors"))) for name in ("unbroken", "broken")}
    return {"kills": kills, "steps": steps, "equal": len(sums) == 1}


def numbers_of(images: ShardImages, order: ShardOrder, step: int) -> list[int]:
    """The numbers behind the images of a step; run by a worker."""
    return [int.from_bytes(images.stored(index)[-4:], "big") for index in order.indices(step).tolist()]


def once(folder: Path) -> dict[str, object]:
    """How often two ranks of two workers read each image of an epoch."""
    images = open_images(f"wds:{folder}", "train", val_share=0).pixels_only()
    assert isinstance(images, ShardImages)
    times = torch.zeros(len(images), dtype=torch.int32)
    for rank in range(2):
        order = ShardOrder(images.shard_counts, batch_size=250, seed=0, rank=rank, world=2)
        for numbers in ahead(partial(numbers_of, images, order), range(order.steps_per_epoch), 2):
            times[numbers] += 1
    return {"images": len(images), "read_once": int((times == 1).sum()), "most": int(times.max())}


def loaders(work: Path, rounds: int = 9) -> dict[str, object]:
    """Images a second of each loader: one worker and this process on one core, normalised float32 batches of 64."""
    from timm.data import create_dataset, create_loader

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    (work / "photos" / "train" / "a").mkdir(parents=True)
    scenes = open_images("shapes:n=256,size=400", "train", val_share=0)
    with tarfile.open(work / "photos" / "train-0.tar", "w") as archive:
        for number in range(256):
            image = scenes.decode(number)
            assert isinstance(image, Image.Image)
            noise = Image.effect_noise(image.size, 40).convert("RGB")
            data = jpeg(Image.blend(image, noise, 0.2))
            add(archive, f"{number:03d}.jpg", data)
            add(archive, f"{number:03d}.cls", b"0")
            (work / "photos" / "train" / "a" / f"{number:03d}.jpg").write_bytes(data)
    ours = Batches(
        open_images(f"wds:{work / 'photos' / 'train-0.tar'}", "train", val_share=0),
        batch_size=64,
        seed=0,
        img_size=224,
        workers=1,
    )
    theirs = create_loader(
        create_dataset("", root=str(work / "photos" / "train")),
        input_size=(3, 224, 224),
        batch_size=64,
        is_training=True,
        no_aug=False,
        scale=(0.2, 1.0),
        color_jitter=0.0,
        interpolation="bicubic",
        num_workers=1,
        use_prefetcher=True,
        device=torch.device("cpu"),
        persistent_workers=False,
    )
    speed: dict[str, list[float]] = {"sweet": [], "timm": []}
    for number in range(rounds):
        for name, batches in (("sweet", ours.iterate(4 * number, 4 * number + 4)), ("timm", iter(theirs))):
            began, count = time.perf_counter(), 0
            for images, _ in batches:
                assert images.dtype == torch.float32 and images.shape[1:] == (3, 224, 224)
                count += len(images)
            speed[name].append(count / (time.perf_counter() - began))
    middle = {f"{name}_img_per_s": value for name, value in medians(speed, 1).items()}
    return {**middle, "ratio": ratio(speed["sweet"], speed["timm"]), "rounds": rounds}


def measure(folder: Path, json_file: Path | None) -> None:
    """All of it."""
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        os.environ["SWEET_CACHE"] = str(work / "cache")
        result = {"shards": len(list(folder.glob("*.tar"))), **few_and_all(folder, work)}
        result |= {"resume": killed_and_resumed(folder, work), "once": once(folder), "loader": loaders(work)}
    report(result, json_file)


def main() -> None:
    """See the head of this file."""
    if sys.argv[1] == "child":
        child(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("make", "measure"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1_300_000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.what == "make":
        make(given.folder, given.images)
    else:
        measure(given.folder, given.json)


if __name__ == "__main__":
    main()
