"""transformers' folders under timm's names compute the same; what cannot be read is refused by its model type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from sweet.convert.bare_file import read_file
from sweet.convert.checkpoints import split_decoder
from sweet.convert.convert import convert
from sweet.convert.from_transformers import from_folder, fused, renamed_tensors, tower_of
from sweet.convert.read import Hints, read
from sweet.convert.timm_source import filled
from sweet.convert.towers import built
from sweet.convert.weights_file import read_weights
from sweet.errors import UserError
from sweet.export import export
from sweet.initialise.make import initialise_to
from sweet.models.mae import reconstruct, sincos
from sweet.models.vit import build_vit

from .random_models import images, shaken

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
PLAIN = SMALL | {"intermediate_size": 128}
MAE = PLAIN | {
    "decoder_hidden_size": 64, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 16,
    "decoder_intermediate_size": 256, "mask_ratio": 0.0,
}  # fmt: skip
# transformers' class, its config, and the attribute that holds the encoder.
MODELS: dict[str, tuple[Any, Any, str]] = {
    "vit": (hf.ViTModel, hf.ViTConfig(**PLAIN), ""),
    "vit of a narrower MLP": (hf.ViTModel, hf.ViTConfig(**PLAIN | {"intermediate_size": 96}), ""),
    "vit by tanh": (hf.ViTModel, hf.ViTConfig(**PLAIN, hidden_act="gelu_new"), ""),
    "classifier": (hf.ViTForImageClassification, hf.ViTConfig(**PLAIN), "vit"),
    "deit": (hf.DeiTModel, hf.DeiTConfig(**PLAIN), ""),
    "mae": (hf.ViTMAEForPreTraining, hf.ViTMAEConfig(**MAE), "vit"),
    "dinov2": (hf.Dinov2Model, hf.Dinov2Config(**SMALL, mlp_ratio=4), ""),
    "dinov2 gated": (hf.Dinov2Model, hf.Dinov2Config(**SMALL, mlp_ratio=4, use_swiglu_ffn=True), ""),
    "registers": (hf.Dinov2WithRegistersModel, hf.Dinov2WithRegistersConfig(**SMALL, mlp_ratio=4), ""),
    "dinov3": (hf.DINOv3ViTModel, hf.DINOv3ViTConfig(**PLAIN, num_register_tokens=4), ""),
    "dinov3 gated": (
        hf.DINOv3ViTModel,
        hf.DINOv3ViTConfig(**PLAIN, num_register_tokens=4, use_gated_mlp=True, hidden_act="silu"),
        "",
    ),
    "clip": (hf.CLIPVisionModel, hf.CLIPVisionConfig(**PLAIN), ""),
    "beit": (hf.BeitModel, hf.BeitConfig(**PLAIN, use_relative_position_bias=True), ""),
    "beit by one table": (
        hf.BeitModel,
        hf.BeitConfig(**PLAIN, use_shared_relative_position_bias=True, use_mask_token=True, use_mean_pooling=False),
        "",
    ),
    "beit with positions": (
        hf.BeitModel,
        hf.BeitConfig(**PLAIN, use_relative_position_bias=True, use_absolute_position_embeddings=True),
        "",
    ),
    "beit of no relative positions": (hf.BeitModel, hf.BeitConfig(**PLAIN), ""),
    "beit of its pre-training": (
        hf.BeitForMaskedImageModeling,
        hf.BeitConfig(**PLAIN, use_relative_position_bias=True, use_mask_token=True),
        "beit",
    ),
    "siglip": (hf.SiglipVisionModel, hf.SiglipVisionConfig(**PLAIN), ""),
}


def made(name: str, folder: Path) -> Any:
    cls, config, _ = MODELS[name]
    model = shaken(cls(config))
    if name == "mae":  # as in the weights that facebookresearch/mae gave away
        model.decoder.decoder_pos_embed.data.copy_(sincos(4, 64)[None])
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def features(name: str, model: Any) -> torch.Tensor:
    """All tokens after the final norm."""
    encoder = getattr(model, MODELS[name][2]) if MODELS[name][2] else model
    given = {"noise": torch.arange(16.0).expand(2, -1)} if name == "mae" else {}
    tokens = encoder(images(), **given).last_hidden_state
    last = {"clip": "post_layernorm", "beit of its pre-training": "layernorm"}.get(name)
    return getattr(model, last)(tokens) if last else tokens


@pytest.mark.parametrize("name", MODELS)
def test_timms_model_of_it_computes_the_same(name: str, tmp_path: Path) -> None:
    theirs = made(name, tmp_path)
    tower = tower_of(tmp_path / "config.json")
    encoder, _ = split_decoder(renamed_tensors(read_weights(tmp_path / "model.safetensors").tensors))
    model = filled(built(tower, "x", encoder), fused(encoder, tower), "x")
    with torch.no_grad():
        torch.testing.assert_close(model.forward_features(images()), features(name, theirs), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["vit", "classifier", "dinov2", "mae", "beit", "beit by one table"])
def test_it_becomes_a_checkpoint(name: str, tmp_path: Path) -> None:
    theirs = made(name, tmp_path)
    preprocessor = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: my-terms\n---\n# A model\n")
    for found in (from_folder(tmp_path), read_file(tmp_path / "model.safetensors")):  # its config.json lies beside it
        encoder = {name: value for name, value in found.state.items() if not name.startswith("decoder.")}
        with torch.no_grad():
            ours = build_vit(found.config, encoder).forward_features(images())
        torch.testing.assert_close(ours, features(name, theirs), rtol=0, atol=2e-5)
        assert (found.data.mean, found.data.std[0], found.data.interpolation) == ((0.1, 0.2, 0.3), 0.4, "bilinear")
        assert found.origin is not None and found.origin.licence == "my-terms"
        assert (found.mae is not None) == (name == "mae") == ("decoder.pred.weight" in found.state)


@pytest.mark.parametrize("norm_pix", [False, True])
def test_a_decoder_of_mae_has_the_loss_that_it_learned_by(norm_pix: bool, tmp_path: Path) -> None:
    theirs = made("mae", tmp_path)
    theirs.config.norm_pix_loss, theirs.config.mask_ratio = norm_pix, 0.75
    theirs.save_pretrained(tmp_path)
    found, noise = from_folder(tmp_path), torch.rand(2, 16, generator=torch.Generator().manual_seed(2))
    assert found.mae is not None
    with torch.no_grad():
        ours = reconstruct(found.state, images(), noise, found.config, found.mae, sincos(4, 64)).loss
        torch.testing.assert_close(ours, theirs(images(), noise=noise).loss, rtol=1e-4, atol=0)


def test_a_mean_that_no_file_says_is_stated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made("vit", tmp_path / "vit")
    convert(str(tmp_path / "vit"), tmp_path / "template", images=4, device="cpu")
    assert "vit: assumed ImageNet's mean and std; --mean and --std say them" in capsys.readouterr().err
    assert "mean and std" in (tmp_path / "template" / "README.md").read_text()
    statistics = {"image_mean": [0.5] * 3, "image_std": [1.0] * 3}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(statistics))
    assert from_folder(tmp_path / "vit").assumed == ()


@pytest.mark.parametrize(
    ("says", "mean", "std"), [({"image_mean": 0.5, "image_std": 0.25}, 0.5, 0.25), ({"do_normalize": False}, 0.0, 1.0)]
)
def test_a_preprocessor_of_one_number_or_of_none(says: dict[str, Any], mean: float, std: float, tmp_path: Path) -> None:
    """transformers takes a number for all channels, and ignores mean and std where it does not normalise."""
    made("vit", tmp_path)
    written = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]} | says
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    found = from_folder(tmp_path)
    assert (found.data.mean, found.data.std, found.assumed) == ((mean,) * 3, (std,) * 3, ())


def test_one_std_for_three_means(tmp_path: Path) -> None:
    made("vit", tmp_path)
    written = {"image_mean": [0.1, 0.2, 0.3], "image_std": 0.5}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    found = from_folder(tmp_path).data
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.5,) * 3)


@pytest.mark.parametrize("std", [[0.5, 0.0, 0.5], "half", ["a", "b", "c"]])
def test_a_preprocessor_that_says_no_std_is_named(std: object, tmp_path: Path) -> None:
    made("vit", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": std}))
    with pytest.raises(UserError, match=r"std .*: expected a number for each channel, of std above 0") as problem:
        from_folder(tmp_path)
    assert str(tmp_path) in str(problem.value)


def test_beits_limits_are_named(tmp_path: Path) -> None:
    made("beit", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"use_shared_relative_position_bias": True}, "use_shared_relative_position_bias beside a table"),
        ({"hidden_act": "relu"}, "hidden_act=relu"),
        ({"image_size": 32}, r"relative_position_bias_table: shape \(52, 2\), expected \(228, 2\)"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=message) as problem:
            from_folder(tmp_path)
        assert str(tmp_path) in str(problem.value)


@pytest.mark.parametrize("name", ["vit", "classifier"])
def test_shards_are_read(name: str, tmp_path: Path) -> None:
    """Also where all names of the encoder have a prefix, which only the shard of its first tensor shows."""
    made(name, tmp_path)
    whole = from_folder(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, tmp_path / file)
    places = {name: file for file, part in shards.items() for name in part}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    found = from_folder(tmp_path)
    assert all(torch.equal(found.state[name], whole.state[name]) for name in whole.state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "swin"}, "model_type=swin: expected one of vit, vit_mae, deit"),
        ({"hidden_act": "mish"}, "hidden_act=mish: expected one of gelu"),
        ({"num_hidden_layers": 3}, "blocks"),
        ({"hidden_size": None}, "timm cannot make its shape"),
        ({"num_attention_heads": 3}, "timm cannot make its shape"),
        ({"image_size": 32}, r"tensor pos_embed: shape \(1, 17, 32\), expected \(1, 65, 32\)"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    made("vit", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=message) as problem:
        from_folder(tmp_path)
    assert str(tmp_path) in str(problem.value)


def test_our_own_export_comes_back(tmp_path: Path, make_source: Any) -> None:
    make_source("vit", ordered=True).save_pretrained(tmp_path / "source")
    initialise_to(str(tmp_path / "source"), tmp_path / "model", depth=2, heads=2)
    export(tmp_path / "model", "transformers", tmp_path / "exported")
    found = from_folder(tmp_path / "exported")
    known = load_file(tmp_path / "model" / "model.safetensors")
    assert found.state.keys() == known.keys()
    assert all(torch.equal(found.state[name], known[name]) for name in known)


@pytest.mark.parametrize(
    ("kind", "activation", "patch"), [("clip", "quick_gelu", 32), ("siglip", "gelu_pytorch_tanh", 16)]
)
def test_a_vision_tower_that_says_little(kind: str, activation: str, patch: int, tmp_path: Path) -> None:
    """The hub's folders leave out what transformers takes by default."""
    config = {"model_type": kind, "vision_config": {"model_type": f"{kind}_vision_model", "hidden_size": 24}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tower = tower_of(tmp_path / "config.json")
    theirs = {"clip": hf.CLIPVisionConfig, "siglip": hf.SiglipVisionConfig}[kind](hidden_size=24)
    assert (tower.keys["hidden_act"], tower.keys["patch_size"]) == (activation, patch)
    for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size"):
        assert tower.keys[key] == getattr(theirs, key)
    assert (theirs.hidden_act, theirs.patch_size) == (activation, patch)


@pytest.mark.parametrize("name", ["preprocessor_config.json", "model.safetensors.index.json"])
def test_a_file_that_holds_a_list_is_no_traceback(name: str, tmp_path: Path) -> None:
    made("vit", tmp_path)
    (tmp_path / name).write_text("[]")
    if name.startswith("preprocessor"):
        assert from_folder(tmp_path).assumed
    else:
        with pytest.raises(UserError):
            from_folder(tmp_path)


def test_statistics_of_0_to_255_need_a_hint(tmp_path: Path) -> None:
    made("vit", tmp_path)
    says = {"image_mean": [123.7, 116.3, 103.5], "image_std": [58.4, 57.1, 57.4]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(says))
    with pytest.raises(UserError, match=r"its mean and std hold 123.7, expected 0 to 1; --mean and --std say them"):
        read(str(tmp_path))
    found, _ = read(str(tmp_path), Hints(mean=[0.5] * 3, std=[0.25] * 3))
    assert (found.data.mean, found.data.std) == ((0.5,) * 3, (0.25,) * 3)
