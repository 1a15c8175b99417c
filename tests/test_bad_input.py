"""What a person may get wrong: one line that names it, exit code 2, nothing written."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sweet.cli import app
from sweet.files import read_sums, sha256, write_sums

TINY = Path(__file__).parent / "tiny.yaml"
SHAPES = "shapes:n=64,size=16"


def sign(folder: Path) -> None:
    write_sums(folder, {name: folder / name for name in read_sums(folder)})


@pytest.fixture(scope="module")
def world(template: Path, dense: Path, model: Path, classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything good and bad that the commands below name."""
    world = tmp_path_factory.mktemp("world")
    for folder in (template, dense, model, classifier):
        shutil.copytree(folder, world / folder.name)

    (world / "empty").mkdir()
    (world / "letters").mkdir()
    (world / "letters" / "a.txt").write_text("no image")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8))
    for name in ("one", "two"):
        (world / "two-classes" / name).mkdir(parents=True)
        for i in range(8):
            image.save(world / "two-classes" / name / f"{i}.png")
    (world / "flat").mkdir()
    for i in range(8):
        image.save(world / "flat" / f"{i}.png")
    shutil.copytree(world / "two-classes", world / "corrupt")
    png = world / "corrupt" / "two" / "5.png"
    png.write_bytes(png.read_bytes()[:-300])
    (world / "garbled.png").write_bytes(png.read_bytes()[:60] + bytes(200))
    (world / "good.png").write_bytes((world / "flat" / "0.png").read_bytes())
    (world / "text.png").write_text("not a picture")
    (world / "truncated.parquet").write_bytes(b"PAR1 and no more")

    tiny = TINY.read_text()
    (world / "tiny.yaml").write_text(tiny)
    (world / "typo.yaml").write_text(tiny.replace("depth: 2", "detph: 2"))
    (world / "type.yaml").write_text(tiny.replace("batch_size: 16", "batch_size: many"))
    (world / "broken.yaml").write_text("name: [tiny\nepochs: 1\n")

    (world / "timm").mkdir()
    (world / "timm" / "config.json").write_text(json.dumps({"architecture": "vit_base_patch16_224", "num_classes": 10}))
    (world / "timm" / "model.safetensors").write_bytes(b"")
    (world / "list").mkdir()
    (world / "list" / "config.json").write_text("[1, 2]")
    (world / "garbage").mkdir()
    (world / "garbage" / "config.json").write_text("{")
    for kind, name in ((template, "template.safetensors"), (model, "model.safetensors")):
        damaged = world / f"truncated-{kind.name}"
        shutil.copytree(kind, damaged)
        (damaged / name).write_bytes((kind / name).read_bytes()[:-50])
        shutil.copytree(kind, world / f"lost-{kind.name}")
        (world / f"lost-{kind.name}" / name).unlink()
    for name, text in (("yaml", "a: [1"), ("yaml-list", "- 1")):
        shutil.copytree(classifier, world / name)
        (world / name / "recipe.yaml").write_text(text)
    newer = json.loads((template / "config.json").read_text()) | {"format": 99}
    shutil.copytree(template, world / "newer")
    (world / "newer" / "config.json").write_text(json.dumps(newer))
    other = json.loads((model / "config.json").read_text())
    other["vit"]["depth"] = 3
    shutil.copytree(model, world / "mismatch")
    (world / "mismatch" / "config.json").write_text(json.dumps(other))
    sign(world / "mismatch")
    (world / "unfinished" / "checkpoints").mkdir(parents=True)
    (world / "full").mkdir()
    (world / "full" / "thesis.tex").write_text("do not lose me")
    return world


PRETRAIN = "pretrain tiny.yaml --out OUT "
INIT = "init template --depth 2 --heads 2 --out OUT "
FINETUNE = f"finetune model --data {SHAPES} --out OUT device=cpu max_steps=1 "

CASES = {
    # images
    PRETRAIN + "--data folder:nowhere": ["--data folder:nowhere", "no such folder"],
    PRETRAIN + "--data folder:good.png": ["--data folder:good.png", "not a folder"],
    PRETRAIN + "--data folder:letters": ["--data folder:letters", "no images"],
    PRETRAIN + "--data folder:empty": ["--data folder:empty", "no images"],
    PRETRAIN + "--data folder:corrupt": ["corrupt/two/5.png", "not a readable image"],
    PRETRAIN + "--data parquet:nowhere": ["--data parquet:nowhere"],
    PRETRAIN + "--data parquet:truncated.parquet": ["truncated.parquet"],
    PRETRAIN + "--data flat": ["--data flat", "folder:flat"],
    PRETRAIN + "--data ftp:flat": ["--data ftp:flat", "folder:"],
    PRETRAIN + "--data shapes:m=3": ["--data shapes:m=3", "'m=3'"],
    PRETRAIN + "data.train_split=part": ["no split 'part'", "train, val"],
    "pretrain tiny.yaml --out OUT data.source=null": ["--data"],
    FINETUNE + "--data folder:flat": ["--data folder:flat", "no class labels"],
    FINETUNE + "--data folder:corrupt": ["corrupt/two/5.png", "not a readable image"],
    FINETUNE + "data.labels=15": ["data.labels=15", "10 classes"],
    FINETUNE + "data.labels=100": ["data.labels=100"],
    "bench table1 --out OUT --max-minutes inf": ["--max-minutes", "less than or equal to 1000000"],
    "data check folder:nowhere": ["--data folder:nowhere", "no such folder"],
    "data pack folder:empty --img-size 16 --out OUT": ["--data folder:empty", "no images"],
    # recipes
    "pretrain nothing.yaml --out OUT": ["RECIPE nothing.yaml", "no such file"],
    "pretrain finetune/classify --out OUT": ["RECIPE finetune/classify", "one of sweet finetune (of sweet pretrain: "],
    "plan finetune/detect": ["RECIPE finetune/detect", "one of sweet finetune (of sweet pretrain: "],
    "pretrain typo.yaml --out OUT": ["typo.yaml:19", "model.detph", "did you mean model.depth?"],
    "pretrain type.yaml --out OUT": ["type.yaml:5", "batch_size", '"many"'],
    "pretrain broken.yaml --out OUT": ["broken.yaml:2", "not valid YAML"],
    "pretrain good.png --out OUT": ["RECIPE good.png", "not a text file"],
    "plan typo.yaml": ["typo.yaml:19", "model.detph"],
    PRETRAIN + "mode.depth=2": ["mode.depth=2", "did you mean model?"],
    PRETRAIN + "lr=fast": ["lr=fast", '"fast"'],
    PRETRAIN + "model.depth=0": ["model.depth=0", "greater than or equal to 1"],
    PRETRAIN + "model.heads=-2": ["model.heads=-2"],
    PRETRAIN + "model.head_dim=6": ["model.head_dim", "multiple of 4"],
    PRETRAIN + "model.patch_size=5": ["model.patch_size=5", "img_size 16 is not a multiple of patch_size 5"],
    PRETRAIN + "template.learn=whole template.ranks=[8,8,8]": ["template.learn", "full ranks"],
    PRETRAIN + "template.ranks=[8,99,16]": ["template.ranks", "rank 2 is 99"],
    PRETRAIN + "width.min_heads=9 width.mode=shared": ["width.min_heads", "9 is more than model.heads 2"],
    PRETRAIN + "device=tpu": ["device=tpu", "auto, cpu, cuda"],
    PRETRAIN + "device=cuda:77": ["device=cuda:77"],
    PRETRAIN + "optim.precision=fp16": ["optim.precision=fp16", "GPU"],
    PRETRAIN + "optim.accumulate=3": ["optim.accumulate=3", "batch_size 16"],
    PRETRAIN + "init_from=model": ["model", "is a model, expected a template or a dense"],
    PRETRAIN + "data.mean=[0.5]": ["data.mean"],
    FINETUNE + "epoch=3": ["epoch=3", "did you mean epochs?"],
    FINETUNE + "data.img_size=64": ["data.img_size=64", "16 px"],
    FINETUNE + "batch_size=5 mixup=0.5": ["batch_size=5", "pairs"],
    FINETUNE + "ema=1.5": ["ema=1.5"],
    # sizes and methods
    "init template --depth 0 --heads 2 --out OUT": ["--depth", "0 is not a whole number from 1"],
    "init template --depth 2 --heads 0 --out OUT": ["--heads", "0 is not a whole number from 1"],
    "init template --depth -3 --heads 2 --out OUT": ["--depth", "-3"],
    "init template --depth 2 --heads two --out OUT": ["--heads", "two"],
    INIT + "--patch-size 5": ["--img-size 16", "--patch-size 5"],
    INIT + "--img-size 18": ["--img-size 18", "the source's patch size 4"],
    INIT + "--in-chans 0": ["--in-chans", "0"],
    INIT + "--method magic": ["--method magic", "weight_selection"],
    INIT + "--order alphabet": ["--order", "alphabet"],
    INIT + "--layers odd": ["--layers", "odd"],
    INIT + "--method weight_selection": ["--method weight_selection", "pretrain one with template.constraint=none"],
    "init dense --method weight_selection --depth 3 --heads 2 --out OUT": ["L3H2", "larger than the source L2H2"],
    # folders that are something else
    "init nowhere --depth 2 --heads 2 --out OUT": ["nowhere", "no such file or folder"],
    "init flat --depth 2 --heads 2 --out OUT": ["flat", "not a sweet folder"],
    "init timm --depth 2 --heads 2 --out OUT": ["timm/model.safetensors", "not a safetensors file"],
    "init list --depth 2 --heads 2 --out OUT": ["list/config.json", "not written by sweet"],
    "init garbage --depth 2 --heads 2 --out OUT": ["garbage/config.json", "not valid JSON"],
    "init newer --depth 2 --heads 2 --out OUT": ["newer/config.json", "99"],
    "init unfinished --depth 2 --heads 2 --out OUT": ["unfinished", "--resume"],
    "init model --depth 2 --heads 2 --out OUT": ["model", "is a model, expected a template or a dense"],
    "init truncated-template --depth 2 --heads 2 --out OUT": ["truncated-template/template.safetensors"],
    "init lost-template --depth 2 --heads 2 --out OUT": ["lost-template/template.safetensors", "no such file"],
    f"finetune template --data {SHAPES} --out OUT": ["template", "is a template, expected a model"],
    f"finetune truncated-model --data {SHAPES} --out OUT": ["truncated-model/model.safetensors"],
    f"finetune mismatch --data {SHAPES} --out OUT": ["mismatch/model.safetensors", "blocks.2"],
    f"evaluate timm --data {SHAPES}": ["timm/config.json", "not written by sweet"],
    f"evaluate dense --data {SHAPES}": ["dense", "is a dense source, expected a model"],
    f"embed template --data {SHAPES} --out OUT": ["template", "is a template, expected a model"],
    "predict dense good.png": ["dense", "is a dense source, expected a model"],
    "inspect flat": ["flat", "not a sweet folder"],
    "inspect timm": ["timm/config.json", "not written by sweet; sweet init and sweet convert take"],
    "inspect truncated-template": ["truncated-template/template.safetensors"],
    # using a model
    "evaluate classifier --data folder:two-classes": ["--data folder:two-classes", "2 classes", "10"],
    "evaluate classifier --data folder:flat": ["--data folder:flat", "no class labels"],
    f"evaluate model --data {SHAPES}": ["model", "was not trained for anything", "finetune"],
    f"evaluate classifier --data {SHAPES} --split nights": ["no split 'nights'"],
    f"evaluate classifier --data {SHAPES} --device tpu": ["device", "tpu"],
    INIT + "--device tpu": ["device", "tpu"],
    f"evaluate classifier --data {SHAPES} --device cuda:x": ["device", "cuda:x"],
    f"evaluate classifier --data {SHAPES} --batch-size 0": ["--batch-size", "0"],
    f"embed classifier --data {SHAPES} --out nowhere/features.parquet": ["nowhere", "no such folder"],
    f"embed classifier --data {SHAPES} --out good.png": ["--out good.png", "exists"],
    "predict model good.png": ["model", "was not trained for anything"],
    "predict classifier text.png": ["text.png", "not a readable image"],
    "predict classifier garbled.png": ["garbled.png", "not a readable image"],
    "predict classifier absent.png": ["IMAGES absent.png", "no such file"],
    "generate model --guidance nan --out OUT": ["--guidance nan", "at least 1"],
    "generate model --out model --overwrite": ["--out model", "is MODEL itself"],
    "predict classifier good.png --out classifier --overwrite": ["--out classifier", "is MODEL itself"],
    "generate model --guidance inf --out OUT": ["--guidance inf", "at least 1"],
    f"plan tiny.yaml --data {SHAPES} --images 9": ["--images 9", "--data"],
    # leaving
    "export classifier --no-head --seeds model --to timm --out OUT": ["--seeds", "--no-head"],
    "export yaml --to timm --out OUT": ["yaml: recipe.yaml: not valid YAML"],
    "export yaml-list --to timm --out OUT": ["yaml-list/recipe.yaml", "no keys"],
    "export template --to timm --out OUT": ["template", "is a template", "sweet init"],
    "export template --to onnx --out OUT": ["template", "is a template", "sweet init"],
    "export flat --to timm --out OUT": ["flat", "not a sweet folder"],
    "export timm --to onnx --out OUT": ["timm/config.json", "not written by sweet"],
    "export truncated-model --to timm --out OUT": ["truncated-model/model.safetensors"],
    "export mismatch --to safetensors --out OUT": ["mismatch/model.safetensors", "blocks.2"],
    "export model --to transformers --out OUT": ["--to transformers", "family eva", "--to timm"],
    "export model --to timm --repo anna/vit --out OUT": ["--repo anna/vit", "--to hub"],
    "export model --to hub --repo what/is/this --out OUT": ["--repo what/is/this"],
    "export model --to hub --private --out OUT": ["--private", "--repo"],
    "export classifier --seeds model --to timm --out OUT": ["--seeds model", "no metrics"],
    "export model --to timm --out full": ["--out full", "not empty; --overwrite replaces it"],
    "verify flat": ["flat", "no SHA256SUMS"],
    "verify truncated-model": ["truncated-model/model.safetensors", "SHA256"],
    f"verify model --data {SHAPES}": ["--data", "model records no metrics"],
    f"verify classifier --data {SHAPES} --split nights": ["no split 'nights'"],
    # where nothing may be written
    f"pretrain tiny.yaml --data {SHAPES} --out full": ["--out full", "not empty"],
    f"pretrain tiny.yaml --data {SHAPES} --out full --overwrite": ["--out full", "not written by sweet"],
    "init template --depth 2 --heads 2 --out full": ["--out full", "not empty"],
    f"finetune model --data {SHAPES} --out full": ["--out full", "not empty"],
    f"finetune model --data {SHAPES} --out good.png": ["--out good.png", "not a folder"],
    "data pack folder:flat --img-size 8 --out full": ["--out full", "not empty"],
    "bench table1 --out full": ["--out full", "not empty"],
    "report template --out full": ["--out full", "is a folder"],
    "report template --out good.png": ["--out good.png", "exists"],
    # reports
    "report template": ["--out is missing"],
    "report nowhere --out OUT": ["RUN_DIR nowhere", "no such folder"],
    "report flat --out OUT": ["flat", "neither a run nor results"],
    "report garbage --out OUT": ["garbage/config.json", "not valid JSON"],
    "report template --data folder:nowhere --out OUT": ["--data folder:nowhere"],
    "report template --markdown OUT": ["--markdown OUT", "needs results"],
    "report truncated-template --out OUT": ["truncated-template/template.safetensors"],
    # benches
    "bench table9 --out OUT": ["table9", "table1 --protocol micro"],
    "bench table1 --out OUT": ["--data", "parquet:"],
    "bench table1 --data parquet:nowhere --out OUT": ["--data parquet:nowhere"],
    "bench table1 --data shapes:": ["--out is missing"],
    "bench table3 --data shapes: --out OUT": ["--transfer", "flowers102, tiny-imagenet-100", "NAME=SRC"],
    "bench table3 --data shapes: --transfer flowers=shapes: --out OUT": ["--transfer flowers=shapes:", "flowers102"],
    "bench quickstart --transfer a=shapes: --out OUT": ["--transfer a=shapes:", "no other sets"],
    "bench check --out full": ["--out full", "no results"],
    "data pack shapes: --img-size 8 --per-class two --out OUT": ["--per-class two", "SPLIT=N"],
    # more digits than Python reads
    f"data pack shapes: --img-size 8 --per-class train={'1' * 4301} --out OUT": ["--per-class train=1", "SPLIT=N"],
    f"data pack shapes:n={'1' * 4301} --img-size 8 --out OUT": ["--data shapes:n=1", "n=2000,size=32"],
    f"convert dense --ranks {'1' * 4301},8,8 --out OUT": ["--ranks 1", "three whole numbers"],
    "bench quickstart --methods magic --out OUT": ["--methods magic", "random, sweet"],
    "bench quickstart --sizes L9H9 --out OUT": ["--sizes L9H9", "L6H6"],
    "bench quickstart --device tpu --out OUT": ["device", "tpu"],
}


def everything(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) if path.is_file() else "folder" for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def before(world: Path) -> dict[str, str]:
    return everything(world)


@pytest.fixture(autouse=True)
def in_the_world(world: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(world)
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(4300)  # Python's own, which sympy lifts as torch is imported
    yield
    sys.set_int_max_str_digits(limit)
    shutil.rmtree(world / "OUT", ignore_errors=True)  # one failure should not become a hundred


@pytest.mark.parametrize("words", CASES)
def test_a_mistake_is_named_in_one_line(world: Path, before: dict[str, str], words: str) -> None:
    result = CliRunner().invoke(app, words.split(), prog_name="sweet")
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    line, *more = result.stderr.splitlines()
    assert more == []
    assert line.startswith("error: ")
    for part in CASES[words]:
        assert part in line
    assert everything(world) == before


def test_what_the_cases_start_from_works(world: Path, tmp_path: Path, before: dict[str, str]) -> None:
    """So that it is the mistake that is refused."""
    for words in (
        PRETRAIN + "max_steps=1 -q",
        INIT,
        FINETUNE + "-q",
        f"evaluate classifier --data {SHAPES} --device cpu",
        "predict classifier good.png --device cpu",
    ):
        out = str(tmp_path / words.split()[0])
        result = CliRunner().invoke(app, words.replace("OUT", out).split(), prog_name="sweet")
        assert result.exit_code == 0, (words, result.output)
    assert everything(world) == before
