"""Words for readers of a report: what its tables ask, and what the names of sizes and arms mean."""

from __future__ import annotations

from sweet.results.choices import row_of
from sweet.results.costs import targets
from sweet.results.table import Table
from sweet.tasks.registry import Metric
from sweet.template.sizes import Size

QUESTIONS = {  # by table, see docs/bench.md
    "table1": "Which initialisation is best after the same fine-tuning?",
    "table3": "Does the order hold on other data sets?",
    "table4": "Which constraint should a template have?",
    "table5": "Do random widths in training and another architecture help?",
    "init": "What does each initialisation cost, and what does it give?",
    "learning_rates": "Which learning rate does each method need?",
    "muon": "Which initialisation is best where Muon fine-tunes?",
    "muon_rates": "Which learning rate does each method need with Muon?",
    "settings": "Which settings does each method need?",
    "real": "Which initialisation is best from a pre-trained ViT of 22 million parameters?",
    "tasks": "How good is each start for a task?",
    "quickstart": "What is a template of two minutes worth?",
    "study": "Trials of the method at a small scale",
}
TASKS = {"classify": "classification", "detect": "detection", "segment": "segmentation", "generate": "generation"}
ABOUT = (
    "What this is: ways to make the first weights of a Vision Transformer, compared. Each way is a row of a table, an "
    "arm; each column is a size, for example L6H6 with 6 layers and 6 heads (hover over a name to see what it "
    "means). Every model then gets the same fine-tuning on the same labels and is tested on the same held-out images. "
    "A difference is paired over replicates; it counts as a win or a loss where it is surer than chance, all "
    "comparisons of a table considered."
)
CONDITIONING = (
    "Read the lead with care: part of it is conditioning. Weights that sweet makes are scaled so that Adam learns "
    "well from them, which could be done to any start, and here is done to no baseline."
)


def question(table: Table) -> str:
    """What a table asks, in words, with its task."""
    text = QUESTIONS.get(table.spec.table, table.spec.table)
    task = TASKS.get(table.task, table.task)
    several = len({column.task for column in table.spec.columns}) > 1
    return f"{text.rstrip('?')}: {task}" if several else text


def caution(table: Table) -> str:
    """That baselines were not conditioned, where ``sweet`` was compared with some."""
    if table.spec.ablation or table.main is None or not table.baselines:
        return ""
    return "" if table.of_role("conditioned") else CONDITIONING


def glossary(table: Table) -> dict[str, str]:
    """{name of an arm or of a column: what it is}."""
    found = {arm.name: arm.about for arm in table.spec.arms if arm.about}
    for arm in table.arms:
        found.setdefault(arm, found.get(row_of(arm), ""))
    known = targets(table)
    for column in table.columns:
        size = Size.parse(table.column(column).size, table.config.head_dim if table.config else 1)
        text = f"{size.depth} layers, {size.heads} heads"
        if column in known:
            text += f", width {size.width}: {known[column].params / 1e6:.2g} million parameters without a head"
        images = table.column(column).set
        found[column] = f"{text}; on {images}" if images else text
    return {name: text for name, text in found.items() if text}


def metric_label(metric: Metric) -> str:
    """Its name, and its direction where that is not the usual one."""
    return metric.label + ("" if metric.higher_is_better else " (lower is better)")
