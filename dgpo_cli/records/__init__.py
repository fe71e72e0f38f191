"""Stored rollouts: writing them, reading them back, and their credit under other gatings."""
