"""What a model is fine-tuned for: a folder for each task with its head, loss, metrics and pictures."""
