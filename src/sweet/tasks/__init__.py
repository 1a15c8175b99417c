"""What a model is fine-tuned for. Each task has its data form, head, loss, metrics and pictures in one place."""
