"""Group scores against torch-pruning and against a loop; what scores highest stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sweet.data import ImageSource
from sweet.initialise.apply import initialise
from sweet.initialise.isomorphic import group_scores, taylor
from sweet.initialise.selection import channels
from sweet.models.config import ViTConfig
from sweet.models.vit import materialised
from sweet.storage.folders import StoredSource, source_tensors
from sweet.template.sizes import Size

MakeSource = Callable[..., StoredSource]
PIXELS = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))


@pytest.mark.filterwarnings("ignore")  # of torch-pruning, about itself
def test_scores_are_those_of_torch_pruning() -> None:
    import torch_pruning

    config = ViTConfig(3, 3, 8, img_size=16, patch_size=4, family="vit")
    torch.manual_seed(0)
    vit = materialised(config, num_classes=5)
    for block in vit.blocks:
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.5)  # else the gradients of q and k are next to nothing
    vit(PIXELS).square().sum().backward()
    products = {name: (p * p.grad).abs().detach() for name, p in vit.named_parameters()}
    ours = group_scores(products, config, range(3))

    graph = torch_pruning.DependencyGraph().build_dependency(vit, example_inputs=PIXELS)
    scorer = torch_pruning.importance.GroupTaylorImportance()

    def theirs(layer: torch.nn.Module) -> Tensor:
        kind = "conv" if isinstance(layer, torch.nn.Conv2d) else "linear"
        prune = getattr(torch_pruning, f"prune_{kind}_out_channels")
        return scorer(graph.get_pruning_group(layer, prune, idxs=list(range(len(layer.weight)))))

    torch.testing.assert_close(ours.residual, theirs(vit.patch_embed.proj))
    for layer, block in enumerate(vit.blocks):
        torch.testing.assert_close(ours.hidden[layer], theirs(block.mlp.fc1))
        heads = theirs(block.attn.qkv).view(3, 3, 8).sum(0).mean(1)  # q, k and v of a channel; channels of a head
        torch.testing.assert_close(ours.heads[layer], heads / heads.mean())


@pytest.mark.parametrize("family", ["eva", "vit"])
def test_scores_are_sums_over_everything_that_goes_with_a_member(make_source: MakeSource, family: str) -> None:
    """Member by member: set it apart in every tensor that it touches, and add up."""
    source = make_source(family, "none")
    config, width, layers = source.config, 24, [0, 2]
    products = taylor(source, [PIXELS], seed=0)
    ours = group_scores(products, config, layers)
    hidden = products["blocks.0.mlp.fc2.weight"].shape[1]

    def of_block(layer: int) -> dict[str, Tensor]:
        prefix = f"blocks.{layer}."
        return {n.removeprefix(prefix): v for n, v in products.items() if n.startswith(prefix)}

    def normalised(values: list[float]) -> Tensor:
        return torch.tensor(values) / (sum(values) / len(values))

    residual = []
    for c in range(width):
        total = products["patch_embed.proj.weight"][c].sum() + products["norm.weight"][c]
        total = total + products["decoder.embed.weight"][:, c].sum()
        for layer in layers:
            p = of_block(layer)
            total = total + p["norm1.weight"][c] + p["norm2.weight"][c] + p["attn.qkv.weight"][:, c].sum()
            total = (
                total
                + p["mlp.fc1.weight"][:, c].sum()
                + (p["attn.proj.weight"][c].sum() + p["mlp.fc2.weight"][c].sum())
            )
        residual.append(total.item())
    torch.testing.assert_close(ours.residual, normalised(residual))
    for row, layer in enumerate(layers):
        p = of_block(layer)
        units = [
            (sum(p["mlp.fc1.weight"][j::hidden].sum(1)) + p["mlp.fc2.weight"][:, j].sum()).item() for j in range(hidden)
        ]
        torch.testing.assert_close(ours.hidden[row], normalised(units))
        heads = [
            sum(
                (p["attn.qkv.weight"][c::width].sum() + p["attn.proj.weight"][:, c].sum()).item()
                for c in range(8 * h, 8 * h + 8)
            )
            for h in range(3)
        ]
        torch.testing.assert_close(ours.heads[row], normalised(heads))


def test_gradients_are_those_of_the_masked_autoencoder(make_source: MakeSource) -> None:
    """Every tensor has one, also the decoder's, and gradients of several batches add up."""
    source = make_source("eva", "none")
    one, both = taylor(source, [PIXELS], 0), taylor(source, [PIXELS, PIXELS.flip(0)], 0)
    assert one.keys() == both.keys() == {n for n in source_tensors(source.source) if n != "pos_embed"}
    assert all(value.isfinite().all() and (value >= 0).all() for value in both.values())
    assert not torch.equal(one["norm.weight"], both["norm.weight"])


@pytest.mark.parametrize("family", ["eva", "vit"])
def test_planted_importance_is_found(family: str, wide: Callable[..., StoredSource], images: ImageSource) -> None:
    """Only some heads and units are alive: exactly these are kept, in their order."""
    source = wide(family)
    weights = source.source.core.weights
    units = weights["mlp.fc2.weight"].shape[2]
    inner = channels(torch.tensor([1, 2, 5, 7, 9, 11]), 4)
    hidden = torch.arange(units - (64 if family == "eva" else 96), units)
    live_inner, live_hidden = torch.zeros(48), torch.zeros(units)
    live_inner[inner], live_hidden[hidden] = 1, 1
    dead = weights | {
        "attn.proj.weight": weights["attn.proj.weight"] * live_inner,
        "attn.qkv.weight": weights["attn.qkv.weight"] * live_inner.repeat(3)[:, None],
        "mlp.fc2.weight": weights["mlp.fc2.weight"] * live_hidden,
    }
    planted = replace(source, source=replace(source.source, core=replace(source.source.core, weights=dead)))
    cut = initialise("isomorphic", planted, Size(3, 6, 4), data=images, budget=16)
    for layer in range(3):
        bias = source.source.blocks["attn.qkv.bias"][layer]
        assert torch.equal(cut[f"blocks.{layer}.attn.qkv.bias"][:24], bias[inner])
        fc1 = source.source.blocks["mlp.fc1.bias"][layer]
        assert torch.equal(cut[f"blocks.{layer}.mlp.fc1.bias"][: len(hidden)], fc1[hidden])
    kept = torch.stack([(source.source.stem["norm.weight"] == v).nonzero()[0, 0] for v in cut["norm.weight"]])
    assert torch.equal(kept, kept.unique()) and len(kept) == 24
    assert torch.equal(cut["decoder.embed.weight"], source.source.decoder["embed.weight"][:, kept])


def test_the_budget_is_the_number_of_images(wide: Callable[..., StoredSource], images: ImageSource) -> None:
    seen: list[int] = []

    class Spy:
        def __len__(self) -> int:
            return len(images)

        def select(self, indices: list[int]) -> ImageSource:
            seen.append(len(indices))
            return images.select(indices)

    for budget in (5, 7):
        initialise("isomorphic", wide("eva"), Size(2, 2, 4), data=Spy(), budget=budget)  # type: ignore[arg-type]
    assert seen == [5, 7]
