"""A run's folder: its settings, checkpoints, and the limits of the machine."""
