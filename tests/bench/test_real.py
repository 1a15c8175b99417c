"""A table that starts from a checkpoint: nothing is pre-trained, each set of images has its own size and order."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sweet.bench.arms import Checkpoint, Converted
from sweet.bench.protocol import Protocol, Trial
from sweet.bench.protocols import PROTOCOLS
from sweet.bench.real import REAL_ARMS
from sweet.bench.run import run
from sweet.bench.sources import Sources, learn_source
from sweet.errors import UserError
from sweet.files import read_json
from sweet.results.fairness import check
from sweet.storage.folders import load_source

REAL = PROTOCOLS["real", "real"]
SHAPE = ("data.mean=[0.485,0.456,0.406]", "data.std=[0.229,0.224,0.225]", "data.interpolation=bicubic")
ROWS = {
    name: replace(REAL_ARMS[name], switches={**REAL_ARMS[name].switches, **more})
    for name, more in {
        "weight_selection_conditioned": {},
        "isomorphic": {},
        "distilled": {"steps": 2, "batch": 8},
        "distilled_selected": {"steps": 2, "batch": 8},
        "sweet": {},
        "checkpoint": {},
    }.items()
}
TINY = Protocol(
    name="real",
    pretrain=str(Path(__file__).parents[1] / "tiny.yaml"),
    sizes=("L1H1", "L2H2"),
    arms=ROWS,
    seeds=2,
    finetune=("max_steps=2", "batch_size=16", "workers=0", "optim.precision=fp32", "data.augment=crop"),
    sources={"checkpoint": Checkpoint(("model.family=vit", *SHAPE)), "template": Converted("checkpoint")},
    fewer_seeds={"L2H2": 1},
    partial={name: ("L2H2",) if name == "checkpoint" else ("L1H1",) for name in ROWS},
    one_source=True,
    trials=(Trial(data="a", img_size=16), Trial(data="b", img_size=24)),
)
SETS = ["a=shapes:n=40,size=16", "b=shapes:n=40,size=24,seed=3"]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT as timm saves one."""
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=0
    )
    folder = tmp_path_factory.mktemp("checkpoint")
    args = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    save_for_hf(vit, folder, model_args=args, safe_serialization=True)
    return folder


def first(cells: dict[str, Any]) -> list[dict[str, Any]]:
    """The first run of each cell."""
    return [cell["runs"][0] for cell in cells.values()]


def test_a_table_from_a_checkpoint(released: Path, tmp_path: Path) -> None:
    summary = run(
        TINY, "real", out=tmp_path, transfer=SETS, checkpoint=str(released), workers=1, device="cpu", quiet=True
    )
    assert (summary["measured"], summary["open"], summary["failed"]) == (2 * (5 * 2 + 1), 0, [])
    folder = tmp_path / "real" / "real"
    for name in ("a", "b"):
        arms = {arm: read_json(folder / f"classify-{arm}-L1H1-{name}.json") for arm in ROWS if arm != "checkpoint"}
        names = {arm: {run["source"] for run in cell["runs"]} for arm, cell in arms.items()}
        assert names["sweet"] == names["distilled"] and names["isomorphic"] == names["distilled_selected"]
        assert all(len(one) == 1 for one in names.values())
        assert len({(run["train_loss"], run["test_loss"]) for run in first(arms)}) == len(arms)
        assert [run["init_images"] for run in arms["distilled"]["runs"]] == [40, 40]
    assert len(list((tmp_path / "real" / "sources").glob("*.json"))) == 4  # dense and template, for each image size
    whole = read_json(folder / "classify-checkpoint-L2H2-b.json")
    assert (whole["role"], len(whole["runs"])) == ("reference", 1)
    assert check(tmp_path)["violations"] == []


def test_a_dense_source_is_the_checkpoint(released: Path) -> None:
    import timm

    sources = Sources(TINY, "shapes:n=40,size=16", checkpoint=str(released), img_size=24)
    learn_source(sources, "checkpoint", "cpu")
    stored = load_source(sources.folder("checkpoint"))
    assert (stored.config.img_size, stored.data.img_size) == (24, 24)
    vit = timm.create_model(f"local-dir:{released}", pretrained=True, img_size=24, num_classes=0).eval()
    from sweet.models.forward import encode, patchify
    from sweet.storage.folders import source_tensors

    pixels = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = encode(source_tensors(stored.source), patchify(pixels, 4), stored.config)
        torch.testing.assert_close(ours, vit.forward_features(pixels), rtol=1e-4, atol=1e-5)


def test_what_is_no_checkpoint_is_one_line(released: Path, tmp_path: Path) -> None:
    for checkpoint, line in (
        (None, "--checkpoint is missing: a folder"),
        (str(tmp_path), rf"--checkpoint {tmp_path}: has no model.safetensors"),
    ):
        with pytest.raises(UserError, match=line):
            run(TINY, "real", out=tmp_path / "out", transfer=SETS, checkpoint=checkpoint, device="cpu", quiet=True)
    other = replace(
        TINY, sources=TINY.sources | {"checkpoint": Checkpoint(("model.family=vit", "model.depth=3", *SHAPE))}
    )
    sources = Sources(other, "shapes:n=40,size=16", checkpoint=str(released), img_size=16)
    with pytest.raises(UserError, match=r"--checkpoint .*: has depth 2, this table is of 3"):
        learn_source(sources, "checkpoint", "cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_real_checkpoint_is_what_the_table_describes() -> None:
    folder = Path(os.environ.get("SWEET_CHECKPOINT", Path(__file__).parents[3] / "shared" / "models" / "dinov2-s14"))
    if not folder.is_dir():
        pytest.skip("needs ../shared/models/dinov2-s14, or its place in SWEET_CHECKPOINT")
    sources = Sources(REAL, "shapes:n=16,size=64", checkpoint=str(folder), img_size=56)
    learn_source(sources, "checkpoint", "cpu")
    config = load_source(sources.folder("checkpoint")).config
    assert (config.depth, config.heads, config.width, config.patch_size, config.img_size) == (12, 6, 384, 14, 56)
