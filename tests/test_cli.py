"""The command line without torch: words in any order, one line for a mistake, nothing imported in vain."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from sweet.cli import app
from sweet.errors import UserError
from sweet.files import write_json
from sweet.storage.paths import ON_DISK
from sweet.version import VERSION

MODEL = Path(__file__).parent / "storage" / "frozen_v1" / "model"
TINY = Path(__file__).parent / "tiny.yaml"
HEAVY = {"torch", "timm", "torchvision", "datasets", "pyarrow", "accelerate", "matplotlib", "numpy"}


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], prog_name="sweet")


def sweet_process(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "-m", "sweet", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[tuple, dict]]]:
    """spy("sweet.training.pretrain", "pretrain", result): a stand-in for the real function, and its calls."""

    def install(module: str, name: str, result: Any) -> list[tuple[tuple, dict]]:
        calls: list[tuple[tuple, dict]] = []

        def stand_in(*args: Any, **options: Any) -> Any:
            calls.append((args, options))
            if isinstance(result, BaseException):
                raise result
            return result

        fake = ModuleType(module)
        setattr(fake, name, stand_in)
        if module.count(".") > 1:
            monkeypatch.setitem(sys.modules, module.rpartition(".")[0], ModuleType("package"))
        monkeypatch.setitem(sys.modules, module, fake)
        return calls

    return install


@pytest.mark.parametrize("words", ["--help", "pretrain --help", "pretrain micro --out x lr=fast", "plan micro seed=2"])
def test_help_recipes_and_plan_import_nothing_heavy(words: str) -> None:
    done = sweet_process(*words.split())
    imported = set(re.findall(r"\|\s+(\w+)", done.stderr))
    assert "typer" in imported
    assert not imported & HEAVY


def test_a_mistyped_folder_of_a_source_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    """``runs/tempalte`` looks like a name of the hub; where ``runs`` is a folder, it is none."""
    from sweet.storage.paths import check_checkpoint

    (tmp_path / "runs").mkdir()
    with contextlib.chdir(tmp_path):
        with pytest.raises(UserError, match=r"^SOURCE runs/tempalte: no such file or folder$"):
            check_checkpoint("SOURCE", "runs/tempalte")
        check_checkpoint("SOURCE", "runs")
        check_checkpoint("SOURCE", "anna/vit@main")
        check_checkpoint("SOURCE", "timm:vit_tiny_patch16_224")


@pytest.mark.parametrize(("folder", "needed"), [("model", set()), ("template", {"numpy"})])
def test_inspect_imports_no_torch(folder: str, needed: set[str]) -> None:
    done = sweet_process("inspect", Path(__file__).parent / "storage" / "frozen_v1" / folder)
    imported = set(re.findall(r"\|\s+(\w+)", done.stderr))
    assert done.returncode == 0 and imported & HEAVY == needed


def test_help_takes_less_than_0_4_seconds() -> None:
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "sweet", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.4


def test_help_of_every_verb() -> None:
    verbs = re.findall(r"^  ([a-z]+) +[A-Z]", run("--help").stdout.partition("Commands:")[2], re.M)
    verbs_here = (
        "pretrain finetune plan init convert evaluate predict generate embed inspect reconstruct family export verify "
        "bench report doctor data cache"
    )
    assert verbs == verbs_here.split()
    for verb in [*([v] for v in verbs), ["data", "check"], ["data", "pack"]]:
        assert run(*verb, "--help").exit_code == 0
    assert run().stdout == run("--help").stdout
    assert run("--version").stdout == f"sweet {VERSION}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pretrain", "Missing option '--out'"),
        ("pretrian", "No such command 'pretrian'. Did you mean 'pretrain'?"),
        ("pretrain --outt x", "No such option"),
        ("pretrain mikro --out OUT", "RECIPE mikro: no such file or bundled recipe; did you mean micro?"),
        (
            "pretrain micro small --out OUT",
            "small: not understood after micro; an override is written key=value",
        ),
        ("pretrain micro --out OUT", "--data is missing, and the recipe has no data.source"),
        ("pretrain micro --out OUT sede=1", "sede=1: sede: unknown key; did you mean seed?"),
        ("pretrain micro --gpus 2 --out OUT", "No such option: --gpus; several GPUs: torchrun --nproc-per-node N"),
        ("init . --depth 5000 --heads 3 --out OUT", "--depth 5000: at most 1024"),
        ("init . --depth 3 --heads 2000 --out OUT", "--heads 2000: at most 256"),
        ("family . --sizes L6H2000 --data shapes: --out OUT", "--sizes L6H2000: at most 1024 blocks and 256 heads"),
        ("family . --sizes 3M --data shapes: --compare rnd --out OUT", "--compare rnd: unknown, expected one of"),
        ("init timm:local-dir:. --depth 3 --heads 3 --out OUT", "timm:local-dir:.: name the folder itself: ."),
        ("pretrain --resume --overwrite --out OUT", "--resume and --overwrite exclude each other"),
        (
            "init x --depth 0 --heads 3 --out OUT",
            "Invalid value for '--depth': 0 is not a whole number from 1",
        ),
        ("init x --depth 3 --heads 3 --out OUT --order x", "Invalid value for '--order': 'x' is not one of"),
        ("finetune --out OUT", "MODEL is missing"),
        ("finetune nowhere --out OUT", "MODEL nowhere: no such folder"),
        ("finetune . --out OUT", "--data is missing"),
        ("finetune . --data shapes: --out OUT", ".: not a sweet folder (no config.json)"),
        ("finetune . --data folder:nowhere --out OUT", "--data folder:nowhere: no such folder"),
        ("family nowhere --sizes 3M --data shapes: --out OUT", "SOURCE nowhere: no such file or folder"),
        ("family . --sizes 3M --data csv:nowhere --out OUT", "--data csv:nowhere: no such file or folder"),
        (
            "family . --sizes L3-H3 --data shapes: --out OUT",
            "--sizes L3-H3: expected a number of parameters such as 12M",
        ),
        ("pretrain micro learningrate=1 --out OUT", "learningrate=1: learningrate: unknown key; did you mean lr?"),
        ("pretrain micro optim.wd=1 --out OUT", "optim.wd=1: optim.wd: unknown key; did you mean optim.weight_decay?"),
        ("init nowhere --depth 3 --heads 3 --out OUT", "SOURCE nowhere: no such file or folder"),
        ("init . --params 3M --fit packed:nowhere --out OUT", "--fit packed:nowhere: no such file"),
        ("convert nowhere.pth --out OUT", "SOURCE nowhere.pth: no such file or folder"),
        ("evaluate . --data shapes:", ".: not a sweet folder (no config.json)"),
        ("predict . --threshold 2 .", "--threshold 2: should be from 0 to 1"),
        ("verify . --data masks:nowhere", "--data masks:nowhere: no such file or folder"),
        ("data check yolo:nowhere", "--data yolo:nowhere: no such file or folder"),
        ("plan micro --data folder:nowhere", "--data folder:nowhere: no such folder"),
        ("bench table1 --data parquet:nowhere --out OUT", "--data parquet:nowhere: no such file or folder"),
        (
            "pretrain micro --epochs 3 --out OUT",
            "No such option: --epochs; a key of the recipe is written without dashes: epochs=...",
        ),
        ("finetune . --layer-decay 0.7 --out OUT", "No such option: --layer-decay; a key of the recipe is written "),
        (
            "init . --size L6H6 --out OUT",
            "No such option: --size",
        ),
        (
            "init . --depth 3 --heads 3 --method swet --out OUT",
            "--method swet: unknown, expected one of sweet, ",
        ),
        ("finetune . --data shapes: --log-with wnadb --out OUT", "log_with=[wnadb]: log_with.0: should be "),
        ("finetune . --out OUT --task dance", "Invalid value for '--task': 'dance' is not one of classify, "),
        ("evaluate nowhere --data shapes:", "MODEL nowhere: no such folder"),
        ("generate nowhere --out OUT", "MODEL nowhere: no such folder"),
        ("reconstruct . --sizes L1H1 --data shapes: --out .", "--out .: is a folder, not a file"),
        ("predict . nothing.png", "IMAGES nothing.png: no such file"),
        ("embed . --data shapes: --out .", "--out .: is a folder, not a file"),
        ("inspect nowhere", "SOURCE nowhere: no such folder"),
        ("export nowhere --to timm --out OUT", "MODEL nowhere: no such folder"),
        ("export . --out OUT", "Missing option '--to'"),
        ("export . --to tensorflow --out OUT", "Invalid value for '--to': 'tensorflow' is not one of"),
        ("export . --to timm --out .", "--out .: is MODEL itself"),
        ("verify nowhere", "DIR nowhere: no such folder"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*words.split())
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_hints_name_what_was_meant() -> None:
    assert (
        "; a size such as L6H6 is written --depth 6 --heads 6"
        in run("init", ".", "--size", "L6H6", "--out", "x").stderr
    )
    assert "did you mean sweet?" in run("init", ".", "--method", "swet", "--out", "x").stderr
    assert "did you mean detect?" in run("finetune", ".", "--task", "detekt", "--out", "x").stderr
    assert "without dashes: optim.layer_decay=..." in run("finetune", ".", "--layer-decay", "1", "--out", "x").stderr
    assert "without dashes: lr=..." in run("finetune", ".", "--learning-rate", "1", "--out", "x").stderr
    assert "without dashes" not in run("inspect", ".", "--epochs", "1").stderr  # it has no recipe


def complete(words: str, place: Path) -> list[str]:
    """What bash offers after ``words``."""
    environment = os.environ | {"_SWEET_COMPLETE": "complete_bash", "COMP_WORDS": words}
    environment["COMP_CWORD"] = str(len(words.split(" ")) - 1)
    done = subprocess.run(
        [sys.executable, "-m", "sweet"], capture_output=True, text=True, env=environment, cwd=place, check=False
    )
    return done.stdout.split()


def test_the_shell_completes_recipes_keys_and_methods(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert complete("sweet pretrain mi", tmp_path) == ["micro"]
    assert complete("sweet pretrain micro optim.comp", tmp_path) == ["optim.compile="]
    assert complete("sweet finetune model layer", tmp_path) == []
    assert complete("sweet finetune mo", tmp_path) == ["model/"]
    assert complete("sweet finetune model pat", tmp_path) == ["patience="]
    assert complete("sweet init model --method wa", tmp_path) == ["wave"]
    assert complete("sweet family model --compare ran", tmp_path) == ["random"]
    assert complete("sweet finetune model --task mul", tmp_path) == ["multilabel"]


def test_readers_on_disk_are_those_that_take_a_path() -> None:
    from sweet.data.sources import NO_PATHS, OPENERS

    assert set(ON_DISK) == set(OPENERS) - set(NO_PATHS)


def test_plan_looks_at_images_and_times_two_steps() -> None:
    words = f"plan {TINY} --data shapes:n=300,size=16 max_steps=40 --json"
    planned = json.loads(run(*words.split()).stdout)
    shown = planned["here"]
    assert (shown["images"], shown["steps"], shown["device"]) == (300, 40, "cpu")
    assert 0 < shown["seconds_per_step"] < 10 and shown["memory_mb"] > 50
    assert shown["minutes"] == pytest.approx(40 * shown["seconds_per_step"] / 60, abs=0.06)
    assert shown["notes"] == [] and planned["recipe"] == "tiny"
    assert "gpus" not in planned  # seconds of one: not worth a word
    stated = json.loads(run(*words.split(), "--gpu", "h100").stdout)
    assert stated["gpus_assume"].startswith("h100 at 30 %") and 0 < stated["gpus"][0]["hours"] < 1e-3
    words = f"plan {TINY} --data shapes:n=20,size=16 max_steps=null epochs=1 --json"
    few = json.loads(run(*words.split()).stdout)["here"]["notes"]
    assert few == ["20 images in batches of 16 make 1 step in all, few to learn from; epochs=200 makes 200"]


def test_plan_times_a_part_of_a_batch_that_takes_a_cpu_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch for a GPU would fill the memory of a laptop before anything is printed."""
    from sweet.recipes.loader import load_recipe
    from sweet.recipes.schema import PretrainRecipe
    from sweet.training import trial as module

    seen: list[int] = []
    real = module.prepare

    def prepare(short: PretrainRecipe, out: Path) -> object:
        seen.append(short.batch_size)
        return real(short, out)

    monkeypatch.setattr(module, "prepare", prepare)
    peaks = cycle([10**8, 10**9])  # before and after: what this process took at the most is that of other tests
    monkeypatch.setattr(module, "peak_memory", lambda device: next(peaks))
    recipe = load_recipe(PretrainRecipe, str(TINY), ["data.source=shapes:n=64,size=16", "max_steps=3"])
    whole = module.trial(recipe)
    monkeypatch.setattr(module, "LARGEST_STEP", module.LARGEST_STEP / 1e6)
    small = module.trial(recipe)
    large = module.trial(recipe.model_copy(update={"batch_size": 100_000, "max_steps": 3}))
    assert seen[0] == recipe.batch_size and seen[1] < recipe.batch_size and seen[2] < 1000
    assert large.seconds_per_step > 10 * small.seconds_per_step > 0
    assert (
        large.memory_mb > 10 * small.memory_mb > 10 * whole.memory_mb >= 10**4
        and whole.steps == small.steps == large.steps == 3
    )


def test_plan_takes_few_of_the_labels_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of images that are too large to be packed, some damaged; a training would list these in its folder."""
    from sweet.recipes.loader import load_recipe
    from sweet.recipes.schema import PretrainRecipe
    from sweet.training.trial import trial

    for split, count in (("train", 4), ("val", 1)):
        for name in "ab":
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (128, 128), (40 * number, 0, 0)).save(
                    tmp_path / "set" / split / name / f"{number}.png"
                )
    for name in ("a/0", "a/1", "b/2"):  # six of eight are looked at
        (tmp_path / "set" / "train" / f"{name}.png").write_bytes(b"no image")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    keys = (
        f"data.source=folder:{tmp_path / 'set'} data.img_size=128 model.patch_size=32 batch_size=2 data.on_error=skip "
        "data.max_skipped=0.9 objective=supervised data.labels=8"
    )
    assert trial(load_recipe(PretrainRecipe, str(TINY), keys.split())).images == 8
    assert list((tmp_path / "here").iterdir()) == []


def test_more_memory_than_there_is_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the plan, that measures, and at the beginning of a training, that has the rule of thumb."""
    import sweet
    from sweet.costs.memory import machine_memory
    from sweet.costs.plan import plan
    from sweet.recipes.loader import load_recipe
    from sweet.recipes.schema import PretrainRecipe
    from sweet.training import finetune, pretrain, trial

    assert (machine_memory() or 10**9) > 10**8
    recipe = load_recipe(PretrainRecipe, str(TINY), ["data.source=shapes:n=64,size=16", "max_steps=1"])
    assert trial.trial(recipe).notes == []
    for module in (trial, pretrain, finetune):
        monkeypatch.setattr(module, "machine_memory", lambda: 10**5)
    (note,) = trial.trial(recipe).notes
    assert re.match(r"about [\d,]+ GB of memory are needed, and 0 GB are there; a smaller batch_size", note)
    sweet.pretrain(TINY, out=tmp_path / "out", data="shapes:n=64,size=16", max_steps=1)
    assert "note: about 0 GB of memory are needed" in capsys.readouterr().err
    sweet.init(tmp_path / "out", depth=1, heads=1, out=tmp_path / "model")
    sweet.finetune(tmp_path / "model", out=tmp_path / "tuned", data="shapes:n=64,size=16", max_steps=1)
    assert "note: about 0 GB of memory are needed" in capsys.readouterr().err
    whole, half = (
        plan(load_recipe(PretrainRecipe, "small", [f"batch_size={size}"]))["memory_gb"] for size in (512, 256)
    )
    assert float(str(half)) < float(str(whole)) < 2 * float(str(half))


def test_days_of_a_cpu_are_said() -> None:
    from sweet.costs.advice import advice
    from sweet.recipes.loader import load_recipe
    from sweet.recipes.schema import PretrainRecipe

    recipe = load_recipe(PretrainRecipe, "vit_b16_in1k", [])
    assert advice(recipe, 10**6, 10**5, 2.9e19, on_cpu=False) == []
    (note,) = advice(recipe, 10**6, 10**5, 2.9e19, on_cpu=True)
    assert note.startswith("29,000 PFLOP without a GPU: about 3,356 days here; smaller are the recipes quickstart")


def test_a_limit_that_is_not_reached_is_said() -> None:
    from sweet.costs.advice import advice
    from sweet.recipes.loader import load_recipe
    from sweet.recipes.schema import PretrainRecipe

    recipe = load_recipe(PretrainRecipe, "micro", ["max_steps=600", "epochs=300"])
    (note,) = advice(recipe, 216, 300, 1e12, on_cpu=True)
    assert note == "max_steps=600 is not reached: epochs=300 ends first, after 300 steps"
    assert advice(recipe, 10**5, 600, 1e12, on_cpu=True) == []


def test_advice_on_few_steps_is_true() -> None:
    from sweet.costs.advice import steps_text
    from sweet.recipes.loader import load_recipe
    from sweet.recipes.resolved import total_steps
    from sweet.recipes.schema import PretrainRecipe

    def recipe(*words: str) -> PretrainRecipe:
        return load_recipe(PretrainRecipe, "micro", [*words, "batch_size=16"])

    said = steps_text(recipe("epochs=7"), 48, 21)
    assert "epochs=67 makes 200" in said and total_steps(recipe("epochs=67"), 3) >= 200
    limited = load_recipe(PretrainRecipe, "micro", ["max_steps=50", "batch_size=512"])
    assert steps_text(limited, 10**6, 50) == ""  # smaller batches make no more of them


def test_what_is_printed_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    from sweet.console import show

    result = {"images": 58880, "training": {"precision": "no", "steps": 460}, "out": "runs/no"}
    show(lambda: result, as_json=False)
    assert dict(line.split() for line in capsys.readouterr().out.splitlines()) == {
        "images": "58,880", "training.precision": "fp32", "training.steps": "460", "out": "runs/no"
    }  # fmt: skip
    show(lambda: result, as_json=True)
    assert json.loads(capsys.readouterr().out) == result
    show(lambda: {"per_class": {f"c{i:03d}": 50.0 * (i == 60) for i in range(100)}}, as_json=False)
    *_, last, rest = capsys.readouterr().out.splitlines()
    assert last.split() == ["per_class.c009", "0"] and rest.split(None, 3)[2:] == ["more", "up to 50; see --json"]


def test_doctor() -> None:
    shown = json.loads(run("doctor", "--json").stdout)
    assert shown["sweet"] == VERSION and shown["packages"].keys() >= {"torch", "timm", "accelerate"}
    assert shown["threads"] >= 1 and "tensorboard" in shown["trackers"]
    assert isinstance(shown["missing"], list) and os.environ["SWEET_CACHE"] in shown["cache"]
    assert run("doctor").exit_code == 0


def test_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    missing = json.loads(run("doctor", "--json").stdout)["missing"]
    assert any(line.startswith("onnx: needed for sweet export --to onnx; pip install") for line in missing)
    assert any(line.startswith("a C++ compiler") for line in missing) or torch_has_a_gpu()


def torch_has_a_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def test_a_full_output_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for words in (
        "pretrain --out full",
        "init x --depth 1 --heads 1 --out full",
        "finetune . --data shapes: --out full",
        "bench table1 --out full",
        "data pack shapes: --img-size 8 --out full",
    ):
        result = run(*words.split())
        assert (result.exit_code, result.stderr[:17]) == (2, "error: --out full"), words


def test_words_and_options_come_in_any_order(tmp_path: Path, spy: Callable) -> None:
    calls = spy("sweet.training.pretrain", "pretrain", {"loss": 0.5})
    out = tmp_path / "run"
    words = [
        "micro",
        "seed=7",
        "data.img_size=16",
        "--json",
        f"--out={out}",
        "--data=shapes:",
        "data.source=other",
    ]
    for turn in range(len(words)):
        result = run("pretrain", *words[turn:], *words[:turn])
        assert json.loads(result.stdout) == {"loss": 0.5}
    assert len(calls) == len(words)
    for (recipe, where), options in calls:
        assert (recipe.name, recipe.seed, recipe.data.img_size, where) == ("micro", 7, 16, out)
        assert recipe.data.source == "shapes:"  # --data wins
        assert options == {"resume": False, "quiet": False}


def test_pretrain_without_a_recipe_runs_the_quickstart(tmp_path: Path, spy: Callable) -> None:
    calls = spy("sweet.training.pretrain", "pretrain", {"loss": 0.5})
    assert run("pretrain", "--out", tmp_path / "run").exit_code == 0
    assert calls[0][0][0].name == "quickstart"


def test_resume_alone_takes_the_recipe_of_the_run(tmp_path: Path, spy: Callable) -> None:
    from sweet.recipes.loader import dump_recipe, load_recipe
    from sweet.recipes.schema import PretrainRecipe

    calls = spy("sweet.training.pretrain", "pretrain", {})
    recipe = load_recipe(PretrainRecipe, "micro", ["seed=9", "data.source=folder:a b"])
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    (tmp_path / "env.json").write_text('{"torch": "2.9"}')  # without it the recipe is somebody's own
    assert run("pretrain", "--resume", "--out", tmp_path).exit_code == 0
    assert calls[0][0][0] == recipe
    assert calls[0][1]["resume"]


def test_finetune_passes_model_task_and_overrides(tmp_path: Path, spy: Callable) -> None:
    calls = spy("sweet.training.finetune", "finetune", {"top1": 0.5})
    result = run("finetune", "epochs=2", MODEL, "--data", "shapes:", "data.labels=10", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    (model, recipe, out), options = calls[0]
    assert (model, out, options["task"]) == (MODEL, tmp_path / "run", "classify")
    assert (recipe.epochs, recipe.data.labels, recipe.data.source) == (2, 10, "shapes:")


def test_bench_lists_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweet.bench import run as bench
    from sweet.bench.protocols import PROTOCOLS

    calls: list[tuple[tuple, dict]] = []
    monkeypatch.setattr(bench, "run", lambda *names, **options: calls.append((names, options)) or {})
    run(
        "bench",
        "table1",
        "--methods",
        "sweet, random",
        "--sizes",
        "L3H6",
        "--out",
        tmp_path / "run",
        "--seeds",
        2,
    )
    (names, options) = calls[0]
    assert names == (PROTOCOLS["table1", "micro"], "table1")
    assert (options["methods"], options["sizes"], options["seeds"]) == (["sweet", "random"], ["L3H6"], 2)


def test_bench_plans_without_a_folder_or_images() -> None:
    result = run("bench", "table1", "--protocol", "paper", "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    planned = json.loads(result.stdout)
    assert (planned["recipe"], planned["cells"]) == ("vit_b16_in1k", 79)
    # a teacher comes on top; a size that is pre-trained itself costs what its size costs
    alike = [row for row in planned["sources"] if row["source"] != "kronecker.taught" and "own." not in row["source"]]
    costs = [row["against_the_least"] for row in alike]
    assert len(costs) > 3 and min(costs) == 1.0 and max(costs) < 1.05


def test_a_folder_of_unfair_results_is_refused(tmp_path: Path) -> None:
    for arm, source in (("sweet", "a"), ("dmae", "b")):
        cell = {"arm": arm, "size": "L1H1", "source": source, "test_images": 5, "runs": [{"seed": 0, "top1": 1.0}]}
        write_json(tmp_path / "micro" / "table1" / f"classify-{arm}-L1H1.json", cell)
    result = run("bench", "check", "--out", tmp_path, "--json")
    assert result.exit_code == 2
    assert len(json.loads(result.stdout)["violations"]) == 2  # nobody says what the sources took


def test_predict_prints_a_table(tmp_path: Path, spy: Callable) -> None:
    image = tmp_path / "a.png"
    image.touch()
    spy("sweet.inference.evaluate", "predict", [{"image": "a.png", "class": "cat", "probability": 0.75}])
    result = run("predict", MODEL, image)
    assert result.stdout.split() == "image class probability a.png cat 0.75".split()


def test_exit_codes(tmp_path: Path, spy: Callable) -> None:
    for error, code, text in [
        (UserError("--data x: no such folder"), 2, "error: --data x: no such folder\n"),
        (KeyboardInterrupt(), 130, ""),
        (ZeroDivisionError("a bug"), 1, ""),
    ]:
        spy("sweet.training.pretrain", "pretrain", error)
        result = run("pretrain", "--out", tmp_path / "run")
        assert (result.exit_code, result.stderr) == (code, text)
        assert not (tmp_path / "run").exists()
    assert isinstance(result.exception, ZeroDivisionError)  # left to Python, which prints the traceback


@pytest.mark.parametrize(("measured", "failed", "code"), [(3, [], 0), (2, ["sweet L1H1: no"], 1), (0, ["x: no"], 2)])
def test_a_bench_says_by_its_code_how_it_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: int, failed: list[str], code: int
) -> None:
    monkeypatch.setattr("sweet.bench.run.run", lambda *_, **__: {"measured": measured, "failed": failed})
    assert run("bench", "quickstart", "--out", tmp_path / "out", "--json").exit_code == code
