"""Causal language models: loading, passes, scoring, adapters, sharding, saving."""
