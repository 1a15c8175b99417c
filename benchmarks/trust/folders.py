"""Damaged folders through load, inspect, verify and init: each is right, or one line and exit code 2.

    python benchmarks/trust/folders.py [--count 2000] [--out results/trust/folders.json]

Damage to which the sums were not adapted must be noticed by everything that loads; damage with new sums by what it does
to names, shapes, types and numbers.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import MEGABYTES, SCENES, SECONDS, TINY, Slow, Tally, at_most, options, peak_mb, verdict
from safetensors.torch import load, save

import sweet
from sweet.errors import UserError
from sweet.files import read_sums, write_sums

LOADS = ("load", "verify", "init")
VALUES: tuple[Any, ...] = (
    None, "x", "", -1, 0, 1, 3, 10**6, 10**9, 10**30, 1.5, float("nan"), True, [], {}, [1] * 3, "../../etc/passwd",
)  # fmt: skip
FINETUNE = "device=cpu workers=0 batch_size=16 max_steps=2 -q"
SHAPE_KEYS = ("depth", "heads", "head_dim", "patch_size", "in_chans", "img_size", "family")
TEXTS = (
    "", "null", "[]", "1", "[" * 100_000, '{"a":' * 50_000, "\ufeff{}", "\udcff\udcfe\udc80", "\0",
    '{"kind": "\\ud800"}', '{"format": ' + "9" * 6000 + "}",
)  # fmt: skip
SUMS = (
    "", "\udcff\udcfe", "0" * 64 + "  ../../../../etc/passwd\n", "0" * 64 + "  /dev/zero\n", "0" * 64 + "  .\n",
    "0" * 64 + " config.json\n", "0" * 64 + "  a\0b\n", "0" * 64 + "  config.json\n",
)  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """What was done to a folder, and which verbs must refuse it."""

    label: str
    refused: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()


def main() -> None:
    given, tally = options("folders", count=2000, seed=0), Tally()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folders = make(place)
        for number in range(given.count):
            draw = random.Random(f"{given.seed} {number}")
            kind, whole = draw.choice(sorted(folders.items()))
            folder = place / "damaged"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("checkpoints", "tensorboard", "pictures"))
            damage = draw.choice(DAMAGES)(folder, draw)
            try_all(f"{number} {kind}: {damage.label}", folder, damage, tally)
            if number % 200 == 0:
                print(number, dict(tally.counts), tally.wrong[-3:], flush=True)
    tally.write(given.out, folders=given.count, seed=given.seed)


def make(place: Path) -> dict[str, Path]:
    """A template, a dense source, a bare model and a classifier."""
    words = {
        "template": ["pretrain", str(TINY), "-q"],
        "dense": ["pretrain", str(TINY), "template.constraint=none", "-q"],
        "model": ["init", str(place / "template"), "--depth", "2", "--heads", "2"],
        "classifier": ["finetune", str(place / "model"), "--data", SCENES, *FINETUNE.split()],
    }
    for name, verb in words.items():
        assert verdict([*verb, "--out", str(place / name)], 300) == "right", name
    return {name: place / name for name in words}


def try_all(case: str, folder: Path, damage: Damage, tally: Tally) -> None:
    out = folder.with_name("made")
    shutil.rmtree(out, ignore_errors=True)
    tally.add(case, "load", loading(folder), refused="load" in damage.refused)
    for verb, words in {
        "inspect": ["inspect", str(folder)],
        "verify": ["verify", str(folder)],
        "init": ["init", str(folder), "--depth", "2", "--heads", "1", "--out", str(out), "--device", "cpu"],
    }.items():
        found = verdict(words)
        if verb in damage.accepted and found != "right":
            found = f"wrong: refused ({found})"
        tally.add(case, verb, found, refused=verb in damage.refused)


def loading(folder: Path) -> str:
    """The same for ``sweet.load``, with one image through what it gives."""
    before = peak_mb()
    try:
        with at_most(SECONDS), torch.no_grad():
            loaded: Any = sweet.load(folder)
            model = loaded.build(1, 1) if hasattr(loaded, "build") else loaded
            config = sweet.storage.records.read_record(folder, ("template", "dense", "model")).vit
            finite = model(torch.zeros(1, config.in_chans, config.img_size, config.img_size)).isfinite().all()
    except UserError:
        return "line"
    except Slow:
        return "slow"
    except Exception as problem:
        return f"wrong: {problem!r:.300}"
    if peak_mb() > before + MEGABYTES:
        return f"memory: {peak_mb() - before:.0f} MB"
    return "right" if finite else "wrong: not finite"


def sign(folder: Path) -> None:
    write_sums(folder, {name: folder / name for name in read_sums(folder)})


def tensor_file(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def untouched(folder: Path, draw: random.Random) -> Damage:
    """None: it must not be refused, or the others prove nothing."""
    source = folder.joinpath("template.safetensors").is_file() or "dense" in (folder / "config.json").read_text()
    return Damage("none", accepted=(*(("init",) if source else ()), "load", "verify", "inspect"))


def flip(file: Path, length: int, draw: random.Random) -> str:
    """Flip a bit of the first ``length`` bytes; which one."""
    data = bytearray(file.read_bytes())
    at, bit = draw.randrange(length), draw.randrange(8)
    data[at] ^= 1 << bit
    file.write_bytes(bytes(data))
    return f"{at}.{bit}"


def flipped(folder: Path, draw: random.Random) -> Damage:
    """One bit, anywhere in the tensors or the config, and the sums as they were."""
    file = draw.choice([tensor_file(folder), folder / "config.json"])
    return Damage(f"bit {flip(file, file.stat().st_size, draw)} of {file.name}", LOADS)


def header_flipped(folder: Path, draw: random.Random) -> Damage:
    file = tensor_file(folder)
    bit = flip(file, 8 + struct.unpack("<Q", file.read_bytes()[:8])[0], draw)
    sign(folder)
    return Damage(f"header bit {bit}")


def cut(folder: Path, draw: random.Random) -> Damage:
    file = tensor_file(folder)
    data = file.read_bytes()
    length = draw.choice([0, 1, 7, 8, 9, 100, len(data) - 1, draw.randrange(len(data)), len(data) + 4])
    file.write_bytes((data + b"xxxx")[:length])
    sign(folder)
    return Damage(f"cut at {length}", (*LOADS, "inspect"))


def header_edited(folder: Path, draw: random.Random) -> Damage:
    """Entries of the header that do not fit the file."""
    file = tensor_file(folder)
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    name = draw.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    what = draw.choice(["huge", "negative", "dtype", "unknown", "swapped", "renamed", "length"])
    if what == "renamed":
        header["../../evil\x1b[31m"] = header.pop(name)
    changes: dict[str, dict[str, Any]] = {
        "huge": {"shape": [2**40, 2**40]},
        "negative": {"shape": [-1]},
        "dtype": {"dtype": "U32"},
        "unknown": {"dtype": "XX"},
        "swapped": {"data_offsets": entry["data_offsets"][::-1]},
    }
    entry.update(changes.get(what, {}))
    text = json.dumps(header).encode()
    size = draw.choice([0, 2**63 - 1, 2**64 - 1, 10**8 + 1]) if what == "length" else len(text)
    file.write_bytes(struct.pack("<Q", size) + text + data[8 + length :])
    sign(folder)
    return Damage(f"{name}: {what}", (*LOADS, "inspect") if not name.startswith("order.") else ())


def tensor_changed(folder: Path, draw: random.Random) -> Damage:
    """A valid file of other tensors."""
    file = tensor_file(folder)
    tensors = load(file.read_bytes())
    name = draw.choice(sorted(tensors))
    value = tensors.pop(name)
    what = draw.choice(["missing", "nan", "inf", "f64", "f16", "int", "rows", "empty", "scalar", "more"])
    numbers = value.is_floating_point()
    changes: dict[str, Callable[[], torch.Tensor]] = {
        "nan": lambda: value.clone().index_fill_(0, torch.tensor([0]), float("nan") if numbers else 0),
        "inf": lambda: value.clone().index_fill_(0, torch.tensor([0]), float("-inf") if numbers else 0),
        "f64": value.double,
        "f16": value.half,
        "int": lambda: value.to(torch.int8),
        "rows": lambda: torch.cat([value, value]),
        "empty": lambda: torch.zeros(0),
        "scalar": lambda: torch.zeros(()),
        "more": lambda: value,
    }
    if what == "more":
        tensors["one.more"] = value.clone()
    if what != "missing":
        tensors[name] = changes[what]()
    file.write_bytes(save(tensors))
    sign(folder)
    loose = name.startswith("order.") and what in ("nan", "inf", "f64", "f16", "int")
    refused = () if loose else LOADS if what in ("nan", "inf") else (*LOADS, "inspect")
    return Damage(f"{name}: {what}", refused)


def config_changed(folder: Path, draw: random.Random) -> Damage:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    group, keys = config, []
    while True:
        key = draw.choice(sorted(group))
        keys.append(key)
        if not isinstance(group[key], dict) or not group[key] or draw.random() < 0.1:
            break
        group = group[key]
    before, value = group[key], draw.choice([*VALUES, "gone"])
    if value == "gone":
        del group[key]
    else:
        group[key] = value
    path.write_text(json.dumps(config))
    signed = draw.random() < 0.8
    if signed:
        sign(folder)
    shape = keys[0] == "vit" and keys[-1] in SHAPE_KEYS and value != before and value != "gone"
    return Damage(
        f"{'.'.join(keys)}={value!r:.40}{'' if signed else ' unsigned'}",
        (*LOADS, "inspect") if shape else () if signed else LOADS,
    )


def config_replaced(folder: Path, draw: random.Random) -> Damage:
    text = draw.choice(TEXTS)
    (folder / "config.json").write_text(text, errors="surrogateescape")
    sign(folder)
    return Damage(f"config.json {text[:20]!r}", (*LOADS, "inspect"))


def sums_replaced(folder: Path, draw: random.Random) -> Damage:
    text = draw.choice(SUMS)
    (folder / "SHA256SUMS").write_text(text, errors="surrogateescape")
    return Damage(f"SHA256SUMS {text[:80]!r}", LOADS)


DAMAGES = (
    untouched,
    flipped, header_flipped, cut, header_edited, tensor_changed, tensor_changed, config_changed, config_changed,
    config_changed, config_replaced, sums_replaced,
)  # fmt: skip

if __name__ == "__main__":
    main()
