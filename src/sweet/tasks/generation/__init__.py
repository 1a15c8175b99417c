"""Image generation: a pixel diffusion transformer (JiT) and its FID."""
