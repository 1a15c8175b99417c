"""Folders on disk: the typed record of ``config.json``, tensors, checksums, model cards, the hub."""
