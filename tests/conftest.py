"""One thread, no network, no screen, a cache of its own; GPU tests only where there is a GPU."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

# Before anything imports torch or Hugging Face, which read these once.
os.environ.update(
    PYTHONPATH=str(Path(__file__).parents[1] / "src"),  # for the processes that tests start
    OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "1"),
    MPLBACKEND="Agg",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
)

import pytest

from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe

if TYPE_CHECKING:
    from sweet.api import Template

TINY = Path(__file__).parent / "tiny.yaml"
TINY_FINETUNE = (
    "device=cpu workers=0 optim.precision=fp32 max_steps=6 batch_size=16 lr=2e-3 checkpoint_every=2 "
    "data.source=shapes:n=64,size=16"
).split()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["SWEET_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def processes(own_cache: None) -> ForkServerContext:
    """Processes that have torch and sweet already: they cost a fork, not an import, and can be killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["sweet.bench.run", "sweet.initialise.make", "sweet.training.finetune", "torch.utils.tensorboard", "pytest"]
    )
    return context


@pytest.fixture(scope="session")
def tiny() -> Callable[..., PretrainRecipe]:
    """tiny("key=value", ...): a pre-training that takes a fraction of a second."""
    return lambda *overrides: load_recipe(PretrainRecipe, TINY, overrides)


@pytest.fixture(scope="session")
def tiny_finetune() -> Callable[..., FinetuneRecipe]:
    """tiny_finetune("key=value", ...): a fine-tuning that takes a fraction of a second."""
    return lambda *overrides: load_recipe(FinetuneRecipe, None, [*TINY_FINETUNE, *overrides])


@pytest.fixture(scope="session")
def crash_at() -> Callable[[int], AbstractContextManager[None]]:
    """``with crash_at(step):`` a training in this process ends there without a word to the program."""
    from sweet.training.log import RunLog

    class Crash(BaseException):
        pass

    @contextmanager
    def crashing(after: int) -> Iterator[None]:
        step = RunLog.step

        def stop(log: RunLog, done: int, *values: Any) -> None:
            step(log, done, *values)
            if done == after:
                raise Crash

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
            patch.setattr(RunLog, "step", stop)
            yield

    return crashing


@pytest.fixture(scope="session")
def template(own_cache: None, tiny: Callable[..., PretrainRecipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished L2H2 template. Shared: copy before writing."""
    from sweet.training.pretrain import pretrain

    out = tmp_path_factory.mktemp("sources") / "template"
    pretrain(tiny(), out, quiet=True)
    return out


@pytest.fixture(scope="session")
def dense(own_cache: None, tiny: Callable[..., PretrainRecipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished dense L2H2 source. Shared: copy before writing."""
    from sweet.training.pretrain import pretrain

    out = tmp_path_factory.mktemp("sources") / "dense"
    pretrain(tiny("template.constraint=none"), out, quiet=True)
    return out


@pytest.fixture(scope="session")
def model(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A L2H2 model made from the template, no head yet. Shared: copy before writing."""
    from sweet.initialise.make import initialise_to

    out = tmp_path_factory.mktemp("models") / "model"
    initialise_to(str(template), out, depth=2, heads=2)
    return out


@pytest.fixture(scope="session")
def classifier(
    model: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The model, fine-tuned for a moment on ten classes. Shared: copy before writing."""
    from sweet.training.finetune import finetune

    out = tmp_path_factory.mktemp("models") / "classifier"
    finetune(model, tiny_finetune(), out, quiet=True)
    return out


@pytest.fixture(scope="session")
def make_source() -> Callable[..., Template]:
    """make_source(family, constraint): a small random source in which no bias is zero and no gain is one.

    24 channels in 3 heads by default; a template's ranks are below them. ``ordered`` computes the principal order,
    ``unit_gains`` leaves the norms' gains at one.
    """
    import torch

    from sweet.api import Template
    from sweet.models.config import MaeConfig, ViTConfig
    from sweet.models.mae import init_source
    from sweet.models.moments import compute_order
    from sweet.storage.records import DataConfig, FolderRecord
    from sweet.template.image_size import sides

    def make(
        family: str = "eva",
        constraint: str = "tucker",
        *,
        ranks: tuple[int, int, int] = (10, 20, 18),
        ordered: bool = False,
        unit_gains: bool = False,
        seed: int = 0,
        **sizes: Any,
    ) -> Template:
        shape = {"depth": 3, "heads": 3, "head_dim": 8, "img_size": 16, "patch_size": 4} | sizes
        config = ViTConfig(family=family, **shape)
        mae = MaeConfig(decoder_width=16, decoder_depth=1, decoder_head_dim=8)
        generator = torch.Generator().manual_seed(seed)
        source = init_source(config, mae, constraint=constraint, ranks=ranks, generator=generator)
        for tensors in (source.blocks, source.stem, source.decoder):
            for name, value in tensors.items():
                gain = "norm" in name and name.endswith("weight")
                if (name.endswith("bias") or "token" in name or gain) and not (gain and unit_gains):
                    tensors[name] = value + 0.3 * torch.randn(value.shape, generator=generator)
        if ordered:
            images = torch.randn(8, config.in_chans, *sides(config.img_size), generator=generator)
            source.order = compute_order(source, config, [images])
        grey = {"mean": (0.5,) * config.in_chans, "std": (0.25,) * config.in_chans}
        data = DataConfig(img_size=config.img_size, interpolation="bilinear", **grey)
        kind: Literal["template", "dense"] = "dense" if constraint == "none" else "template"
        return Template(source, FolderRecord(kind=kind, vit=config, mae=mae, constraint=constraint, data=data))

    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="no GPU here"))
