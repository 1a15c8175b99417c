"""Images per second of our dense MAE loop against the same encoder trained by a plain timm loop, side by side.

    python benchmarks/mae_loop.py [--threads 1] [--rounds 7] [--json FILE]

The peer is what a timm user would write: timm's ``Eva`` modules on the kept patches (token drop and rotary gather as in
timm's own ``_pos_embed``), a decoder of timm blocks, AdamW, autocast. Same sizes, same batch, same precision; the two
take turns step by step, so that a drifting machine slows both. The ratio is the median over rounds.
"""

from __future__ import annotations

import statistics
import time
from functools import partial

import torch
from measure import in_turns, options, ratio, report
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from sweet.data import Batches, Packed
from sweet.models.config import MaeConfig, ViTConfig
from sweet.models.forward import patchify
from sweet.models.mae import MaskedAutoencoder, init_source, patch_targets, sincos, split_patches
from sweet.models.vit import materialised
from sweet.training.device import keep_memory, resolve_precision

CONFIG = ViTConfig(depth=12, heads=12, head_dim=16, img_size=32, patch_size=4)
MAE = MaeConfig()


class TimmMae(nn.Module):
    """A masked autoencoder of timm modules."""

    def __init__(self) -> None:
        super().__init__()
        width, pixels = MAE.decoder_width, 3 * CONFIG.patch_size**2
        self.encoder = materialised(CONFIG)
        self.embed = nn.Linear(CONFIG.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        heads = width // MAE.decoder_head_dim
        self.blocks = nn.Sequential(*[Block(width, heads, qkv_bias=True) for _ in range(MAE.decoder_depth)])
        self.norm = nn.LayerNorm(width)
        self.pred = nn.Linear(width, pixels)
        self.register_buffer("positions", sincos(CONFIG.grid, width))

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        keep, masked = split_patches(noise, MAE.mask_ratio)
        encoder = self.encoder
        tokens = encoder.patch_embed(images)
        tokens = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[-1]))
        x = torch.cat([encoder.cls_token.expand(len(tokens), -1, -1), tokens], 1)
        rope = encoder.rope.get_embed()
        rope = rope.expand(len(tokens), -1, -1).gather(1, keep[..., None].expand(-1, -1, rope.shape[-1]))
        for block in encoder.blocks:
            x = block(x, rope=rope.unsqueeze(1))
        x = self.embed(encoder.norm(x))
        full = self.mask_token.to(x.dtype).expand(len(x), CONFIG.patches, -1)
        full = full.scatter(1, keep[..., None].expand(-1, -1, x.shape[-1]), x[:, 1:])
        x = self.norm(self.blocks(torch.cat([x[:, :1], full], 1) + self.positions))
        prediction = self.pred(x[:, 1:])
        targets = patch_targets(patchify(images, CONFIG.patch_size), MAE.norm_pix)
        loss = (prediction.float() - targets).square().mean(-1)
        mask = torch.zeros_like(loss).scatter(1, masked, 1.0)
        return (loss * mask).sum() / mask.sum()


def main() -> None:
    parser = options(__doc__, rounds=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=128)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_memory()  # both gain from it
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = resolve_precision("auto", device)
    generator = torch.Generator().manual_seed(0)
    source = init_source(CONFIG, MAE, constraint="none", ranks=(), generator=generator)
    models: dict[str, nn.Module] = {"sweet": MaskedAutoencoder(source, CONFIG, MAE), "timm": TimmMae()}
    images = torch.randint(0, 256, (4 * args.batch, 3, 32, 32), dtype=torch.uint8, generator=generator)
    batches = Batches(Packed(images, None, None), batch_size=args.batch, seed=0, img_size=32, device=device)
    optimizers = {}
    for name, model in models.items():
        model.to(device).train()
        optimizers[name] = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step(name: str, number: int) -> float:
        began = time.perf_counter()
        pixels, _ = batches.at(number)
        noise = torch.rand(len(pixels), CONFIG.patches, generator=generator).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = models[name](pixels, noise)
        loss.backward()
        nn.utils.clip_grad_norm_(models[name].parameters(), 1.0)
        optimizers[name].step()
        optimizers[name].zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    times = in_turns({name: partial(step, name) for name in models}, args.rounds)
    result = {
        "benchmark": "dense MAE step, sweet against a plain timm loop",
        "ratio_img_per_s": ratio(times["timm"], times["sweet"]),
        "sweet_img_per_s": round(args.batch / statistics.median(times["sweet"]), 1),
        "timm_img_per_s": round(args.batch / statistics.median(times["timm"]), 1),
        "rounds": args.rounds,
        "batch": args.batch,
        "precision": precision,
    }
    report(result, args.json)


if __name__ == "__main__":
    main()
