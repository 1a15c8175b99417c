"""Images that look alike, by the cosine of their embeddings: duplicates in a set, neighbours of one image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor

from sweet.data import PixelFormat
from sweet.data.folder import FolderImages
from sweet.errors import UserError

from .checks import similarity
from .embed import MODEL_KEY, Encoder

AT_ONCE = 1024  # rows of the table of all cosines that are in memory at a time
Row = dict[str, str | float]


@dataclass(frozen=True)
class Embeddings:
    """A file of ``sweet embed``: names of images (N,), unit vectors (N, D), and the checksum of the model's weights."""

    names: list[str]
    vectors: Tensor
    model: str | None


def near(embeddings: Path, *, query: Path | None, model: Path | None, top: int, device: str = "auto") -> list[Row]:
    """The ``top`` images most like ``query``, or, without one, the ``top`` pairs most like each other; best first.

    Rows of a table with the ``cosine`` of two embeddings. Raises UserError for a file that is no such table, a query
    without a model, and a model by which the file was not made.
    """
    if (query is None) != (model is None):
        raise UserError("--query and --model: go together, the model turns the image into a vector")
    known = read_embeddings(embeddings)
    if query is None or model is None:
        return alike_pairs(known, top)
    encoder = Encoder(model, device)
    if known.model not in (None, encoder.sha256) or encoder.width != known.vectors.shape[1]:
        raise UserError(f"--model {model}: {embeddings} was made by another model; the two cannot be compared")
    image = FolderImages("--query", "query", [str(query)], None, None).read_as(PixelFormat.of(encoder.record.data))
    (vector,) = encoder.vectors(image, batch_size=1)
    cosines = similarity(F.normalize(vector[None], dim=1), known.vectors)[0]
    best = cosines.topk(min(top, len(cosines)))
    return [
        {"image": known.names[index], "cosine": round(value, 5)}
        for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def alike_pairs(known: Embeddings, top: int) -> list[Row]:
    """The ``top`` pairs of images of the highest cosine."""
    count = len(known.names)
    best, places = torch.empty(0), torch.empty(0, dtype=torch.int64)
    for first in range(0, count, AT_ONCE):
        cosines = similarity(known.vectors[first : first + AT_ONCE], known.vectors)
        later = torch.arange(count) > torch.arange(first, first + len(cosines))[:, None]
        values, flat = cosines.masked_fill(~later, -2.0).flatten().topk(min(top, cosines.numel()))
        best, order = torch.cat([best, values]).topk(min(top, len(best) + len(values)))
        places = torch.cat([places, flat + first * count])[order]
    return [
        {"image": known.names[place // count], "other": known.names[place % count], "cosine": round(value, 5)}
        for value, place in zip(best.tolist(), places.tolist(), strict=True)
        if value > -2
    ]


def read_embeddings(file: Path) -> Embeddings:
    """A file that ``sweet embed`` wrote. Raises UserError naming it for any other."""
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as problem:
        raise UserError(f"EMBEDDINGS {file}: not a parquet file ({problem})") from None
    for name in ("embedding", "image"):
        if name not in table.column_names:
            raise UserError(f"EMBEDDINGS {file}: has no column {name}; write it anew with sweet embed")
    if not len(table):
        raise UserError(f"EMBEDDINGS {file}: holds no images")
    try:
        vectors = torch.tensor(np.stack(table["embedding"].to_numpy()), dtype=torch.float32)
    except (ValueError, TypeError):  # of several lengths, or no numbers
        vectors = torch.empty(0)
    if vectors.dim() != 2 or not vectors.numel() or not vectors.isfinite().all():
        raise UserError(f"EMBEDDINGS {file}: column embedding does not hold one vector of numbers an image")
    by = (table.schema.metadata or {}).get(MODEL_KEY)
    return Embeddings(table["image"].to_pylist(), F.normalize(vectors, dim=1), by.decode() if by else None)
