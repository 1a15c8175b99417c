"""Object detection: Mask R-CNN on a simple feature pyramid (ViTDet)."""
