"""Sizes that fit a budget: exact counts, a stated rule, few measurements."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner, Result

from sweet.cli import app
from sweet.costs.budget import Budget, choose, grid, read_budget, size_cost
from sweet.costs.latency import Timing, measure_latency
from sweet.errors import UserError
from sweet.models.config import ViTConfig
from sweet.models.vit import skeleton
from sweet.template.sizes import Size

VIT_B = ViTConfig(12, 12, 64, img_size=224, patch_size=16)


def by(kind: str, text: str) -> Budget:
    budget = read_budget(**({"params": None, "flops": None, "latency": None} | {kind: text}))
    assert budget is not None
    return budget


def test_no_torch_until_a_clock_is_needed() -> None:
    code = (
        "import sys\n"
        "from sweet.costs.budget import choose, read_budget\n"
        "from sweet.models.config import ViTConfig\n"
        "choose(ViTConfig(12, 12, 64, 224, 16), read_budget('12M', None, None))\n"
        "print(*{'torch', 'timm', 'numpy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("family", ["eva", "vit"])
@pytest.mark.parametrize("size", [Size(12, 12, 64), Size(1, 1, 64), Size(5, 7, 4), Size(3, 4, 20)])
def test_counts_are_those_of_a_counter_that_watches_the_model(family: str, size: Size) -> None:
    config = ViTConfig(size.depth, size.heads, size.head_dim, img_size=32, patch_size=4, family=family)
    vit = skeleton(config)
    if family == "eva":  # its rotary table is no parameter and does not matter here
        vit.rope = None
    for module in vit.modules():  # the counter cannot look into fused attention
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        vit(torch.empty(1, 3, 32, 32))
    counted = size_cost(config, size)
    assert counted.flops == counter.get_total_flops()
    assert counted.params == sum(p.numel() for p in vit.parameters())


@pytest.mark.parametrize(
    ("kind", "text", "limit", "device"),
    [
        ("params", "12M", 12e6, "auto"),
        ("params", "800k", 8e5, "auto"),
        ("params", "1234567", 1234567, "auto"),
        ("flops", "2.5G", 2.5e9, "auto"),
        ("flops", "1t", 1e12, "auto"),
        ("latency", "4ms", 4e-3, "auto"),
        ("latency", "250us@cuda:1", 250e-6, "cuda:1"),
        ("latency", "0.5s@cpu", 0.5, "cpu"),
    ],
)
def test_budgets_are_read(kind: str, text: str, limit: float, device: str) -> None:
    budget = by(kind, text)
    assert (budget.kind, budget.limit, budget.option) == (kind, pytest.approx(limit), f"--{kind} {text}")
    assert budget.device == device


@pytest.mark.parametrize(
    ("kind", "text"),
    [("params", "12X"), ("params", "-3M"), ("flops", "G"), ("latency", "4"), ("latency", "ms"), ("params", "0M")],
)
def test_other_words_are_no_budget(kind: str, text: str) -> None:
    with pytest.raises(UserError, match=f"--{kind} {text}: "):
        by(kind, text)


def test_none_or_one() -> None:
    assert read_budget(None, None, None) is None
    with pytest.raises(UserError, match="--params and --latency exclude each other"):
        read_budget("12M", None, "4ms")


@pytest.mark.parametrize(("kind", "text"), [("params", "12M"), ("params", "1M"), ("flops", "2G"), ("flops", "30M")])
def test_the_rule(kind: str, text: str) -> None:
    """Within the budget, nine tenths of the best use or more, and of these the nearest ratio."""
    config = VIT_B if kind == "params" else ViTConfig(12, 6, 32, img_size=64, patch_size=8, family="vit")
    budget = by(kind, text)
    choice = choose(config, budget)
    used = {size: getattr(size_cost(config, size), kind) for size in grid(config)}
    best = max(value for value in used.values() if value <= budget.limit)
    assert 0.9 * best <= used[choice.size] <= budget.limit

    def factor(size: Size) -> float:
        ratio = (size.depth / size.heads) / (config.depth / config.heads)
        return max(ratio, 1 / ratio)

    others = [size for size in used if 0.9 * best <= used[size] <= budget.limit]
    assert factor(choice.size) == pytest.approx(min(map(factor, others)))
    record = choice.to_dict()
    assert json.loads(json.dumps(record)) == record
    assert record["requested"] == f"--{kind} {text}" and record["chosen"] == record["candidates"][0]["size"] == str(
        choice.size
    )
    assert [row["params" if kind == "params" else "flops"] for row in record["candidates"]] == [
        used[Size.parse(row["size"], config.head_dim)] for row in record["candidates"]
    ]
    assert f"of the {len(others)} sizes" in choice.why and "grid: depth 1 to 24" in choice.why


def test_known_choices() -> None:
    assert str(choose(VIT_B, by("params", "12M")).size) == "L6H6"
    assert str(choose(VIT_B, by("params", "86M")).size) == "L12H12"
    assert str(choose(VIT_B, by("params", "10T")).size) == "L24H24"  # the end of the grid
    smallest = size_cost(VIT_B, Size(1, 1, 64)).params
    assert choose(VIT_B, by("params", str(smallest))).size == Size(1, 1, 64)
    with pytest.raises(UserError, match=f"--params {smallest - 1}: the smallest size, L1H1, takes {smallest:,}"):
        choose(VIT_B, by("params", str(smallest - 1)))


# -- latency, by a clock that we know ---------------------------------------------------------------------------------


def clock(config: ViTConfig, measured: list[Size]) -> Callable[[Size], Timing]:
    def measure(size: Size) -> Timing:
        measured.append(size)
        return Timing(size_cost(config, size).flops / 1e12, 1e-6, 10)

    return measure


@pytest.mark.parametrize("text", ["1ms", "4ms", "17.6ms", "60ms", "9s"])
def test_the_bisection_ends_at_the_last_size_that_fits(text: str) -> None:
    measured: list[Size] = []
    budget = by("latency", text)
    choice = choose(VIT_B, budget, clock(VIT_B, measured))
    near = [size for size in grid(VIT_B) if 1 / 1.25 <= size.depth / size.heads <= 1.25]
    fitting = [size for size in near if size_cost(VIT_B, size).flops / 1e12 <= budget.limit]
    assert size_cost(VIT_B, choice.size) == size_cost(
        VIT_B, max(fitting, key=lambda size: size_cost(VIT_B, size).flops)
    )
    assert measured[0] == Size(12, 12, 64) and len(measured) == len(set(measured)) <= 9
    rows = choice.to_dict()["candidates"]
    assert rows[0]["size"] == str(choice.size) and rows[0]["fits"]
    assert all(row["fits"] == (row["ms"] <= 1e3 * budget.limit) and row["runs"] == 10 for row in rows)
    assert f"{len(measured)} sizes measured" in choice.why


def test_nothing_is_fast_enough() -> None:
    with pytest.raises(UserError, match=r"--latency 1us: the smallest size, L1H1, takes .* ms"):
        choose(VIT_B, by("latency", "1us"), clock(VIT_B, []))


def test_a_tall_source_may_become_the_smallest_size() -> None:
    tall = ViTConfig(12, 3, 64, img_size=224, patch_size=16)
    smallest = size_cost(tall, Size(1, 1, 64)).flops / 1e12
    budget = Budget("latency", 1.01 * smallest, "--latency little")
    assert choose(tall, budget, clock(tall, [])).size == Size(1, 1, 64)


def test_a_real_clock_records_its_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweet.costs.latency.RUNS", (4, 6))
    monkeypatch.setattr("sweet.costs.latency.SECONDS", 0.01)
    config = ViTConfig(2, 2, 8, img_size=16, patch_size=4)
    choice = choose(config, by("latency", "20s@cpu"))
    assert choice.size == Size(4, 4, 8)
    record = choice.to_dict()
    assert json.loads(json.dumps(record)) == record
    assert record["protocol"]["device"].startswith("cpu (") and record["protocol"]["dtype"] == "float32"
    assert {"batch", "warm_up", "runs", "statistic", "threads"} <= record["protocol"].keys()
    assert all(row["ms"] > 0 and row["iqr_ms"] >= 0 and 4 <= row["runs"] <= 6 for row in record["candidates"])
    with pytest.raises(UserError, match="tpu"):
        choose(config, by("latency", "4ms@tpu"))


# -- the verb ---------------------------------------------------------------------------------------------------------


def init(source: Path, out: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["init", str(source), "--out", str(out), *words], prog_name="sweet")


def test_init_by_budget(template: Path, tmp_path: Path) -> None:
    result = init(template, tmp_path / "model", "--params", "5k", "--json")
    assert result.exit_code == 0, result.output
    record: dict[str, Any] = json.loads(result.stdout)
    assert record["size"] == record["budget"]["chosen"]
    assert record["parameters"] == record["budget"]["candidates"][0]["params"] <= 5000
    text = init(template, tmp_path / "other", "--flops", "200k").stdout
    assert "budget.why" in text and "budget.candidates" in text


def test_a_budget_counts_the_model_that_is_made(template: Path, tmp_path: Path) -> None:
    words = ("--params", "6k", "--img-size", "32", "--patch-size", "8", "--in-chans", "1", "--json")
    record = json.loads(init(template, tmp_path / "model", *words).stdout)
    assert record["parameters"] == record["budget"]["candidates"][0]["params"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "--depth and --heads: give both, or one of --params, --flops and --latency"),
        ("--depth 2", "--depth and --heads: give both"),
        ("--params 12M --depth 2", "--params 12M: chooses the size itself, leave out --depth"),
        ("--params 12M --flops 2G", "--params and --flops exclude each other"),
        ("--params much", "--params much: expected a number"),
        ("--params 10", "--params 10: the smallest size, L1H1, takes"),
        ("--latency 4ms@tpu", "device=tpu"),
        ("--depth 2 --heads 2 --fit shapes:n=8", "--fit shapes:n=8: --method sweet looks at no images"),
        ("--depth 2 --heads 2 rule=uniform", "rule=uniform: --method sweet has no such switch"),
        ("--depth 2 --heads 2 depth=3", "depth=3: is no switch of a method; write --depth"),
        ("--depth 2 --heads 2 another", "another: not understood after"),
    ],
)
def test_mistakes_of_the_verb(template: Path, tmp_path: Path, words: str, message: str) -> None:
    result = init(template, tmp_path / "model", *words.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {message}") and result.stderr.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_init_with_images_and_switches(dense: Path, tmp_path: Path) -> None:
    words = "--depth 1 --heads 1 --method isomorphic --fit shapes:n=64,size=16 --fit-images 8 layers=even --json"
    record = json.loads(init(dense, tmp_path / "pruned", *words.split()).stdout)
    assert (record["method"], record["images"], record["layers"], record["size"]) == ("isomorphic", 8, "even", "L1H1")
    words = "--depth 1 --heads 1 --method weight_selection rule=whole_heads --layers even --json"
    record = json.loads(init(dense, tmp_path / "selected", *words.split()).stdout)
    assert (record["rule"], record["layers"], record["images"]) == ("whole_heads", "even", 0)


def test_every_name_is_in_the_help() -> None:
    from sweet.initialise.registry import NAMES

    text = "".join(
        CliRunner().invoke(app, ["init", "--help"], prog_name="sweet", env={"COLUMNS": "300"}).stdout.split()
    )
    assert ",".join(NAMES) in text


def test_the_device_that_is_timed_is_the_one_that_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The current one may be another: cuda:1 is timed while cuda:0 is current."""
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    device = torch.device("meta", 1)
    measure_latency(ViTConfig(depth=1, heads=1, head_dim=8, img_size=8, patch_size=4), device)
    assert set(waited) == {device}
