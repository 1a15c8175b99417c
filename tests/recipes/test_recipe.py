"""Recipes: the bundled ones, the round trip, and one clear line for every way to get a key wrong."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sweet.errors import UserError
from sweet.recipes.loader import bundled_recipes, dump_recipe, load_recipe
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe

TINY = """\
epochs: 1
batch_size: 8
lr: 1e-3
checkpoint_every: 5
model: {depth: 2, heads: 2, head_dim: 8, patch_size: 4}
mae:
  decoder_width: 16
  decoder_depth: 1
  decoder_head_dim: 8
"""
NO_KIND = "not valid YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghi")
)


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    """The message for a recipe file with this text; the folder is shortened to DIR."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_recipe(PretrainRecipe, str(path), overrides)
    message = str(caught.value).replace(str(tmp_path), "DIR")
    assert "\n" not in message
    return message


def test_bundled_recipes_are_valid_and_survive_the_round_trip(tmp_path: Path) -> None:
    assert bundled_recipes() == ["micro", "nano", "quickstart", "small", "vit_b16_in1k"]
    for name in bundled_recipes():
        recipe = load_recipe(PretrainRecipe, name)
        assert recipe.name == name
        (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
        assert load_recipe(PretrainRecipe, tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    "name",
    ["1e5", "010", "1:30", "2024-01-01", "0x1", "yes", "~", ".inf", "1_0", "", "- a", "a: b # c", "\u202e\x1b\n"],
)
def test_text_that_looks_like_something_else_survives_the_round_trip(tmp_path: Path, name: str) -> None:
    recipe = load_recipe(PretrainRecipe, "nano").model_copy(update={"name": name})
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(PretrainRecipe, tmp_path / "recipe.yaml") == recipe
    assert yaml.safe_load(dump_recipe(recipe))["name"] == name  # as cards and exports read it


def test_finetune_needs_no_file() -> None:
    recipe = load_recipe(FinetuneRecipe, None, ["data.labels=5000", "optim.layer_decay=0.75", "probe=true"])
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.checkpoint_every) == (30, 64, 1e-3, 500)
    assert (recipe.data.labels, recipe.optim.layer_decay, recipe.optim.betas) == (5000, 0.75, (0.9, 0.999))
    assert recipe.probe


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("lr=1e-3", lambda r: r.lr, 1e-3),
        ("epochs=3", lambda r: r.epochs, 3.0),
        ("max_steps=", lambda r: r.max_steps, None),
        ("data.source=shapes:", lambda r: r.data.source, "shapes:"),
        ("data.source=folder:/a b/#1", lambda r: r.data.source, "folder:/a b/#1"),
        ("data.source=hub:a=b", lambda r: r.data.source, "hub:a=b"),
        ('name="7"', lambda r: r.name, "7"),
        ("template.ranks=[24, 9, 9]", lambda r: r.template.ranks, (24, 9, 9)),
        ("mae.norm_pix=false", lambda r: r.mae.norm_pix, False),
        ("lr=.5", lambda r: r.lr, 0.5),
        ("lr=+1.e-1", lambda r: r.lr, 0.1),
        ("seed=1_000", lambda r: r.seed, 1000),
        ("seed=0x10", lambda r: r.seed, 16),
        ("name=2024-01-01", lambda r: r.name, "2024-01-01"),
        ("name=010", lambda r: r.name, "010"),
        ("name=[!!bool x]", lambda r: r.name, "[!!bool x]"),
    ],
)
def test_overrides_read_values_as_yaml(tmp_path: Path, override: str, read, value) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TINY)
    assert read(load_recipe(PretrainRecipe, path, [override])) == value


def test_the_last_override_wins() -> None:
    assert load_recipe(FinetuneRecipe, None, ["lr=1", "lr=2"]).lr == 2


@given(st.text(max_size=30))
def test_any_override_text_gives_a_recipe_or_one_line(text: str) -> None:
    for override in (text, f"data.source={text}", f"lr={text}"):
        try:
            load_recipe(FinetuneRecipe, None, [override])
        except UserError as error:
            assert len(str(error).splitlines()) <= 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mask_rato=1", "mask_rato: unknown key; did you mean mae.mask_ratio?"),
        ("img_size=64", "img_size: unknown key; did you mean data.img_size?"),
        ("optim.wieght_decay=0", "optim.wieght_decay: unknown key; did you mean optim.weight_decay?"),
        ("zzzz=1", "zzzz: unknown key"),
        ("lr=fast", 'lr: should be a valid number, got "fast"'),
        ("epochs=0", "epochs: should be greater than 0, got 0"),
        ("epochs=.nan", "epochs: should be a finite number, got NaN"),
        ("batch_size=1.5", "batch_size: should be a valid integer, got 1.5"),
        ("seed=true", "seed: should be a valid integer, got true"),
        ("seed=010", 'seed: should be a valid integer, got "010"'),
        ("epochs=1:30", 'epochs: should be a valid number, got "1:30"'),
        ("seed=-1", "seed: should be greater than or equal to 0, got -1"),
        ("device=gpu", "device: should be auto, cpu, cuda, cuda:N or mps, got 'gpu'"),
        ("data=5", "data: should be a group of keys, got 5"),
        ("data.img_size=30", "data.img_size: img_size 30 is not a multiple of patch_size 4"),
        ("data.img_size=[32,30]", "data.img_size: img_size 32x30 is not a multiple of patch_size 4"),
        (
            "data.img_size=[32,24,3]",
            "data.img_size: should be pixels from 1 to 16384, or height and width, got [32, 24, 3]",
        ),
        ("data.img_size=32x", "data.img_size: should be pixels from 1 to 16384, or height and width, got 32x"),
        ("model.patch_size=5", "model.patch_size: img_size 32 is not a multiple of patch_size 5"),
        ("data.crop_scale=[0.9,0.1]", "data.crop_scale: should rise and end at most at 1, got [0.9, 0.1]"),
        ("data.mean=[124,116,104]", "data.mean.0: should be less than or equal to 1, got 124 (and 3 more)"),
        ("data.mean=[0.5]", "data.mean: 3 values for 1 values of data.mean"),
        ("data.std=[1,1,0]", "data.std: should be above 0, got [1.0, 1.0, 0.0]"),
        ("model.family=resnet", "model.family: should be 'eva' or 'vit', got \"resnet\""),
        ("model.head_dim=6", "model.head_dim: should be a multiple of 4 for RoPE, got 6"),
        ("model.in_chans=1", "model.in_chans: 3 values for model.in_chans 1"),
        ("template.ranks=[25,9,9]", "template.ranks: rank 1 is 25, more than 12 x depth = 24"),
        ("template.ranks=[24,9,17]", "template.ranks: rank 3 is 17, more than width = 16"),
        ("template.ranks=[24,0,9]", "template.ranks.1: should be greater than or equal to 1, got 0"),
        ("template.tile=12", "template.tile: 12 should be a multiple of head_dim 8 that divides width 16"),
        ("width.mode=shared", "width.min_heads: 3 is more than model.heads 2"),
        ("mae.mask_ratio=1", "mae.mask_ratio: should be less than 1, got 1"),
        ("mae.mask_ratio=0.99", "mae.mask_ratio: 0.99 leaves 0 of 64 patches visible"),
        ("mae.decoder_width=20", "mae.decoder_width: 20 is not a multiple of decoder_head_dim 8"),
        ("optim.accumulate=3", "optim.accumulate: batch_size 8 cannot be computed in 3 equal parts"),
        ("optim.min_lr=1", "optim.min_lr: 1 is above the peak lr 0.001"),
        ("data.labels=10", "data.labels: has a meaning only with objective=supervised"),
        ("data.val_split=val", "data.val_split: has a meaning only in a fine-tuning"),
        ("optim.name=muon", "optim.name: is for fine-tuning, a template learns by adamw"),
        ("lr.x=1", "lr is not a group of keys"),
        ("seed=9223372036854775808", f"seed: should be less than or equal to {2**63 - 1}, got {2**63}"),
        (
            "data.img_size=1000000000",
            "data.img_size: should be pixels from 1 to 16384, or height and width, got 1000000000",
        ),
        ("model.depth=1000000000", "model.depth: should be less than or equal to 1024, got 1000000000"),
        ("max_steps=1" + "0" * 30, f"max_steps: should be less than or equal to {10**12}, got {10**30}"),
        ("workers=100000", "workers: should be less than or equal to 1024, got 100000"),
        ("lr", "an override is written key=value, as in data.img_size=32"),
        ("=1", "an override is written key=value, as in data.img_size=32"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, message: str) -> None:
    written = refusal(tmp_path, TINY, override)
    # A check of several keys may blame the line of a key in the file when no override is among them.
    assert written in {f"{override}: {message}", f"DIR/mine.yaml: {message}"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TINY.replace("lr:", "lrr:"), "DIR/mine.yaml:3: lrr: unknown key; did you mean lr? (and 1 more)"),
        (
            TINY + "  mask_rato: 0.5\n",
            "DIR/mine.yaml:10: mae.mask_rato: unknown key; did you mean mae.mask_ratio?",
        ),
        (TINY + "  norm_pix: 3\n", "DIR/mine.yaml:10: mae.norm_pix: should be a valid boolean, got 3"),
        (TINY + "lr: 2\n", "DIR/mine.yaml:10: lr: written twice, first at DIR/mine.yaml:3"),
        (TINY + "optim:\n", "DIR/mine.yaml:10: optim: should be a group of keys, got null"),
        (
            TINY + "data:\n  source: shapes:\n",
            "DIR/mine.yaml:11: not valid YAML: mapping values are not allowed here",
        ),
        ("name: !!set {a}\n", f"DIR/mine.yaml:1: {NO_KIND}set'"),
        ("name: !!binary aGk=\n", f"DIR/mine.yaml:1: {NO_KIND}binary'"),
        ("probe: !!bool x\n", "DIR/mine.yaml: not valid YAML: 'x'"),
        ("- a\n", "DIR/mine.yaml:1: a recipe is a list of `key: value` lines, got ['a']"),
        ("a: !!python/name:os.system\n", None),
        ("a: &a [*a]\n", "DIR/mine.yaml:1: not valid: an alias inside its own anchor"),
        ("a: &a {b: *a}\n", "DIR/mine.yaml:1: not valid: an alias inside its own anchor"),
        (BOMB, "DIR/mine.yaml: holds more than 10,000 values once its aliases are filled in"),
        ("a: " + "[" * 3000, "DIR/mine.yaml: not valid YAML: nested too deeply"),
        ("a: " + "x" * 100_000, "RECIPE DIR/mine.yaml: longer than 100,000 characters, and no recipe is"),
        ("", "DIR/mine.yaml: epochs: missing, and it has no default (and 5 more)"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path: Path, text: str, message: str | None) -> None:
    written = refusal(tmp_path, text)
    assert written == message or (message is None and written.startswith("DIR/mine.yaml:1: not valid YAML"))


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "image.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    for name, message in [
        ("mikro", "RECIPE mikro: no such file or bundled recipe; did you mean micro? (bundled: micro, nano, quick"),
        (str(tmp_path / "no.yaml"), f"RECIPE {tmp_path}/no.yaml: no such file"),
        (str(tmp_path), f"RECIPE {tmp_path}: Is a directory"),
        (str(tmp_path / "image.yaml"), f"RECIPE {tmp_path}/image.yaml: not a text file"),
    ]:
        with pytest.raises(UserError) as caught:
            load_recipe(PretrainRecipe, name)
        assert str(caught.value).startswith(message)
