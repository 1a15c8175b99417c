"""How much memory a training takes, by a rule of thumb, and how much a machine has. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from sweet.models.config import ViTConfig
from sweet.recipes.resolved import ResolvedRecipe

from .flops import template_cost, visible_tokens

KEPT = 30  # numbers of each channel of a token that a block keeps for its backward pass
FLOAT, LEARNED = 4, 16  # bytes of a number, and of one with its gradient and Adam's two moments


def training_memory(resolved: ResolvedRecipe, images: int) -> float:
    """Bytes of what is learned, of the matrices made from it, and of what the backward pass needs of so many images."""
    recipe, vit, mae = resolved.recipe, resolved.vit, resolved.mae
    cost = template_cost(vit, recipe.template.trained, ranks=resolved.learned_ranks, tile=resolved.tile)
    built = 0 if recipe.template.trained == "none" else 2 * FLOAT * template_cost(vit, "none", ranks=(), tile=0).shared
    tokens, masked = vit.patches + vit.prefix_tokens, recipe.objective == "mae"
    channels = (visible_tokens(vit, mae) if masked else tokens) * vit.width * vit.depth
    if masked:
        channels += tokens * mae.decoder_width * mae.decoder_depth
    return LEARNED * (cost.shared + cost.scalers) + built + images * channels * KEPT * FLOAT


def finetuning_memory(vit: ViTConfig, images: int) -> float:
    """Bytes of a ViT that is fine-tuned, and of what its backward pass needs of so many images; no task's head."""
    tokens = vit.patches + vit.prefix_tokens
    return LEARNED * vit.cost().parameters() + images * tokens * vit.width * vit.depth * KEPT * FLOAT


def machine_memory() -> int | None:
    """Bytes of this machine, None where it does not say."""
    known = Path("/proc/meminfo")
    words = known.read_text().split() if known.is_file() else []
    return 1024 * int(words[words.index("MemTotal:") + 1]) if "MemTotal:" in words else None


def memory_note(needed: float, there: int | None) -> list[str]:
    """A line where a training needs more bytes than ``there`` are."""
    if there is None or needed <= there:
        return []
    return [
        f"about {needed / 1e9:,.0f} GB of memory are needed, and {there / 1e9:,.0f} GB are there; a smaller batch_size "
        "needs less, and so do the same batches in parts (optim.accumulate=...)"
    ]
