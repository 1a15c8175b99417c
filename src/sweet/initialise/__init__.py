"""Ways to initialise a ViT of a given size: one file for each method, and one line in ``registry.py``."""
