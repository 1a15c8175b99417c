"""A Vision Transformer that somebody else trained becomes a source (methods 12.5, 16)."""
