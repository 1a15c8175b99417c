"""A Vision Transformer that somebody else trained becomes a source."""
