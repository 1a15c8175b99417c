"""Several classes an image, or none."""
