"""Causal language models: from a configuration to a model where it computes, and from rollouts to their signals.

policy.py and reference.py read models (loading.py) and place them (placement.py); scoring.py runs micro-batches.
"""
