"""Typed configuration: a dataclass for each group of conf/, the four commands, and how they are composed and checked.

Importing the schemas needs the standard library alone, so that help is instant; `compose` brings in Hydra; nothing
here ever imports torch.
"""
