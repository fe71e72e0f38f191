"""The layers of a model's body: found, and adapted to be compiled or computed a second time for their gradient.

The checkpointing of transformers is not used: it works in train() alone, and a model here never leaves eval().
"""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from dgpo_cli.progress import PULSE

COMPILE_SECONDS = 600.0  # of one compilation, before it is taken for a hang


def layers_of(body: Any) -> list[Any]:
    """The repeated layers of a transformer: the longest list of modules in its body."""
    lists = [module for module in body.modules() if isinstance(module, torch.nn.ModuleList)]
    return list(max(lists, key=len, default=[]))


def adapt_layers(model: Any, *, checkpointing: bool, compiled: bool) -> None:
    """Compile the forward pass of each layer of the body, and compute it a second time instead of keeping it.

    Only the forward itself is replaced: the hooks of sharding around a layer stay as they are, and so do all names.
    """
    if not checkpointing and not compiled:
        return
    if compiled:
        _give_compilers_time()
    for layer in layers_of(model.base_model):
        layer.forward = AdaptedForward(layer.forward, checkpointing=checkpointing, compiled=compiled)


def has_adapted_layers(model: Any) -> bool:
    """Whether `adapt_layers` replaced the forward pass of the layers."""
    return any(isinstance(vars(layer).get("forward"), AdaptedForward) for layer in layers_of(model.base_model))


class AdaptedForward:
    """A layer's forward pass, compiled or computed a second time for its gradient.

    A deep copy of the layer is adapted anew: a compiled forward stays bound to the weights of the first one.
    """

    def __init__(self, forward: Callable[..., Any], *, checkpointing: bool, compiled: bool) -> None:
        self._forward = forward
        self._checkpointing = checkpointing
        self._compiled = torch.compile(forward, dynamic=True) if compiled else None

    def __deepcopy__(self, memo: dict[int, Any]) -> AdaptedForward:
        forward = copy.deepcopy(self._forward, memo)
        return AdaptedForward(forward, checkpointing=self._checkpointing, compiled=self._compiled is not None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Sampling stays as it is: its cache has another shape with every token.
        samples = kwargs.get("past_key_values") is not None
        forward = self._forward if self._compiled is None or samples else self._compiled
        if self._checkpointing and torch.is_grad_enabled():
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        return forward(*args, **kwargs)


@functools.cache
def _give_compilers_time() -> None:
    """Let no watchdog take a compilation for a hang: torch compiles whenever a shape is new to it."""
    from torch._dynamo.callback import callback_handler

    before = [-math.inf]  # the wait that it was in

    def starts(_: object) -> None:
        before.append(PULSE.until)
        PULSE.until = max(PULSE.until, time.monotonic() + COMPILE_SECONDS)

    def ends(_: object) -> None:
        PULSE.until = before.pop() if len(before) > 1 else -math.inf
        PULSE.beats += 1

    callback_handler.register_start_callback(starts)
    callback_handler.register_end_callback(ends)
