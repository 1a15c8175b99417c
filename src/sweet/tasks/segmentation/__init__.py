"""Semantic segmentation: UPerNet on four blocks of the ViT."""
