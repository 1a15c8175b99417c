"""A card tells what somebody must know who was not there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from sweet.errors import UserError
from sweet.export import export
from sweet.files import read_json, write_json
from sweet.storage.cards import model_card, shareable
from sweet.storage.records import TrainingRecord, flops_text, read_record


def test_a_source_states_cost_terms_and_use(template: Path, dense: Path) -> None:
    for folder, title in ((template, "# Template `tiny`"), (dense, "# Dense source `tiny`")):
        card, info = (folder / "README.md").read_text(), read_json(folder / "config.json")
        assert card.startswith(title)
        assert ("| compute |" in card) == bool(info["training"]["pflops"])  # so few are recorded as 0
        for text in ("L2H2, width 16, 16 px, patch 4", "shapes:n=64,size=16",
                     "| numbers | float32 |", "their terms apply", "arXiv 2601.19694", "SHA256SUMS",
                     "sweet init", "seed | 0"):  # fmt: skip
            assert text in card, text


def test_a_classifier_states_its_recipe_and_metrics(classifier: Path) -> None:
    card, info = (classifier / "README.md").read_text(), read_json(classifier / "config.json")
    recipe = yaml.safe_load((classifier / "recipe.yaml").read_text())
    made, metrics = info["made"], info["metrics"]
    for text in (f"| top1 | {metrics['top1']} |", "One seed", f"lr {recipe['lr']:g}, batch 16, seed 0",
                 "| task | classify |", f"| parameters | {made['parameters']:,} |", "| initialised by | sweet |",
                 made["source_sha256"], f"{info['training']['steps']} (",
                 "`shapes:n=64,size=16`", "terms"):  # fmt: skip
        assert text in card, text
    assert not re.search(r"precision|\bin no\b|pflops|_", re.sub(r"`[^`]*`|https?://\S+", "", card)), card
    assert made["source_data"] == "shapes:n=64,size=16"
    assert "--to timm" in card and "Licence: mit" not in card


def test_numbers_have_units_that_people_read() -> None:
    assert [flops_text(value) for value in (5e14, 5.5e12, 2.5e15, 1.25e9, 3e6)] == [
        "500 TFLOP",
        "5.5 TFLOP",
        "2.5 PFLOP",
        "1.25 GFLOP",
        "3 MFLOP",
    ]
    words = TrainingRecord(
        steps=3, images=1234, loss=0.5, seconds=61.2, device="cpu", precision="no", pflops=0.0005
    ).words()
    assert words == {
        "steps": "3 (1,234 images seen)",
        "time": "61 s on cpu",
        "numbers": "float32",
        "compute": "500 GFLOP",
        "loss at the end": "0.5000",
    }
    assert (
        TrainingRecord(steps=3, images=1, loss=0, seconds=1, precision="bf16").words()["numbers"].startswith("bfloat16")
    )


def test_several_seeds_give_a_spread(classifier: Path, tmp_path: Path) -> None:
    others = []
    for seed, top1 in ((1, 40.0), (2, 46.0)):
        other = tmp_path / str(seed)
        shutil.copytree(classifier, other)
        recipe = yaml.safe_load((other / "recipe.yaml").read_text())
        (other / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"seed": seed}))
        config = read_json(other / "config.json")
        config["metrics"]["top1"] = top1
        write_json(other / "config.json", config)
        others.append(other)
    mine = read_json(classifier / "config.json")["metrics"]["top1"]
    export(classifier, "safetensors", tmp_path / "out", seeds=others, licence="mit")
    card = (tmp_path / "out" / "README.md").read_text()
    mean = (mine + 40 + 46) / 3
    spread = (((mine - mean) ** 2 + (40 - mean) ** 2 + (46 - mean) ** 2) / 2) ** 0.5
    assert f"| top1 | {mine} | {mean:.5g} | {spread:.3g} |" in card
    assert "mean of 3 seeds" in card and "Licence: mit" in card

    with pytest.raises(UserError, match="has the seed 0 of"):
        export(classifier, "safetensors", tmp_path / "new", seeds=[classifier])
    with pytest.raises(UserError, match=r"--seeds .*: has the seed 1 of .*, and is no other run"):
        export(classifier, "safetensors", tmp_path / "new", seeds=[others[0], others[0]])
    recipe["lr"] = 1.0
    (others[1] / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"seed": 2}))
    with pytest.raises(UserError, match="lr differs from"):
        export(classifier, "safetensors", tmp_path / "new", seeds=others)
    assert not (tmp_path / "new").exists()


def test_every_layout_says_how_to_use_it(classifier: Path) -> None:
    record = read_record(classifier, ("model",))
    for use, text in {
        "timm": 'timm.create_model("local-dir:',
        "onnx": "onnxruntime.InferenceSession",
        "transformers": "AutoModelForImageClassification",
        "model": "sweet.load(",
    }.items():
        assert text in model_card(record, use=use)


def test_shareable_keeps_the_rest() -> None:
    text = "seed: 3\ndata:\n  source: shapes:n=2\n"
    assert yaml.safe_load(shareable(text)) == yaml.safe_load(text)
    assert shareable("") == ""


def test_names_are_neither_markdown_nor_html(classifier: Path) -> None:
    record = read_record(classifier, ("model",))
    assert record.made is not None
    evil = "folder:<img src=x onerror=alert(1)>|[x](javascript:1)`\x1b[31m\u202e"
    made = record.made.model_copy(update={"source_data": evil})
    card = model_card(record.model_copy(update={"made": made}), {"data": {"source": evil}}, licence=evil)
    table = card.partition("## Results")[0]
    assert "<img" not in table and "[x](" not in table and "&lt;img" in table
    assert not {"\x1b", "\u202e"} & set(card)
    [row] = [line for line in table.splitlines() if line.startswith("| the source was made from |")]
    assert row.count("|") == 3
