"""dgpo: reinforcement learning for language models that says which token earned the reward."""

__version__ = "0.1.0"
