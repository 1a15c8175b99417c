"""Tiny sources of the depth and heads of ViT-B, and images to look at."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sweet.data import ImageSource, open_images
from sweet.storage.folders import StoredSource


@pytest.fixture(scope="session")
def wide(make_source: Callable[..., StoredSource]) -> Callable[[str, str], StoredSource]:
    """wide(family, constraint): L12H12 of head_dim 4, ordered. Shared: do not write."""
    made: dict[tuple[str, str], StoredSource] = {}

    def get(family: str, constraint: str = "none") -> StoredSource:
        key = (family, constraint)
        if key not in made:
            made[key] = make_source(family, constraint, depth=12, heads=12, head_dim=4, ordered=True)
        return made[key]

    return get


@pytest.fixture(scope="session")
def images() -> ImageSource:
    return open_images("shapes:n=64,size=16", "train")
