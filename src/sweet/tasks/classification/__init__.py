"""Image classification: timm's own head on the ViT."""
