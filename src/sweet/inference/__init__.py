"""Use a finished model: evaluate, predict, embed, generate, reconstruct."""
