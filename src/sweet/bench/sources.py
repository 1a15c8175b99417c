"""The sources of a table: each is learned once, into the user's cache, under a name that holds its whole recipe."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import safe_open

from sweet.errors import UserError
from sweet.files import cache_folder, read_json, sha256
from sweet.recipes.loader import load_recipe
from sweet.recipes.resolved import resolve
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe, TrainKeys, without_path
from sweet.results.records import SourceResult, SourceTraining
from sweet.storage.layout import TENSORS, write_folder
from sweet.storage.records import FolderRecord, read_record

from .arms import Checkpoint, Converted, FineTuned, Recipe, Rotated
from .protocol import Protocol, own_overrides

TRAINING_VERSION = 2  # a source that other code has learned is another one: raised when a recipe gives other weights
HOW: Any = {  # how a run is run
    **dict.fromkeys(("device", "workers", "checkpoint_every", "log_with", "val_every", "patience"), True),
    "optim": {"compile"},
}
ADDED_UP = ("images", "steps", "seconds", "pflops")


def digest(value: object) -> str:
    """12 hexadecimal digits of what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def settings_of(recipe: TrainKeys, *, exclude: Any = HOW, changed: bool = False) -> dict[str, Any]:
    """What a recipe's results depend on, on any machine: all keys, or only those ``changed`` from their defaults."""
    values = recipe.model_dump(mode="json", exclude=exclude, exclude_defaults=changed)
    values["data"]["source"] = images_name(values["data"]["source"])
    return {key: value for key, value in values.items() if value != {}}


def images_name(spec: str) -> str:
    """What a set is called wherever it lies: by its last folder, where it lies in one."""
    reader, _, name = without_path(spec).partition(":")
    return spec if reader in ("hub", "stream", "shapes") or not name else name


def finetune_recipe_of(protocol: Protocol, *overrides: str) -> FinetuneRecipe:
    """How a protocol fine-tunes a classifier."""
    return load_recipe(FinetuneRecipe, None, [*protocol.finetune, *overrides])


@dataclass(frozen=True)
class Sources:
    """The sources of a protocol, learned by ``seed`` on the images of ``data``.

    A :class:`Checkpoint` is what ``checkpoint`` names, for images of ``img_size`` pixels.
    """

    protocol: Protocol
    data: str
    seed: int = 0
    checkpoint: str | None = None
    img_size: int | None = None

    def made(self, name: str) -> Recipe:
        """How a source comes about."""
        return self.protocol.sources[name]

    def before(self, name: str) -> str | None:
        """The source that this one is made from, goes on from or is taught by (override ``KEY=@NAME``)."""
        made = self.made(name)
        if isinstance(made, Checkpoint):
            return None
        return next(iter(_others(made).values()), None) if isinstance(made, list) else made.of

    def chain(self, name: str) -> list[str]:
        """The sources that one is made from, the first first, and itself."""
        parent = self.before(name)
        return [*(self.chain(parent) if parent else []), name]

    def recipe(self, name: str) -> PretrainRecipe:
        """What a source is trained by; of one that is made of another, what that was trained by."""
        made = self.made(name)
        overrides = [f"data.source={self.data}", f"seed={self.seed}"]
        if isinstance(made, Checkpoint):
            overrides += made.shape if self.img_size is None else (*made.shape, f"data.img_size={self.img_size}")
        elif isinstance(made, list):
            overrides += own_overrides(made)
            for key, other in _others(made).items():
                overrides.append(f"{key}={self.folder(other)}")
                if key == "teacher":
                    overrides.append(f"data.labels={json.dumps(finetune_recipe_of(self.protocol).data.labels)}")
        else:
            return self.recipe(made.of)
        return load_recipe(PretrainRecipe, self.protocol.pretrain, overrides)

    def teacher_recipe(self) -> FinetuneRecipe:
        """What a teacher is fine-tuned by: as the cells of the table are."""
        return finetune_recipe_of(self.protocol, f"data.source={self.data}", f"seed={self.seed}", "data.label_seed=0")

    def folder(self, name: str) -> Path:
        """Where a source is cached.

        By the version of the training code and everything in its recipe but how it is run and where its images lie.

        A key at its default is left out, so that a new key gives old sources no new name; ranks never are, for their
        default follows from the size.
        """
        made, recipe, folder = self.made(name), self.recipe(name), cache_folder() / "sources"
        if isinstance(made, Checkpoint):
            return folder / f"checkpoint-{digest([weights_sha256(self.checkpoint), self.img_size, made.shape])}"
        if not isinstance(made, list):
            about = [self.folder(made.of).name, *astuple(made)[1:]]
            if isinstance(made, FineTuned):
                about.append(settings_of(self.teacher_recipe(), changed=True))
            if isinstance(self.made(self.chain(name)[0]), Checkpoint):  # the images that its order is computed from
                about.append(images_name(self.data))
            return folder / f"{recipe.name}-{type(made).__name__.lower()}-{digest(about)}"
        values = settings_of(recipe, changed=True)
        if TRAINING_VERSION > 1:
            values["training"] = TRAINING_VERSION
        if recipe.template.constraint != "tucker":
            values["template"].pop("learn", None)
        elif not recipe.template.factored_at_end:
            values.setdefault("template", {})["ranks"] = resolve(recipe).ranks
        for key in ("init_from", "teacher"):
            if values.get(key) is not None:
                values[key] = Path(values[key]).name
        return folder / f"{recipe.name}-{recipe.template.constraint}-{digest(values)}"

    def learned(self, name: str) -> bool:
        """Whether a source lies in the cache, complete."""
        return (self.folder(name) / "config.json").is_file()

    def record(self, name: str) -> FolderRecord:
        """The record of a learned source."""
        return read_record(self.folder(name), tuple(TENSORS))

    def result(self, name: str) -> SourceResult:
        """What results keep of a learned source; images, seconds and FLOPs of its training include its parents'."""
        folder, record = self.folder(name), self.record(name)
        tensors = folder / TENSORS[record.kind]
        more = {
            "source": folder.name,
            "training": self.training(name),
            "sha256": sha256(tensors),
            "seed": self.seed,
            "code": TRAINING_VERSION,
            "environment": self._environment(name),
            "order_spectrum": _spectrum(tensors),
        }
        return SourceResult.model_validate(record.to_dict() | more)

    def _environment(self, name: str) -> dict[str, object]:
        """Of its training; of one that is made of another, of that one's."""
        files = (self.folder(one) / "env.json" for one in reversed(self.chain(name)))
        return next((read_json(file) for file in files if file.is_file()), {})

    def training(self, name: str) -> SourceTraining:
        """What training a source took, all before it included."""
        record, made, parent = self.record(name), self.made(name), self.before(name)
        own = record.converted.healing if record.converted else record.training  # its parent's is added below
        values = own.to_dict() if own else {}
        if isinstance(made, Checkpoint):
            values["pflops"] = 0.0  # somebody else's
        if isinstance(made, list) and "teacher" in _others(made):
            values["teacher"] = self.folder(_others(made)["teacher"]).name
        if isinstance(made, FineTuned):
            values["pflops"] = 3 * values["images"] * record.vit.cost().flops(attention=True) / 1e15
        for key, value in self.training(parent).to_dict().items() if parent else ():
            values[key] = values.get(key, 0) + value if key in ADDED_UP else values.get(key, value)
        return SourceTraining.model_validate(values)


@cache
def weights_sha256(folder: str | None) -> str:
    """The checksum of the weights in a folder. Raises UserError naming it where there are none."""
    if folder is None:
        raise UserError("--checkpoint is missing: a folder with a pre-trained ViT, from which this table starts")
    file = Path(folder) / "model.safetensors"
    if not file.is_file():
        raise UserError(f"--checkpoint {folder}: has no model.safetensors")
    return sha256(file)


def _others(made: list[str]) -> dict[str, str]:
    """{key: name of another source} of overrides."""
    return dict(value.split("=@") for value in made if "=@" in value)


def learn_source(sources: Sources, name: str, device: str) -> None:
    """Make a source in the cache unless it is there; resumes an interrupted one. What it is made from must be there."""
    from sweet.convert.convert import convert
    from sweet.training.pretrain import pretrain

    folder, made = sources.folder(name), sources.made(name)
    if sources.learned(name):
        return
    if isinstance(made, list):
        pretrain(sources.recipe(name).model_copy(update={"device": device}), folder, resume=True, quiet=False)
        return
    if isinstance(made, Checkpoint):
        adopt(sources, name, folder)
        return
    parent = sources.folder(made.of)
    if isinstance(made, Converted):
        ranks, metric, steps, data = made.ranks, made.metric, made.heal, sources.data
        convert(str(parent), folder, ranks=ranks, metric=metric, heal_steps=steps, data=data, device=device)
    elif isinstance(made, Rotated):
        rotate(parent, folder)
    else:
        # its last step, as of the cells of a table, and not the best: a table's validation images may be its test set
        teach(parent, sources.teacher_recipe().model_copy(update={"device": device, "val_every": 0}), folder)


def adopt(sources: Sources, name: str, out: Path) -> None:
    """A checkpoint of somebody else as a dense source for the image size of use, its positions resampled.

    Raises UserError where it is not what the table describes.
    """
    from sweet.convert.read import read
    from sweet.models.mae import source_from_state
    from sweet.models.resample import at_image_size
    from sweet.storage.folders import source_tensors

    assert sources.checkpoint is not None
    checkpoint, expected = read(sources.checkpoint)[0], resolve(sources.recipe(name))
    dense = source_from_state(checkpoint.state, checkpoint.config)
    seen = at_image_size(dense, checkpoint.config, sources.img_size)
    config, wanted = seen.config, expected.vit
    for key in ("depth", "heads", "head_dim", "patch_size"):
        if getattr(config, key) != getattr(wanted, key):
            values = f"{key} {getattr(config, key)}, this table is of {getattr(wanted, key)}"
            raise UserError(f"--checkpoint {sources.checkpoint}: has {values}")
    data = checkpoint.data.model_copy(update={"img_size": config.img_size})
    record = FolderRecord(kind="dense", vit=config, mae=checkpoint.mae, data=data)
    write_folder(out, (TENSORS["dense"], source_tensors(seen.source)), record, f"checkpoint: {checkpoint.name}\n", "")


def rotate(dense: Path, out: Path) -> None:
    """The same function with the stream in its principal order, as a dense source of its own."""
    from sweet.models.mae import source_from_state
    from sweet.storage.folders import load_source, source_tensors
    from sweet.template.target import target_weights

    stored = load_source(dense)
    size = stored.config.size
    rotated = source_from_state(target_weights(stored.source, size.depth, size.width), stored.config)
    record = stored.record.model_copy(update={"training": None, "width": None})
    write_folder(out, (TENSORS["dense"], source_tensors(rotated)), record, f"rotated: {dense.name}\n", "")


def teach(source: Path, recipe: FinetuneRecipe, out: Path) -> None:
    """A source as a classifier of its own size, fine-tuned."""
    from sweet.initialise.make import initialise_to
    from sweet.training.finetune import finetune

    config, start = read_record(source, ("dense", "template")).vit, out.with_name(f".{out.name}-start")
    if not (start / "config.json").is_file():
        initialise_to(str(source), start, depth=config.depth, heads=config.heads, method="weight_selection")
    finetune(start, recipe, out, resume=True)
    shutil.rmtree(start)


def _spectrum(tensors: Path) -> list[float]:
    """Share of the normalised stream's energy at each index of the principal order; empty where there is none."""
    with safe_open(tensors, "numpy") as stored:
        if "order.energy" not in stored.keys():  # noqa: SIM118
            return []
        energy = stored.get_tensor("order.energy").sum(0)
    return [round(float(share), 6) for share in energy / energy.sum()]
