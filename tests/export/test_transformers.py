"""The LayerNorm / GELU family in transformers: the same tokens, and the same classifier."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sweet
from sweet.data import normalise
from sweet.data.packed import centre_crop
from sweet.describe import inspect
from sweet.errors import UserError
from sweet.export import export, verify
from sweet.files import read_json
from sweet.storage.folders import load_model

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow  # the import alone takes seconds

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(4))


@pytest.fixture(autouse=True)
def its_own_warnings() -> Iterator[None]:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@torch.no_grad()
@pytest.mark.parametrize(("depth", "heads", "shape"), [(1, 1, {}), (3, 5, {}), (2, 3, {"patch_size": 8})])
def test_an_encoder_is_a_vit_model(
    write_model: Callable[..., Path], tmp_path: Path, depth: int, heads: int, shape: dict[str, int]
) -> None:
    made = write_model(tmp_path / "made", "vit", depth, heads, **shape)
    assert export(made, "transformers", tmp_path / "out")["class"] == "ViTModel"
    theirs, loading = transformers.ViTModel.from_pretrained(
        tmp_path / "out", add_pooling_layer=False, output_loading_info=True
    )
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    found = theirs.eval()(IMAGES).last_hidden_state
    expected = sweet.load(made).forward_features(IMAGES)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert "transformers" in verify(tmp_path / "out").values()


@torch.no_grad()
def test_a_classifier_keeps_its_head_and_names(
    write_model: Callable[..., Path], odd_names: list[str], tmp_path: Path
) -> None:
    made = write_model(tmp_path / "made", "vit", 2, 3, 4)
    assert export(made, "transformers", tmp_path / "out")["class"] == "Dinov2ForImageClassification"
    theirs, loading = transformers.AutoModelForImageClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected = sweet.load(made)(IMAGES)  # type: ignore[operator]
    torch.testing.assert_close(theirs.eval()(IMAGES).logits, expected, rtol=1e-5, atol=1e-5)
    assert theirs.config.id2label == dict(enumerate(odd_names[:4]))
    export(made, "transformers", tmp_path / "encoder", head=False)
    encoder = transformers.AutoModel.from_pretrained(tmp_path / "encoder", add_pooling_layer=False)
    assert type(encoder) is transformers.ViTModel


def test_the_processor_sees_the_same_pixels(write_model: Callable[..., Path], tmp_path: Path) -> None:
    made = write_model(tmp_path / "made", "vit", 1, 1)
    export(made, "transformers", tmp_path / "out")
    assert read_json(tmp_path / "out" / "preprocessor_config.json")["resample"] == 2
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    found = processor(picture, return_tensors="pt")["pixel_values"]
    data = load_model(made)[1].data
    expected = normalise(centre_crop(picture, 16)[None], data.mean, data.std)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_grey_images_stay_grey(write_model: Callable[..., Path], tmp_path: Path) -> None:
    export(write_model(tmp_path / "made", "vit", 1, 1, in_chans=1), "transformers", tmp_path / "out")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24), dtype=np.uint8))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    assert processor(picture, return_tensors="pt")["pixel_values"].shape == (1, 1, 16, 16)


def test_sweet_says_whose_folder_it_is(write_model: Callable[..., Path], tmp_path: Path) -> None:
    export(write_model(tmp_path / "made", "vit", 1, 1), "transformers", tmp_path / "out")
    for use in (sweet.load, inspect, lambda folder: export(folder, "timm", tmp_path / "again")):
        with pytest.raises(UserError, match=r"out: is for transformers, not for sweet; name the model"):
            use(tmp_path / "out")


@torch.no_grad()
@pytest.mark.parametrize("family", ["eva", "vit"])
def test_its_timm_wrapper_reads_the_timm_folder(
    write_model: Callable[..., Path], odd_names: list[str], tmp_path: Path, family: str
) -> None:
    made = write_model(tmp_path / "made", family, 2, 3, 4)
    export(made, "timm", tmp_path / "out")
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(theirs(IMAGES).logits, sweet.load(made)(IMAGES), rtol=1e-5, atol=1e-5)  # type: ignore[operator]
    assert theirs.config.id2label[3] == odd_names[3]


def test_the_other_family_is_refused(write_model: Callable[..., Path], tmp_path: Path) -> None:
    made = write_model(tmp_path / "made", "eva", 1, 1)
    with pytest.raises(UserError, match=r"--to transformers: family eva .* take --to timm"):
        export(made, "transformers", tmp_path / "out")
    assert not (tmp_path / "out").exists()
