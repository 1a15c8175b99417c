"""A family from a source to a chart: every size once, also when it is stopped on the way."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from sweet.cli import app
from sweet.costs.budget import size_cost
from sweet.describe import inspect
from sweet.errors import UserError
from sweet.export import verify
from sweet.family import family, make
from sweet.family.chart import write_chart
from sweet.family.sizes import members
from sweet.files import check_sums, read_json, sha256, write_json
from sweet.models.config import ViTConfig
from sweet.recipes.schema import FinetuneRecipe
from sweet.results.family import Family, Member, on_front, read_family
from sweet.results.paired import signed
from sweet.results.report import report
from sweet.storage.legacy import MEMBER
from sweet.storage.records import read_record
from sweet.tasks.registry import TASKS, Metric
from sweet.template.sizes import Size
from sweet.training.nonfinite import NonFinite

SIZES = ["1200", "L2H2", "L1H2"]
WORDS = (
    "--data shapes:n=64,size=16 device=cpu workers=0 optim.precision=fp32 max_steps=6 batch_size=16 checkpoint_every=2"
)


@pytest.fixture(scope="module")
def made(
    template: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("family") / "family"
    return out, family(template, SIZES, tiny_finetune(), out, latency="cpu", quiet=True)


def test_every_size_is_a_model_of_its_own(made: tuple[Path, dict[str, Any]], template: Path) -> None:
    out, result = made
    written = read_json(out / "family.json")
    assert [row["size"] for row in written["members"]] == ["L1H1", "L1H2", "L2H2"]  # from small to large
    assert [row["requested"] for row in written["members"]] == ["1200", "L1H2", "L2H2"]
    assert written["source_sha256"] == sha256(template / "template.safetensors")
    for row, shown in zip(written["members"], result["members"], strict=True):
        config = read_json(out / row["size"] / "config.json")
        assert row["metrics"] == config["metrics"]
        assert shown["top1"] == config["metrics"]["top1"]
        assert row["params"] == config["made"]["parameters"]
        assert row["flops"] == size_cost(ViTConfig(**config["vit"]), Size.parse(row["size"], 8)).flops
        assert row["latency"]["ms"] > 0 and row["latency"]["protocol"]["batch"] == 1
        assert check_sums(out / row["size"]) and all(check_sums(out / row["size"]).values())
    assert not (out / ".starts").exists()


def test_its_sums_are_checked_and_another_recipe_leaves_no_trace(
    made: tuple[Path, dict[str, Any]],
    template: Path,
    tiny_finetune: Callable[..., FinetuneRecipe],
    tmp_path: Path,
) -> None:
    out = shutil.copytree(made[0], tmp_path / "family")
    assert inspect(out)["checksums"] == "not checked (--verify checks them)"
    assert inspect(out, verify=True)["checksums"] == "ok"
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(UserError, match=r"--resume: lr=0.001, but .* was begun with lr=0.002"):
        family(template, ["L2H1"], tiny_finetune("lr=1e-3"), out, resume=True, quiet=True)
    assert sorted(path.name for path in out.iterdir()) == before  # no start of L2H1, by which it would be unfinished
    (out / "L1H1" / "README.md").write_text("another")
    with pytest.raises(UserError, match=r"L1H1: the SHA256 of README.md is not the one in SHA256SUMS"):
        inspect(out, verify=True)


def test_table_and_chart(made: tuple[Path, dict[str, Any]]) -> None:
    out, _ = made
    rows = read_json(out / "family.json")["members"]
    lines = (out / "table.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| L")]
    assert [cell[0] for cell in cells] == [row["size"] for row in rows]
    assert [cell[1] for cell in cells] == [f"{row['metrics']['top1']:.2f}" for row in rows]
    assert [cell[2] == "yes" for cell in cells] == [row["pareto"] for row in rows]
    with Image.open(out / "pareto.png") as picture:
        assert picture.size[0] > 400
    assert ElementTree.parse(out / "pareto.svg").getroot().tag.endswith("svg")


def test_compared_with_random(
    template: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path, made: tuple[Path, dict[str, Any]]
) -> None:
    out = tmp_path / "family"
    with pytest.raises(UserError, match="--compare sweet: is how the family itself is initialised"):
        family(template, ["L1H1"], tiny_finetune(), out, compare=["random", "sweet"], quiet=True)
    assert not out.exists()
    words = f"family {template} --sizes L1H1,L1H2 {WORDS} lr=2e-3 --out {out} --compare random --json -q"
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    for row in shown["members"]:
        random = read_json(out / "random" / row["size"] / "config.json")
        assert random["made"]["method"] == "random" and random["metrics"]["top1"] == row["random"]
        assert row["gain over random"] == pytest.approx(row["top1"] - row["random"], abs=1e-3)
        assert sha256(out / row["size"] / "model.safetensors") == sha256(made[0] / row["size"] / "model.safetensors")
    better = sum(row["gain over random"] > 0 for row in shown["members"])
    assert shown["conclusion"].startswith(
        f"sweet is better than random at {better} of 2 sizes; the mean difference is "
    )
    text = (out / "table.md").read_text()
    assert "| random | gain over random |" in text
    for row in shown["members"]:
        assert f"| {row['random']:.2f} | {signed(row['gain over random'], 2)} |" in text
    assert text.lower().count("one run each") == 1  # in the conclusion, and not below it again
    assert re.search(r"\(one run each, measured on \d+ images; sampling error ±[\d.]+ points\)", shown["conclusion"])

    # another verb's view of the same folder
    seen = inspect(out)
    assert (seen["kind"], seen["conclusion"], seen["members"]) == ("family", shown["conclusion"], shown["members"])
    checked = verify(out)["members"]
    assert [row["model"] for row in checked] == ["L1H1", "L1H2", "random/L1H1", "random/L1H2"]  # type: ignore[union-attr]
    assert all(row["checksums"] == "ok" and row["loads"] for row in checked)  # type: ignore[union-attr]
    written = report([out], tmp_path / "report.html")
    assert written["families"] == [{"family": str(out), "members": 2}] and len(written["runs"]) == 4  # type: ignore[arg-type]
    page = (tmp_path / "report.html").read_text()
    assert shown["conclusion"] in page and '<svg class="on-white"' in page
    assert "<dt>lr</dt><dd>0.002</dd>" in page and "<dt>epochs</dt>" in page
    assert "<title>sweet report: 1 family, 4 runs</title>" in page
    places = re.findall(r'<a href="#\w+">family/([^<]+)</a>', page)
    assert places == ["L1H1", "L1H2", "random/L1H1", "random/L1H2"]
    assert page.count("<summary>All numbers, curves and conditions</summary>") == 4  # of so many runs, the first line
    assert "Differences are paired over seeds" not in page  # of tables, and there is none
    with (out / "L1H2" / "recipe.yaml").open("a") as file:
        file.write("#")
    with pytest.raises(UserError, match=r"L1H2/recipe.yaml: its SHA256 is not the one"):
        verify(out)


def test_images_without_labels_are_refused_before_a_checkpoint_is_converted(
    tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "theirs" / "config.json", {"architecture": "vit_tiny_patch16_224"})
    (tmp_path / "flat").mkdir()
    for number in range(4):
        Image.new("RGB", (16, 16)).save(tmp_path / "flat" / f"{number}.png")
    monkeypatch.setattr(make, "as_source", lambda *_, **__: pytest.fail("it was converted"))
    recipe = tiny_finetune(f"data.source=folder:{tmp_path / 'flat'}")
    with pytest.raises(UserError, match="has no class labels"):
        family(tmp_path / "theirs", ["L1H1"], recipe, tmp_path / "out", quiet=True)


def test_several_seeds_give_a_mean_and_a_spread(
    template: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path, made: tuple[Path, dict[str, Any]]
) -> None:
    out = tmp_path / "family"
    recipe, words = tiny_finetune(), {"compare": ["random"], "quiet": True}
    family(template, ["L1H1"], recipe, out, **words)
    result = family(template, ["L1H1"], recipe, out, seeds=3, resume=True, **words)  # two more
    runs = [out / name for name in ("L1H1", "L1H1.seed1", "L1H1.seed2")]
    assert [yaml.safe_load((run / "recipe.yaml").read_text())["seed"] for run in runs] == [0, 1, 2]
    assert sha256(runs[0] / "model.safetensors") == sha256(made[0] / "L1H1" / "model.safetensors")
    values = [read_json(run / "config.json")["metrics"]["top1"] for run in runs]
    [row], [member] = result["members"], read_json(out / "family.json")["members"]  # type: ignore[misc]
    assert row["top1"] == pytest.approx(mean(values), abs=1e-4) and row["spread"] == pytest.approx(
        stdev(values), abs=1e-3
    )
    assert [*member["seeds"].values()] == values
    assert f"| {mean(values):.2f} ± {stdev(values):.2f} (3) |" in (out / "table.md").read_text()
    assert "means of 3 runs from the same initial weights" in str(result["conclusion"])
    assert len(verify(out)["members"]) == 6  # type: ignore[arg-type]  # every seed of both methods
    assert len(report([out], tmp_path / "report.html")["runs"]) == 6  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"--seeds 0: one or more"):
        family(template, ["L1H1"], recipe, out, seeds=0, resume=True, **words)


def test_the_chart_has_round_ticks_a_line_of_random_and_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])

    def member(size: str, params: int, values: list[float], method: str | None = None) -> Member:
        seeds = {str(i): value for i, value in enumerate(values)}
        return Member(size=size, method=method, requested=size, width=8, params=params, flops=1,
                      metrics={"top1": values[0]}, seeds=seeds, pareto=method is None)  # fmt: skip

    known = Family(
        source="s", source_sha256="0", task="classify", data="\u82b1 $x$", method="sweet", img_size=8, metric="top1",
        members=(member("L1H1", 2_900_000, [50, 52]), member("L2H1", 3_000_000, [51, 55]),
                 member("L9H9", 27_000_000, [60, 61])),
        baselines=(member("L1H1", 2_900_000, [30, 40], "random"), member("L9H9", 27_000_000, [35, 35], "random")),
    )  # fmt: skip
    write_chart(known, tmp_path, title=known.data)
    axes = figures[0].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["3", "10", "30"]
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"Pareto front", "sweet", "random"}
    assert len(axes.containers) == 2 and all(bars.has_yerr for bars in axes.containers)
    first, second = (float(text.xy[0]) for text in axes.texts[:2])  # type: ignore[attr-defined]
    assert second / first > 1.2  # their points are nearer
    write_chart(known.model_copy(update={"members": known.members[-1:]}), tmp_path, title="")
    words = {text.get_text() for text in figures[-1].axes[0].get_legend().get_texts()}
    assert words == {"sweet", "random"}  # one point is no front


def test_two_budgets_that_give_one_size() -> None:
    config = ViTConfig(depth=12, heads=12, head_dim=16, img_size=32, patch_size=4)
    with pytest.raises(UserError) as error:
        members(["3.9M", "4M"], config)
    found = re.fullmatch(
        r"--sizes 4M: gives (\S+), and so does 3.9M; it has ([\d,]+) parameters, and from ([\d,]+) on you get (\S+)",
        str(error.value),
    )
    assert found is not None
    one, own, more, other = found.groups()
    more = more.replace(",", "")
    chosen = [str(next(iter(members([text], config)))) for text in ("4M", more, str(int(more) - 1))]
    assert chosen[:2] == [one, other] and chosen[2] != other
    assert size_cost(config, Size.parse(one, 16)).params == int(own.replace(",", ""))
    with pytest.raises(UserError, match=r"gives L24H24, and so does 200M; .* the most that there are"):
        members(["200M", "300M"], config)


def test_a_budget_that_no_size_uses_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    config = ViTConfig(depth=2, heads=2, head_dim=16, img_size=32, patch_size=4)
    assert [str(size) for size in members(["10k", "900M"], config)][1] == "L4H4"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: --sizes 900M: the largest size that is considered, L4H4, uses ")


def test_the_front() -> None:
    points = [(1, 50.0), (2, 40.0), (3, 60.0), (4, 60.0), (5, 70.0)]
    rows = [
        Member(size="L1H1", requested="1", width=1, params=params, flops=1, metrics={"x": value})
        for params, value in points
    ]
    assert on_front(rows, Metric("x", "x")) == [True, False, True, False, True]
    assert on_front(rows, Metric("x", "x", higher_is_better=False)) == [True, True, False, False, False]


def test_every_task_has_a_main_metric(made: tuple[Path, dict[str, Any]]) -> None:
    assert TASKS["classify"].key in read_json(made[0] / "family.json")["members"][0]["metrics"]


def test_stopped_and_resumed_it_is_the_same(
    made: tuple[Path, dict[str, Any]],
    template: Path,
    tiny_finetune: Callable[..., FinetuneRecipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, calls = tmp_path / "family", []

    def stop_at_the_second(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments[2].name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return finetune(*arguments, **options)

    finetune = make.finetune
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(make, "finetune", stop_at_the_second)
        family(template, SIZES, tiny_finetune(), out, quiet=True)
    assert "1 of 3 models are finished; the same command with --resume makes the others" in capsys.readouterr().err
    assert [row["size"] for row in read_json(out / "family.json")["members"]] == ["L1H1"]
    assert "--resume makes them" in str(inspect(out)["unfinished"])
    with pytest.raises(UserError, match="a family; name one of its members"):
        read_record(out, ("model",))
    first = (out / "L1H1" / "model.safetensors").stat().st_mtime_ns
    resumed = family(template, SIZES, tiny_finetune(), out, resume=True, quiet=True)
    assert (out / "L1H1" / "model.safetensors").stat().st_mtime_ns == first
    assert "unfinished" not in inspect(out)
    for size in ("L1H1", "L1H2", "L2H2"):
        assert sha256(out / size / "model.safetensors") == sha256(made[0] / size / "model.safetensors")
    assert [row["top1"] for row in resumed["members"]] == [row["top1"] for row in made[1]["members"]]

    more = family(template, ["L3H2"], tiny_finetune(), out, resume=True, quiet=True)
    assert [row["size"] for row in more["members"]] == ["L1H1", "L1H2", "L2H2", "L3H2"]


def test_another_family_is_not_resumed(
    made: tuple[Path, dict[str, Any]],
    template: Path,
    dense: Path,
    tiny_finetune: Callable[..., FinetuneRecipe],
    tmp_path: Path,
) -> None:
    out = tmp_path / "family"
    shutil.copytree(made[0], out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for given, message in (
        ({"source": dense}, "was begun with source_sha256"),
        ({"method": "random"}, "was begun with method sweet, now it is random"),
        ({"img_size": 32}, "was begun with img_size 16, now it is 32"),
        ({"recipe": tiny_finetune("lr=1e-3")}, "lr=0.001"),
    ):
        options: dict[str, Any] = {"source": template, "recipe": tiny_finetune()} | given
        with pytest.raises(UserError, match=message):
            family(options.pop("source"), SIZES, options.pop("recipe"), out, resume=True, quiet=True, **options)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_starts_of_another_family_are_not_taken(
    template: Path,
    dense: Path,
    tiny_finetune: Callable[..., FinetuneRecipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped before its first model, a family has said nowhere else what it is."""

    def stopped(*_: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "family"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(make, "finetune", stopped)
        family(template, ["L1H1"], tiny_finetune(), out, quiet=True)
    assert not (out / "family.json").exists()
    (out / "recipe.yaml").unlink()  # as if it was stopped while it made its starts
    others: dict[str, tuple[Path, dict[str, Any]]] = {
        "source_sha256": (dense, {}),
        "method": (template, {"method": "mimetic"}),
        "img_size": (template, {"img_size": 32}),
    }
    for named, (source, given) in others.items():
        with pytest.raises(UserError, match=f"--resume: .* was begun with {named} "):
            family(source, ["L1H1"], tiny_finetune(), out, resume=True, quiet=True, **given)


def test_what_could_not_be_measured_is_named(
    made: tuple[Path, dict[str, Any]], template: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path
) -> None:
    """As the AP of a detector whose validation images hold crowd regions only."""
    out = shutil.copytree(made[0], tmp_path / "family")
    config = read_json(out / "L1H1" / "config.json")
    write_json(out / "L1H1" / "config.json", config | {"metrics": config["metrics"] | {"top1": None}})
    with pytest.raises(UserError, match=r"L1H1: has no top1: its validation images hold nothing"):
        family(template, ["L1H1"], tiny_finetune(), out, resume=True, quiet=True)


def test_a_family_of_before_is_resumed(
    made: tuple[Path, dict[str, Any]], template: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path
) -> None:
    """Older versions wrote ``asked`` for ``requested``, null for no latency and {} for no training."""
    out = tmp_path / "family"
    shutil.copytree(made[0], out)
    written = read_json(out / "family.json")
    keys = {"requested": "asked"}
    before = [
        {keys.get(k, k): row[k] for k in MEMBER if k in row} | {"latency": None, "training": {}}
        for row in written["members"]
    ]
    write_json(out / "family.json", written | {"members": before})
    family(template, SIZES[:1], tiny_finetune(), out, resume=True, quiet=True)
    again = read_json(out / "family.json")["members"]
    assert [row["requested"] for row in again] == ["1200", "L1H2", "L2H2"]
    assert [row["pareto"] for row in again] == [row["pareto"] for row in read_json(made[0] / "family.json")["members"]]


@pytest.mark.parametrize("damage", [{"task": ""}, {"members": [{"size": 1}]}, {"members": [3]}, {"members": None}])
def test_a_damaged_family_is_one_line(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, damage: dict[str, Any]
) -> None:
    write_json(tmp_path / "family.json", read_json(made[0] / "family.json") | damage)
    with pytest.raises(UserError, match=r"family\.json: was not written by sweet family"):
        read_family(tmp_path)


def test_sizes_by_budget() -> None:
    config = ViTConfig(12, 12, 64, img_size=224, patch_size=16)
    found = members(["3M", "L3H12", "12M"], config)
    assert list(found.values()) == ["3M", "L3H12", "12M"]
    for size, limit in zip(found, (3e6, None, 12e6), strict=True):
        assert limit is None or 0.9 * limit < size_cost(config, size).params <= limit


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--sizes 2k --data shapes:", "SOURCE is missing"),
        ("nowhere --sizes 2k --data shapes:", "SOURCE nowhere: no such file or folder"),
        ("SOURCE --data shapes:", "Missing option '--sizes'"),
        ("SOURCE --sizes 2k", "--data is missing"),
        ("SOURCE --sizes 2k,much --data shapes:", "--sizes much: expected a number of parameters such as 12M"),
        ("SOURCE --sizes L0H1 --data shapes:", "--sizes L0H1: expected"),
        ("SOURCE --sizes 10 --data shapes:", "--sizes 10: the smallest size, L1H1, takes"),
        ("SOURCE --sizes L1H1,1200 --data shapes:", "--sizes 1200: gives L1H1, and so does L1H1"),
        ("SOURCE --sizes , --data shapes:", "--sizes: names no size"),
        ("SOURCE --sizes 2k --data shapes: --method magic", "--method magic: unknown"),
        ("SOURCE --sizes 2k --data shapes: --method weight_selection", "--method weight_selection: the source's"),
        ("SOURCE --sizes 2k --data shapes: --img-size 18", "--img-size 18 is not a multiple"),
        ("SOURCE --sizes 2k --data shapes: --latency tpu", "device=tpu"),
        ("SOURCE --sizes 2k --data shapes: epoch=3", "epoch=3: epoch: unknown key; did you mean epochs?"),
        ("SOURCE --sizes 2k --data shapes: data.img_size=64", "data.img_size=64"),
        ("SOURCE --sizes 2k --data folder:nowhere", "--data folder:nowhere: no such folder"),
    ],
)
def test_a_mistake_gives_one_line_and_writes_nothing(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = [str(template) if word == "SOURCE" else word for word in words.split()]
    result = CliRunner().invoke(app, ["family", *said, "--out", "OUT"], prog_name="sweet")
    assert (result.exit_code, result.stdout) == (2, ""), result.exception
    assert result.stderr.startswith(f"error: {message}") and result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_task_has_its_own_recipe(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[FinetuneRecipe] = []

    def run(source: str, sizes: list[str], recipe: FinetuneRecipe, out: Path, **_: object) -> dict[str, object]:
        seen.append(recipe)
        return {}

    monkeypatch.setattr("sweet.family.family", run)
    for task in ("generate", "classify"):
        words = f"family {template} --sizes L1H1 --task {task} --data shapes: --out {tmp_path / task} lr=0.5"
        result = CliRunner().invoke(app, words.split(), prog_name="sweet")
        assert result.exit_code == 0, result.output
    assert [(recipe.ema, recipe.lr) for recipe in seen] == [(0.999, 0.5), (None, 0.5)]


def test_a_source_of_the_hub_is_downloaded(
    template: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(template))
    with pytest.raises(UserError, match="--sizes 10: the smallest size, L1H1, takes"):  # it was read
        family("anna/template", ["10"], tiny_finetune(), tmp_path / "out", quiet=True)


def test_the_largest_size_is_tried_first(dense: Path, tmp_path: Path) -> None:
    """So that nothing is written when a method cannot make it."""
    words = ["family", str(dense), "--sizes", "L1H1,L3H2", "--method", "weight_selection", *WORDS.split()]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")], prog_name="sweet")
    assert result.exit_code == 2 and "L3H2 is larger than the source L2H2" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_verb(dense: Path, tmp_path: Path) -> None:
    out = tmp_path / "family"
    words = ["family", str(dense), "--sizes", "L1H1", "--method", "isomorphic", *WORDS.split(), "--out", str(out)]
    result = CliRunner().invoke(app, [*words, "--json", "-q"], prog_name="sweet")
    assert result.exit_code == 0, result.output
    assert [row["size"] for row in json.loads(result.stdout)["members"]] == ["L1H1"]
    assert read_json(out / "L1H1" / "config.json")["made"]["images"] == 64  # it was shown the training images
    again = CliRunner().invoke(app, [*words, "--resume", "--json", "-q"], prog_name="sweet")
    assert json.loads(again.stdout) == json.loads(result.stdout)
    anew = CliRunner().invoke(app, [*words, "--overwrite", "--json", "-q"], prog_name="sweet")
    assert json.loads(anew.stdout)["members"][0]["top1"] == json.loads(result.stdout)["members"][0]["top1"]


def test_a_loss_that_is_no_number_ends_it_with_advice_for_all_members(
    template: Path, tmp_path: Path, tiny_finetune: Callable[..., FinetuneRecipe]
) -> None:
    recipe = tiny_finetune("lr=1e30", "optim.clip=null", "optim.warmup=0", "label_smoothing=0")
    with pytest.raises(NonFinite, match=r"leaves out step.* one rate: .* --overwrite lr=\.\.\.$") as caught:
        family(template, ["L1H1"], recipe, tmp_path / "family", quiet=True)
    assert "--resume lr=" not in str(caught.value)
