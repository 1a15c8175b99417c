"""Numbers of README and of pages, from the committed results: `python docs/measured.py` prints their lines.

A test compares them with these and with the picture, so after new results the lines are pasted and the picture drawn
anew (`python docs/draw.py`).
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))  # a checkout shows its own results

from sweet.costs.budget import choose, read_budget, size_cost
from sweet.files import read_json
from sweet.models.config import ViTConfig
from sweet.results.compare import compare, gains_over_best
from sweet.results.costs import break_even, targets
from sweet.results.files import read_tables
from sweet.results.sentences import listed
from sweet.results.table import Table
from sweet.template.sizes import Size

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
NAMES = {
    "wave": "WAVE",
    "wave_supervised": "supervised WAVE",
    "isomorphic": "isomorphic pruning",
    "weight_selection": "weight selection",
    "dmae": "DMAE",
    "random": "random weights",
    "kronecker_principal": "Kronecker products",
    "weight_selection_principal": "weight selection in principal order",
}
SETS = {"cifar10": "CIFAR-10", "tiny-imagenet-100": "Tiny ImageNet-100", "flowers102": "Oxford Flowers-102"}
TRIED = "L3H6"  # the size that README's commands make


@dataclass(frozen=True)
class Headline:
    """Top-1 of `sweet`, of the best baseline of each size and of random weights, over the sizes that a baseline makes.

    Random weights are a baseline here like any other; a size that only they and our own rows make does not count.
    """

    table: Table

    @classmethod
    def read(cls, protocol: str = "nano") -> Headline:
        """From the committed results; ``protocol`` is the folder of table1."""
        return cls(read_tables(RESULTS / protocol / "table1")[0])

    @cached_property
    def params(self) -> dict[str, int]:
        """{size: parameters without a head}."""
        return {size: one.params for size, one in targets(self.table).items()}

    @cached_property
    def sizes(self) -> list[str]:
        """Small to large."""
        made = {size for arm in self.published for size in self.table.means(arm, "top1")}
        return sorted(made, key=lambda size: self.params[size])

    @property
    def published(self) -> list[str]:
        """The baselines but for random weights."""
        return [arm for arm in self.table.baselines if arm != "random"]

    def top1(self, arm: str, size: str) -> float:
        """Mean over replicates, in %."""
        found = self.table.mean(arm, size, "top1")
        assert found is not None, f"{arm} was not measured at {size}"
        return found.value

    def best(self, size: str, role: str = "baseline") -> str:
        """The best arm of a role there."""
        there = [arm for arm in self.table.of_role(role) if self.table.mean(arm, size, "top1")]
        return max(there, key=lambda arm: self.top1(arm, size))

    def average(self, arm_of: Callable[[str], str], sizes: Sequence[str] = ()) -> float:
        """Over the sizes, of an arm that may differ from size to size."""
        sizes = sizes or self.sizes
        return sum(self.top1(arm_of(size), size) for size in sizes) / len(sizes)

    @cached_property
    def gains(self) -> dict[str, float]:
        """{size: `sweet` minus the best baseline}, in points."""
        means = {arm: self.table.means(arm, "top1") for arm in self.table.arms}
        baselines = self.table.baselines
        return dict(gains_over_best(means, "sweet", self.sizes, baselines=baselines).columns)

    @property
    def gain(self) -> float:
        """Its mean over the sizes."""
        return sum(self.gains.values()) / len(self.gains)

    @property
    def replicated(self) -> list[str]:
        """The sizes of several replicates, at which conditioned baselines were measured."""
        return [size for size in self.sizes if size in self.table.several]

    def lead(self, arm_of: Callable[[str], str]) -> str:
        """`sweet` minus an arm, over :attr:`replicated`."""
        sizes = self.replicated
        return f"{self.average(lambda _: 'sweet', sizes) - self.average(arm_of, sizes):+.1f}"

    @property
    def replicates(self) -> str:
        """How many runs a mean is of."""
        return _replicates(self.table, self.sizes)

    def sentence(self) -> str:
        """The gain, its data and its replicates, in one sentence."""
        cell = self.table.cells["sweet", self.sizes[0]]
        small, large = (self.params[self.sizes[place]] / 1e6 for place in (0, -1))
        ours, theirs = self.average(lambda _: "sweet"), self.average(self.best)
        random = self.average(lambda _: "random")
        others = sorted({sum(size in self.table.means(arm, "top1") for arm in self.published) for size in self.sizes})
        conditioned, sizes = self.lead(lambda size: self.best(size, "conditioned")), len(self.replicated)
        return (
            f"On CIFAR-10 ({cell.n_train:,} labels, {cell.recipe['epochs']:g} epochs, {len(self.sizes)} sizes of "
            f"{small:.2f} to {large:.2f} million parameters, {self.replicates} replicates each), models from a SWEET "
            f"template reach {ours:.1f} % top-1 on average, the best of {' to '.join(map(str, others))} "
            f"baselines at each size {theirs:.1f} %, and random weights {random:.1f} %: {self.gain:+.1f} points over "
            f"the best baseline, {conditioned} over the best one that is conditioned as ours is ({sizes} sizes)."
        )

    def more(self) -> list[str]:
        """What else was measured, losses too."""
        return [f"{self.shapes()} {self.conditioning()}", f"{self.paper()} {losses()}", camvid()]

    def shapes(self) -> str:
        """The gain where width is cut and where it is not."""
        assert self.table.config
        heads = self.table.config.heads
        whole = [size for size in self.sizes if Size.parse(self.table.column(size).size).heads == heads]
        cut = [size for size in self.sizes if size not in whole]
        return (
            f"The gain is {_mean(self.gains, cut):+.1f} points on average where the width is cut ({listed(cut)}), and "
            f"{_mean(self.gains, whole):+.1f} where only layers are dropped ({listed(whole)})."
        )

    def conditioning(self) -> str:
        """What is left of the lead beside conditioned baselines, and beside each size pre-trained itself."""
        even = break_even(self.table)
        assert even and even.needed
        return (
            "Part of the lead is conditioning: weights scaled so that Adam learns well from them, which any start can "
            f"have (`condition=true`). Over {listed(self.replicated)}, `sweet` is {self.lead(self.best)} points ahead "
            f"of the best baseline, {self.lead(lambda size: self.best(size, 'conditioned'))} of the best conditioned "
            f"one, {self.lead(lambda _: 'own_mae')} of the size pre-trained itself on as many images and "
            f"{self.lead(lambda _: 'own_mae_conditioned')} of that one conditioned. A template costs less than "
            f"pre-training each size from {even.needed} sizes of average cost on."
        )

    def paper(self) -> str:
        """The paper's own method."""
        rows = [
            f"{self.average(lambda _, arm=arm: arm) - self.average(self.best):+.1f}"
            for arm in ("sweet_paper", "sweet_paper_fitted")
        ]
        tucker = self.average(lambda _: "sweet_tucker") - self.average(self.best)
        return (
            f"The paper's method as written (Eq. 5-8, prefix slice): {rows[0]} points against the best baseline, "
            f"{rows[1]} with fitted scalers (Eq. 9). Our order on a Tucker template learned at full width: "
            f"{tucker:+.1f}."
        )


def from_checkpoint() -> str:
    """Table `real`, over the columns that were measured of all its rows."""
    table = read_tables(RESULTS / "real" / "real")[0]
    means = {arm: table.means(arm, "top1") for arm in table.arms}
    columns = [c for c in means["sweet"] if all(c in means[arm] for arm in table.arms if c in table.makes(arm))]

    def best(arms: Sequence[str], columns: Sequence[str] = columns) -> float:
        """The best arm of each column, on average over them."""
        return _mean({c: max(means[arm][c] for arm in arms if c in means[arm]) for c in columns}, columns)

    sets = {c: table.column(c).set for c in table.columns}
    used, labels = {sets[c]: table.cells["sweet", c].n_train for c in columns}, defaultdict(list)
    for name, count in used.items():
        labels[count].append(SETS[name])
    trained_on = listed([f"{count:,} labels of {' or '.join(names)}" for count, names in labels.items()])
    whole = [c for c in means["checkpoint"] if sets[c] in used]
    reached = [SETS[name] for name in used if name in {sets[c] for c in whole}]
    where = "" if len(reached) == len(used) else f" on {listed(reached)} alone"
    taught = [c for c in columns if c in means["distilled"]]
    steps = table.cells["distilled", taught[0]].switches["steps"]
    ours, theirs, conditioned = (best(arms) for arms in (["sweet"], table.baselines, table.of_role("conditioned")))
    return (
        "Measured with DINOv2 ViT-S (22 million parameters) cut to "
        f"{listed(list(dict.fromkeys(table.column(c).size for c in columns)))} and fine-tuned on "
        f"{trained_on}: `sweet` reaches {ours:.1f} % top-1 on average, the best baseline of each "
        f"size {theirs:.1f} %, the best conditioned one {conditioned:.1f} %, random weights {best(['random']):.1f} %, "
        f"the whole checkpoint{where} {best(['checkpoint', 'checkpoint_conditioned'], whole):.1f} %; over "
        f"{listed(list(dict.fromkeys(table.column(c).size for c in taught)))} `--method distilled`, {steps} steps on "
        f"unlabelled images, {best(['distilled'], taught):.1f} %, `sweet` {best(['sweet'], taught):.1f} % (table real, "
        f"{_replicates(table, columns)} replicates)."
    )


def losses() -> str:
    """Choices of the paper that do not help here, in the tables of such choices."""
    masks = read_tables(RESULTS / "nano" / "table5")[0]
    gaps = []
    for order, end in (("prefix", ""), ("principal", "_principal")):
        found = compare(masks, f"literal{end}")
        assert found
        gap = found.against[f"no_scaling{end}"]["average"]
        assert gap.value < 0, f"masks do not lose in {order} order"
        gaps.append(f"{gap.value:+.1f} ± {gap.margin:.1f} in {order} order")
    constraint = compare(read_tables(RESULTS / "history" / "micro" / "table4")[0])
    assert constraint and constraint.strongest
    lost = constraint.against[constraint.strongest]["average"].value
    assert lost < 0, f"table4: {constraint.main} does not lose"
    return (
        "What does not help: widths masked in training (Eq. 7-8) against the same template without, "
        f"{listed(gaps)} (table5); by the old protocol, Tucker products against {NAMES[constraint.strongest]}, "
        f"{lost:+.2f} (table4)."
    )


def camvid() -> str:
    """Segmentation beside a ready-made network."""
    ours = (
        read_json(RESULTS / "tasks" / f"segment-camvid{name}.json")["metrics"]["miou"]
        for name in ("", "-half-balanced")
    )
    theirs = read_json(RESULTS / "tasks" / "segment-camvid-ready-made.json")["metrics"]["test"]["miou"]
    plain, balanced = ours
    return (
        f"Segmentation of CamVid, test mIoU: {plain:.1f} (L4H4 at half resolution; {balanced:.1f} with balanced "
        f"classes), against {theirs:.1f} of torchvision's LR-ASPP MobileNetV3 trained from random weights."
    )


def _replicates(table: Table, columns: Sequence[str]) -> str:
    counts = sorted({len(table.cells["sweet", column].runs) for column in columns})
    return " or ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))


def _mean(values: dict[str, float], keys: list[str]) -> float:
    return sum(values[key] for key in keys) / len(keys)


def recipe_rows() -> list[str]:
    """Rows of README's table: recipe, hardware, images, minutes, measured result."""
    header = {name: _header(name) for name in ("quickstart", "nano", "micro", "small", "vit_b16_in1k")}
    scenes = re.search(r"(average.*?), random start (.*?) \(", header["quickstart"]["result"])
    nano = re.search(r"(\d+) minutes", header["nano"]["time"])
    assert scenes and nano
    seconds = {name: header[name]["time"].partition(" s")[0].replace(",", "") for name in ("quickstart", "micro")}
    minutes = {name: _minutes(float(text)) for name, text in seconds.items()}
    micro = Headline.read("history/micro")
    ours, theirs = micro.average(lambda _: "sweet_tiles"), micro.average(micro.best)
    small, paper = (header[name]["result"] for name in ("small", "vit_b16_in1k"))
    return [
        f"| `quickstart` | {header['quickstart']['hardware']} | 6,000 synthetic, 32 px | {minutes['quickstart']} | "
        f"fine-tuned on 1,000 labels: {scenes[1]}, random weights {scenes[2]} |",
        f"| `nano` | {header['nano']['hardware']} | CIFAR-10, 32 px | {nano[1]} | the picture above |",
        f"| `micro` | {header['micro']['hardware']} with bf16; without, three times as long | CIFAR-10, 32 px | "
        f"{minutes['micro']} | {len(micro.sizes)} sizes, by the old protocol: {ours:.1f} %, best baselines "
        f"{theirs:.1f} % |",
        f"| `small` | {header['small']['hardware']} | Tiny ImageNet-100, 64 px | - | {small} |",
        f"| `vit_b16_in1k` | [8 or more GPUs](docs/nodes.md) | ImageNet-1K, 224 px | - | {paper} |",
        *(_task_row(*row) for row in TASK_ROWS),
    ]


TASK_ROWS = (
    ("finetune/classify", "classify", "CIFAR-10, all 50,000", "3 epochs, L4H4: top-1 {top1:.1f} %"),
    ("finetune/detect", "detect-bccd", "BCCD blood cells", "200 steps, L4H4: AP50 {ap_box50:.1f}"),
    ("finetune/segment", "segment-camvid", "CamVid, 367", "30 epochs, L4H4: mIoU {miou:.1f}"),
    ("finetune/generate", "generate", "CIFAR-10", "300 steps, L4H4: FID-shapes32 {fid:.1f}"),
)


def _task_row(recipe: str, file: str, images: str, text: str) -> str:
    found = read_json(RESULTS / "tasks" / f"{file}.json")
    minutes = _minutes(found["training"]["seconds"])
    return f"| `{recipe}` | 1 CPU core | {images} | {minutes} | {text.format(**found['metrics'])} |"


def commands() -> list[str]:
    """README's three commands, and what they gave in `results/quickstart`."""
    table = read_tables(RESULTS / "quickstart" / "quickstart")[0]
    cell, arms = table.cells["sweet", TRIED], {arm: table.mean(arm, TRIED, "top1") for arm in ("sweet", "random")}
    assert arms["sweet"] and arms["random"]
    recipe, seconds = cell.recipe, _header("quickstart")["time"].partition(" s")[0]
    size, init = Size.parse(TRIED), table.mean("sweet", TRIED, "init_seconds")
    assert init
    return [
        f"sweet pretrain quickstart --out runs/template  # {seconds} s",
        f"sweet init runs/template --depth {size.depth} --heads {size.heads} --out runs/vit  # "
        f"{targets(table)[TRIED].params:,} parameters, in {init.value:.3f} s after imports",
        f"sweet finetune runs/vit --data {cell.data} --out runs/classifier data.labels={cell.n_train} "
        f"epochs={recipe['epochs']:g} lr={recipe['lr']:g} data.augment={recipe['data']['augment']} "
        f"optim.layer_decay={recipe['optim']['layer_decay']:g}  # top1 {arms['sweet'].value:.1f}",
        f"From random weights (`sweet init ... --method random`) the same fine-tuning gives "
        f"{arms['random'].value:.1f}.",
    ]


def sizes_page() -> list[str]:
    """What `sizes.md` states: the sizes of a ViT-B for some budgets, and what depth and width are worth."""
    vit_b = ViTConfig(depth=12, heads=12, head_dim=64, img_size=224, patch_size=16)
    rows = []
    for wanted in ("3M", "6M", "12M", "25M", "50M"):
        budget = read_budget(wanted, None, None)
        assert budget
        size = choose(vit_b, budget).size
        cost = size_cost(vit_b, size)
        params, flops = f"{cost.params / 1e6:.1f} M", f"{cost.flops / 1e9:.1f}"
        rows.append(f"| {wanted} | {size} | {size.depth} | {size.heads} | {size.width} | {params} | {flops} |")
    found = Headline.read("history/micro")
    near = {size: (found.params[size] / 1e6, found.top1("sweet", size)) for size in ("L12H6", "L3H12", "L6H6")}
    says = [f"{size} ({params:.2f} M) {top1:.1f} %" for size, (params, top1) in near.items()]
    return [*rows, f"CIFAR-10, history of protocol micro, top-1 of `sweet`: {listed(says)}."]


def start_page() -> list[str]:
    """What the headline compares with, beside the results page, and how long the notebook took."""
    found = Headline.read()
    whole = compare(found.table)
    assert whole and whole.strongest
    text = (ROOT / "docs" / "notebook.md").read_text(encoding="utf-8")
    minutes = sum(map(float, re.findall(r"^(?:training\.)?seconds +([\d.]+)$", text, re.M))) / 60
    conditioned = found.lead(lambda size: found.best(size, "conditioned"))
    return [
        f"On average models from a template are {found.gain:+.1f} points ahead of the best baseline at each size. "
        "A part of it is conditioning, which any start can have: over the best baseline that has it too, the lead is "
        f"{conditioned} ({len(found.replicated)} sizes).",
        "[The results](results.md) also compare with one baseline at all sizes that it makes, "
        f"{NAMES[whole.strongest]}: "
        f"{whole.against[whole.strongest]['average'].text(2)}.",
        f"[A notebook](notebook.md) goes from nothing to all of them without a download: {minutes:.0f} minutes of "
        "training, on one busy CPU core.",
    ]


def several_labels() -> list[str]:
    """mAP of a network that finds what is in parts of street scenes, of random weights, and of guessing."""
    ours, random = (read_json(RESULTS / "tasks" / f"multilabel-camvid-tiles{name}.json") for name in ("", "-random"))
    rows = {
        "test": [one["metrics"] for one in (ours, random)],
        "validation": [ours["validation"], random["validation"]],
    }
    classes = sorted(ours["metrics"]["per_class"].items(), key=lambda pair: pair[1])
    steps = ours["training"]["steps"]
    return [
        f"mAP on parts of CamVid's frames (`benchmarks/tiles.py`, {len(classes)} classes) after {steps} steps:",
        *(
            f"| {split} | {one['map']:.1f} | {other['map']:.1f} | {one['map_by_chance']:.1f} |"
            for split, (one, other) in rows.items()
        ),
        f"Of the test classes {classes[-1][0]} is found best ({classes[-1][1]:.1f}), {classes[0][0]} worst "
        f"({classes[0][1]:.1f}).",
    ]


BOTH = "layers=first+writers=0.2"  # the two defaults for a checkpoint of others


def cut_checkpoint() -> list[str]:
    """What these are worth, beside the best baseline with them."""
    return [
        f"a DINOv2 ViT-S cut to L6H3 reaches {_setting(f'sweet@{BOTH}')} % with both, {_setting('sweet@default')} % "
        "with neither (`layers=even writers=none`), and isomorphic pruning with both and conditioned "
        f"{_setting(f'isomorphic_conditioned@{BOTH}')} % (one seed"
    ]


def fitted_checkpoint() -> list[str]:
    """What a fit loses from there."""
    fit = f"sweet_fitted@{BOTH}"
    return [
        f"`sweet` has {_setting(f'sweet@{BOTH}')} top-1, `sweet_fitted` {_setting(f'{fit}+lr=0.0001')} at its rate for "
        f"checkpoints of others, `lr=1e-4`, and {_setting(fit)} at `lr=1e-3`"
    ]


def _setting(arm: str) -> str:
    """Top-1 of a trial of protocol `real`, on held-out training images."""
    [run] = read_json(RESULTS / "real" / "settings" / f"classify-{arm}-L6H3-cifar10.json")["runs"]
    return f"{run['top1']:.1f}"


# What the pages state
STATED: dict[str, Callable[[], list[str]]] = {
    "index.md": start_page,
    "sizes.md": sizes_page,
    "tutorial-timm.md": cut_checkpoint,
    "initialisers.md": fitted_checkpoint,
    "tasks/segment.md": lambda: [camvid()],
    "tasks/multilabel.md": several_labels,
}


def lines() -> list[str]:
    """Everything that README states; it may be wrapped differently there."""
    found = Headline.read()
    bullets = [f"- {line}" for line in found.more()]
    return [found.sentence(), from_checkpoint(), *commands(), *recipe_rows(), *bullets]


def _header(recipe: str) -> dict[str, str]:
    text = (ROOT / "src" / "sweet" / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")
    return dict(re.findall(r"^# (\w+): +(.*)", text, re.M))


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}" if seconds < 150 else f"{seconds / 60:.0f}"


if __name__ == "__main__":
    print("\n".join(["README.md", *lines()]))
    for name, state in STATED.items():
        print("\n".join([f"docs/{name}", *state()]))
