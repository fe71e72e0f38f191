"""The loop and what it stands on: run folder, checkpoints, optimizer, metrics."""
