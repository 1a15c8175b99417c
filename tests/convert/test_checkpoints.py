"""Files of others: MAE's as transformers computes it, exact folds, and refusals that name what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from sweet.convert.bare_file import read_file
from sweet.errors import UserError
from sweet.models.config import ViTConfig
from sweet.models.mae import MaskedAutoencoder, sincos, source_from_state
from sweet.models.vit import build_vit

from .random_models import images, shaken

WIDTH, DEPTH = 32, 2


def vit(**options: object) -> VisionTransformer:
    shape = {"img_size": 16, "patch_size": 4, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": 4, "num_classes": 5}
    return shaken(VisionTransformer(**shape | options), 0.05)


def mae() -> tuple[ViTMAEForPreTraining, dict[str, Tensor]]:
    """transformers' MAE, and its weights under the names of facebookresearch/mae."""
    config = ViTMAEConfig(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=4, intermediate_size=4 * WIDTH,
        layer_norm_eps=1e-6, image_size=16, patch_size=4, decoder_hidden_size=64, decoder_num_hidden_layers=1,
        decoder_num_attention_heads=16, decoder_intermediate_size=256, norm_pix_loss=True,
    )  # fmt: skip
    model = shaken(ViTMAEForPreTraining(config), 0.05)
    with torch.no_grad():  # facebookresearch/mae puts columns first, transformers rows
        model.decoder.decoder_pos_embed.copy_(sincos(4, 64)[None])
    names = {
        "vit.embeddings.cls_token": "cls_token",
        "vit.embeddings.position_embeddings": "pos_embed",
        "vit.embeddings.patch_embeddings.projection": "patch_embed.proj",
        "vit.layernorm": "norm",
        "vit.layers": "blocks",
        "decoder.mask_token": "mask_token",
        "decoder.decoder_layers": "decoder_blocks",
        "decoder.decoder_": "decoder_",
        "attention.o_proj": "attn.proj",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
    }
    theirs = {}
    for name, value in model.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        theirs[name] = value
    for name in [name for name in theirs if "q_proj" in name]:
        qkv = [theirs.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        theirs[name.replace("attention.q_proj", "attn.qkv")] = torch.cat(qkv)
    return model, theirs


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_mae_checkpoint_has_the_loss_that_transformers_computes(tmp_path: Path, suffix: str) -> None:
    theirs, state = mae()
    file = tmp_path / f"mae.{suffix}"
    if suffix == "pth":
        torch.save({"model": state, "epoch": 3}, file)
    else:
        save_file(state, file)
    found = read_file(file, heads=4)
    assert found.config == ViTConfig(DEPTH, 4, 8, 16, 4, family="vit")
    assert found.mae is not None
    assert (found.mae.decoder_width, found.mae.decoder_depth, found.mae.decoder_head_dim) == (64, 1, 4)
    ours = MaskedAutoencoder(source_from_state(found.state, found.config), found.config, found.mae)
    noise = torch.rand(2, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert ours(images(), noise).item() == pytest.approx(theirs(images(), noise=noise).loss.item(), rel=1e-5)


def test_a_decoder_of_learned_positions_is_left_out(tmp_path: Path) -> None:
    _, state = mae()
    state["decoder_pos_embed"] = state["decoder_pos_embed"] + 0.1
    torch.save(state, tmp_path / "mae.pth")
    found = read_file(tmp_path / "mae.pth", heads=4)
    assert found.mae is None
    assert not [name for name in found.state if name.startswith("decoder")]


@pytest.mark.parametrize(
    "change",
    [
        {"decoder_pred.bias": None},
        {"decoder_pred.weight": torch.zeros(40, 64), "decoder_pred.bias": torch.zeros(40)},
        {"decoder_norm.bias": None},
        {"decoder_blocks.0.attn.q_norm.weight": torch.ones(4)},
        {"decoder_pos_embed": torch.zeros(17, 64)},
    ],
)
def test_a_decoder_that_is_not_ours_is_left_out(tmp_path: Path, change: dict[str, Tensor | None]) -> None:
    _, state = mae()
    state = {name: value for name, value in (state | change).items() if value is not None}
    torch.save(state, tmp_path / "mae.pth")
    found = read_file(tmp_path / "mae.pth", heads=4)
    assert found.mae is None and not [name for name in found.state if name.startswith("decoder")]


@pytest.mark.parametrize("options", [{}, {"init_values": 0.1}, {"qkv_bias": False, "proj_bias": False}])
def test_what_is_exact_is_folded(tmp_path: Path, options: dict[str, object]) -> None:
    theirs = vit(**options)
    save_file(theirs.state_dict(), tmp_path / "vit.safetensors")
    found = read_file(tmp_path / "vit.safetensors", heads=4)
    with torch.no_grad():
        expected = theirs.forward_features(images())
        ours = build_vit(found.config, found.state).forward_features(images())
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "switch", "value"),
    [
        ({"qk_norm": True}, "qk_norm", True),
        ({"reg_tokens": 2}, "registers", 2),
        ({"pre_norm": True}, "pre_norm", True),
        ({"global_pool": "avg"}, "final_norm", "pooled"),
        ({"scale_attn_norm": True}, "attn_norm", True),
        ({"scale_mlp_norm": True}, "mlp_norm", True),
        ({"mlp_ratio": 2.0}, "mlp_ratio", 2.0),
        ({"final_norm": False}, "final_norm", "none"),
    ],
)
def test_what_a_file_shows_is_expressed(tmp_path: Path, options: dict[str, object], switch: str, value: object) -> None:
    save_file(vit(**options).state_dict(), tmp_path / "vit.safetensors")
    assert getattr(read_file(tmp_path / "vit.safetensors", heads=4).config, switch) == value


def test_positions_that_a_file_lacks_are_named(tmp_path: Path) -> None:
    save_file(vit(pos_embed="none").state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(UserError, match="no pos_embed") as problem:
        read_file(tmp_path / "vit.safetensors", heads=4)
    assert "vit.safetensors" in str(problem.value)


@pytest.mark.parametrize(("heads", "message"), [(None, "not a multiple of 64; say --heads"), (5, "--heads 5")])
def test_heads_must_be_given_where_nothing_says_them(tmp_path: Path, heads: int | None, message: str) -> None:
    save_file(vit().state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(UserError, match=message):
        read_file(tmp_path / "vit.safetensors", heads=heads)


def test_no_other_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no checkpoint")
    (tmp_path / "text.safetensors").write_text("no checkpoint")
    (tmp_path / "notes.txt").write_text("no checkpoint")
    torch.save([1, 2], tmp_path / "list.pth")
    save_file({"fc.weight": torch.zeros(2, 2), "cls_token": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name, message in {
        "text.pth": "not a file of plain tensors",
        "text.safetensors": "not a safetensors file",
        "notes.txt": "expected a .safetensors",
        "list.pth": "holds no state dict",
        "other.safetensors": "no Vision Transformer",
    }.items():
        with pytest.raises(UserError, match=message) as problem:
            read_file(tmp_path / name)
        assert name in str(problem.value)
