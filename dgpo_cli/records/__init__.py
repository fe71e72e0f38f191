"""Stored rollouts: writing, checking and reading them, and their credit under other gatings. No model is needed."""
