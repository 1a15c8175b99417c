"""CPU seconds from a template in memory to a ViT-B, against ``timm.create_model("vit_base_patch16_224")``.

    python benchmarks/init_speed.py [--rounds 5] [--threads 1] [--json FILE]

The template has the shape of recipe ``vit_b16_in1k`` with random values (time does not depend on them), and an order,
so that both the principal slice and the paper's prefix are timed. ``prefix_first`` is a template's first model in
prefix order, for which the stored basis is rotated back; later ones do without. The contestants take turns; medians of
ratios. The floor of a ViT-B is a copy of its bytes and the product X G.
"""

from __future__ import annotations

import statistics

import timm
import torch
from measure import in_turns, medians, options, ratio, report, timed

from sweet.api import Template
from sweet.models.config import MaeConfig
from sweet.models.mae import init_source
from sweet.recipes.loader import load_recipe
from sweet.recipes.resolved import resolve
from sweet.recipes.schema import PretrainRecipe
from sweet.storage.records import DataConfig, FolderRecord
from sweet.template.order import Order
from sweet.template.sizes import hidden_features
from sweet.template.target import absorb


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = load_recipe(PretrainRecipe, "vit_b16_in1k", [])
    resolved = resolve(recipe)
    config = resolved.vit
    generator = torch.Generator().manual_seed(0)
    source = init_source(config, MaeConfig(), constraint="tucker", ranks=resolved.ranks, generator=generator)
    source.decoder = {}
    rotation = torch.linalg.qr(torch.randn(config.width, config.width, generator=generator)).Q
    parts = (config.heads, hidden_features(config.width, config.mlp))
    heads, units = (torch.rand(config.depth, n, generator=generator).argsort(1) for n in parts)
    source.order = Order(rotation, torch.ones(2 * config.depth + 1, config.width), heads, units)
    record = FolderRecord(kind="template", vit=config, data=DataConfig.of_recipe(recipe.data, None))
    model = Template(absorb(source), record)  # as pre-training stores it
    core = model.source.core
    whole = torch.randn(12 * config.depth * config.width**2)
    contestants = {
        "timm": lambda _: timm.create_model("vit_base_patch16_224"),
        "principal": lambda _: model.build(12, 12, num_classes=1000, order="principal"),
        "prefix": lambda _: model.build(12, 12, num_classes=1000, order="prefix"),
        "prefix_first": lambda _: Template(model.source, record).build(12, 12, num_classes=1000, order="prefix"),
        "copy": lambda _: whole.clone(),
        "product": lambda _: core.x @ core.core.flatten(1),
        "vit_s_principal": lambda _: model.build(12, 6, num_classes=1000, order="principal"),
    }
    times = in_turns({name: timed(make) for name, make in contestants.items()}, args.rounds)
    floor = [c + p for c, p in zip(times.pop("copy"), times.pop("product"), strict=True)]
    result = {
        "benchmark": "ViT-B from a template in memory, against timm.create_model",
        "ranks": list(resolved.ranks),
        "seconds": medians(times),
        "timm_over_ours": {name: ratio(times["timm"], own, 2) for name, own in times.items() if name != "timm"},
        "floor_seconds": round(statistics.median(floor), 3),
        "ours_over_floor": {name: ratio(times[name], floor, 2) for name in ("principal", "prefix", "prefix_first")},
        "rounds": args.rounds,
    }
    report(result, args.json)


if __name__ == "__main__":
    main()
