"""avg@k, pass@k and maj@k of a model on a benchmark."""
