"""A file of weights as plain tensors, whatever its trainer wrapped around them. No file can run code."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sweet.errors import UserError
from sweet.files import read_tensors
from sweet.template.slices import under

FILES = ("model.safetensors", "pytorch_model.bin")  # of a folder of timm or transformers, the first one there
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
# Under which names trainers keep a state dict beside optimiser and arguments.
WRAPPERS = (
    "model", "state_dict", "model_state_dict", "module", "teacher", "student", "model_ema", "state_dict_ema", "ema",
    "ema_state_dict", "network", "net", "backbone", "encoder",
)  # fmt: skip
# What the first tensor of an encoder is called, by timm and by transformers: what stands before it is a prefix.
STEMS = r"(patch_embed\.proj\.weight|embeddings\.patch_embeddings?(?:\.projection)?\.weight)$"
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Weights:
    """Floating-point tensors in float32 without a shared prefix; ``dtype`` is that of most of them in the file."""

    tensors: dict[str, Tensor]
    dtype: torch.dtype = torch.float32


def file_in(folder: Path) -> Path:
    """The file of weights of a folder of timm or transformers. Raises UserError naming a folder without."""
    found = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if found is None:
        raise UserError(f"{folder}: holds none of {', '.join(FILES)}")
    return found


def read_weights(path: Path, part: str | None = None) -> Weights:
    """The weights in a file; ``part`` names the set, or the prefix, where there are several of them.

    Raises UserError naming the file, and its sets where one has to be chosen.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: expected a {', '.join(SUFFIXES[:-2])}, .ckpt or .pth.tar file")
    found: Any = read_tensors(path) if path.suffix == ".safetensors" else _unpickled(path)
    state, chosen = _state_dict(found, path, part)
    return _weights(state, path, part if chosen != part else None)


def read_shards(files: Sequence[Path], index: Path, part: str | None = None) -> Weights:
    """The weights of several safetensors files, one set that ``index`` lists; as :func:`read_weights`."""
    return _weights({name: value for file in files for name, value in read_tensors(file).items()}, index, part)


def _weights(state: Mapping[str, Tensor], path: Path, part: str | None) -> Weights:
    tensors = {name: value for name, value in state.items() if value.is_floating_point()}
    tensors = _without_prefix(tensors, path, part)  # of all shards at once: the first tensor of an encoder is in one
    return Weights({n: v.float() for n, v in tensors.items()}, dtype_of(tensors))


def dtype_of(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The type of most numbers: float16, bfloat16, or float32 for whatever else."""
    counts: Counter[torch.dtype] = Counter()
    for value in tensors.values():
        counts[value.dtype] += value.numel()
    most = counts.most_common(1)[0][0] if counts else torch.float32
    return most if most in HALF else torch.float32


def _unpickled(path: Path) -> Any:
    try:
        # a Namespace of arguments is data: it only gets attributes
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # a damaged or foreign file raises nearly any type
        text = str(problem)
        foreign = re.search(r"GLOBAL (\S+)", text)
        reason = f"it holds a {foreign[1]}" if foreign else text.split(". ")[0].splitlines()[0] if text else "damaged"
        raise UserError(
            f"{path}: not a file of plain tensors, and sweet runs no code of a checkpoint; save its weights as "
            f"safetensors ({reason})"
        ) from None


def _state_dict(found: Any, path: Path, part: str | None) -> tuple[dict[str, Tensor], str]:
    """The one mapping of names to tensors, and the key under which it was."""
    chosen = ""
    while isinstance(found, Mapping) and not any(isinstance(v, Tensor) and v.dim() for v in found.values()):
        sets = [key for key in WRAPPERS if _holds_tensors(found.get(key))]
        if part is not None and part in sets:
            sets = [part]
        if len(sets) > 1:
            raise UserError(f"{path}: holds several sets of weights: {', '.join(sets)}; choose one with --weights NAME")
        if not sets:
            break
        chosen = chosen if chosen == part and part else sets[0]
        found = found[sets[0]]
    tensors = {k: v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not tensors or any(isinstance(value, Mapping) for value in found.values()):
        raise UserError(f"{path}: holds no state dict")
    return tensors, chosen


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(v, Tensor) or _holds_tensors(v) for v in value.values())


def _without_prefix(tensors: dict[str, Tensor], path: Path, part: str | None) -> dict[str, Tensor]:
    """The encoder's tensors without what stands before all their names; heads beside it are left out."""
    prefixes = [name[: match.start()] for name in tensors if (match := re.search(STEMS, name))]
    if part is not None:
        wanted = [p for p in prefixes if p.rstrip(".") == part.rstrip(".")]
        if not wanted:
            known = ", ".join(p.rstrip(".") for p in prefixes if p) or "no choice of them"
            raise UserError(f"--weights {part}: {path} has no such set of weights; it has {known}")
        prefixes = wanted
    if len(prefixes) > 1:
        names = ", ".join(p.rstrip(".") or "(none)" for p in prefixes)
        raise UserError(f"{path}: holds several encoders, under {names}; choose one with --weights NAME")
    prefix = prefixes[0] if prefixes else ""
    if not prefix:
        return tensors
    inside = under(prefix, tensors)
    # transformers keeps MAE's decoder, and the final norm of a BEiT that was pre-trained, beside the encoder
    outside = {n: v for n, v in tensors.items() if re.match(r"(module\.|_orig_mod\.)*(decoder[._]|layernorm\.)", n)}
    return inside | {n: v for n, v in outside.items() if not n.startswith(prefix)}
