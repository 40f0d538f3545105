"""What training.heads learns: examples and batches of each task, and its metrics."""
