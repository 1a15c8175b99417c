"""Damage of a folder is noticed before it is used, in one line; of what the sums cannot know, by what it does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor
from typer.testing import CliRunner

import sweet
from sweet.cli import app
from sweet.describe import inspect
from sweet.errors import UserError
from sweet.files import read_sums, write_sums
from sweet.storage.header import check_header, read_header
from sweet.storage.records import read_record


@pytest.fixture
def source(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "source", ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))


@pytest.fixture
def tuned(classifier: Path, tmp_path: Path) -> Path:
    return shutil.copytree(classifier, tmp_path / "tuned", ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))


def sign(folder: Path) -> None:
    write_sums(folder, {name: folder / name for name in read_sums(folder)})


def flip(file: Path) -> None:
    """One bit of one weight: it stays a number."""
    data = bytearray(file.read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    name = next(name for name in header if name.endswith(("cls_token", "head.weight")))
    data[8 + length + header[name]["data_offsets"][0]] ^= 1
    file.write_bytes(bytes(data))


def run(words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, words.split(), prog_name="sweet")
    assert result.exit_code in (0, 2), result.exception
    return result.exit_code, result.stderr


def test_one_flipped_bit_is_noticed_by_everything_that_loads(source: Path, tuned: Path, tmp_path: Path) -> None:
    flip(source / "template.safetensors")
    flip(tuned / "model.safetensors")
    data, out = "--data shapes:n=64,size=16", tmp_path / "out"
    for words in (
        f"init {source} --depth 1 --heads 1 --out {out}",
        f"family {source} --sizes L1H1 {data} --out {out}",
        f"export {source} --to safetensors --out {out}",
        f"evaluate {tuned} {data} --device cpu",
        f"finetune {tuned} {data} device=cpu max_steps=1 --out {out} -q",
        f"export {tuned} --to safetensors --out {out}",
        f"convert {tuned} --out {out}",
        f"inspect {tuned} --verify",
        f"verify {source}",
    ):
        code, line = run(words)
        assert code == 2 and line.count("\n") == 1 and "SHA256" in line and ".safetensors" in line, (words, line)
    assert not out.exists()
    with pytest.raises(UserError, match="SHA256"):
        sweet.load(source)
    with pytest.raises(UserError, match="SHA256"):
        sweet.load(tuned)


def test_sums_can_be_left_out(source: Path, tmp_path: Path) -> None:
    flip(source / "template.safetensors")
    assert run(f"init {source} --depth 1 --heads 1 --out {tmp_path / 'out'} --no-verify")[0] == 0
    assert sweet.load(source, verify=False)
    assert str(inspect(source)["checksums"]).startswith("not checked")
    (source / "SHA256SUMS").unlink()
    assert sweet.load(source) and inspect(source)["checksums"] == "not recorded"
    assert run(f"inspect {source} --verify")[0] == 2


ZEROS = b"0" * 64


@pytest.mark.parametrize("text", [b"\xff\xfe", b"", b"00  /dev/zero\n", ZEROS + b"  ../../x\n"])
def test_sums_that_are_none_are_refused(source: Path, text: bytes) -> None:
    (source / "SHA256SUMS").write_bytes(text)
    for words in (f"verify {source}", f"init {source} --depth 1 --heads 1 --out {source}-out"):
        code, line = run(words)
        assert code == 2 and "SHA256SUMS" in line and line.count("\n") == 1


CHANGES: dict[str, tuple[Callable[[Tensor], Tensor | None], str]] = {
    "missing": (lambda _: None, "is missing"),
    "NaN": (lambda value: value * float("nan"), "not finite"),
    "Inf": (lambda value: value / 0, "not finite"),
    "half": (lambda value: value.half(), "F16, expected F32"),
    "double": (lambda value: value.double(), "F64, expected F32"),
    "whole numbers": (lambda value: value.long(), "I64, expected F32"),
    "shape": (lambda value: torch.cat([value, value]), "has shape"),
    "empty": (lambda _: torch.zeros(0), "has shape"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_tensors_that_are_not_those_of_the_config(source: Path, tuned: Path, change: str) -> None:
    make, why = CHANGES[change]
    for folder, name in [
        (source, "core.x"), (source, "blocks.norm1.weight"), (source, "stem.cls_token"),
        (source, "decoder.embed.weight"),
        (tuned, "blocks.1.attn.qkv.weight"), (tuned, "head.bias"),
    ]:  # fmt: skip
        file = next(folder.glob("*.safetensors"))
        good = file.read_bytes()
        tensors = load(good)
        value = make(tensors.pop(name))
        file.write_bytes(save(tensors if value is None else tensors | {name: value}))
        sign(folder)
        with pytest.raises(UserError, match=f"{file.name}: tensor .* ?{why}") as error:
            sweet.load(folder)
        assert name in str(error.value)
        file.write_bytes(good)
        sign(folder)
        assert sweet.load(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("depth", n) for n in (10**9, 10**6, 1000, 3, -1)]
    + [
        ("heads", 10**6),
        ("heads", 1),
        ("head_dim", 10**6),
        ("head_dim", 1),
        ("img_size", 4 * 10**5),
        ("rope_grid", 10**9),
    ]
    + [("depth", "2"), ("depth", True), ("depth", 10**30), ("rope_theta", float("nan")), ("img_size", 2048)],
)
def test_a_config_that_disagrees_costs_nothing(source: Path, tuned: Path, key: str, value: object) -> None:
    for folder in (source, tuned):
        config = json.loads((folder / "config.json").read_text())
        config["vit"][key] = value
        (folder / "config.json").write_text(json.dumps(config))
        sign(folder)
        for words in (f"inspect {folder}", f"verify {folder}"):
            code, line = run(words)
            assert code == 2 and line.startswith("error: ") and line.count("\n") == 1 and len(line) < 400


@pytest.mark.parametrize("key", ["depth", "heads", "head_dim", "img_size", "rope_grid"])
def test_a_number_beyond_its_limits_is_named(source: Path, key: str) -> None:
    config = json.loads((source / "config.json").read_text())
    config["vit"][key] = 10**9
    (source / "config.json").write_text(json.dumps(config))
    code, line = run(f"inspect {source}")
    assert code == 2 and f"{key} " in line and "1000000000" in line


def test_a_head_of_another_number_of_classes_is_not_drawn_anew(tuned: Path) -> None:
    config = json.loads((tuned / "config.json").read_text())
    config["data"]["classes"].pop()
    (tuned / "config.json").write_text(json.dumps(config))
    sign(tuned)
    code, line = run(f"evaluate {tuned} --data shapes:n=64,size=16 --device cpu")
    assert code == 2 and "head.bias" in line


@pytest.mark.parametrize("value", [{}, [1], 3, None])
def test_a_switch_may_be_of_any_type_that_json_has(tuned: Path, value: object) -> None:
    """The switches of a method are its own, and only recorded: no name of before is looked for among them."""
    config = json.loads((tuned / "config.json").read_text())
    config["made"]["inner"] = value
    (tuned / "config.json").write_text(json.dumps(config))
    sign(tuned)
    assert run(f"inspect {tuned}")[0] == 0


def test_a_card_that_was_edited_elsewhere_is_no_reason_to_refuse(template: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(template, tmp_path / "folder")
    (folder / "README.md").write_bytes(b"caf\xe9")  # Latin-1
    source = sweet.load(folder)
    assert isinstance(source, sweet.Template) and source.texts["README.md"] == "caf\u00e9"
    (folder / "recipe.yaml").write_text("a: [1")
    with pytest.raises(UserError, match=r"recipe.yaml: not valid YAML"):
        sweet.Template.from_pretrained(folder).save_pretrained(tmp_path / "saved")


def test_what_a_task_adds_is_of_a_known_type_too(model: Path) -> None:
    record = read_record(model, ("model",))
    header = {f"vit.{name}": value for name, value in read_header(model / "model.safetensors").items()}
    known = header | {"head.weight": ("F32", (3, 3)), "head.norm.num_batches_tracked": ("I64", ())}
    check_header(model, known, record)
    for name in ("head.weight", "vit.norm.weight"):
        with pytest.raises(UserError, match=f"tensor (vit.)?{name.removeprefix('vit.')} is F64, expected F32"):
            check_header(model, known | {name: ("F64", known[name][1])}, record)
