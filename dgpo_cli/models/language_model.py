"""Causal language models of transformers: their passes, with the body apart from the output head.

Two sizes make the head a matter of its own. Hidden states are [n, D], logits [n, V], and V is a hundred times D: so
scoring takes hidden states from here and forms logits in tiles. It leaves out loading (loading.py), saving (saving.py),
frozen copies (frozen.py), the place and dtype of a pass (placement.py decides), scoring (scoring.py), and the choice of
tokens (engines).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.core.output_head import is_low, widened
from dgpo_cli.core.token_stats import Head
from dgpo_cli.errors import RunError
from dgpo_cli.models.gathered_head import gathered
from dgpo_cli.models.lora import AdapterView, all_parameters
from dgpo_cli.models.output_layer import float32_logits, head_of, logits_of
from dgpo_cli.models.packed_attention import packed_inputs
from dgpo_cli.models.sequence_parallel import ALONE, Team
from dgpo_cli.models.sharding import ShardSettings, kept_whole

NextLogits = Callable[..., tuple[Tensor, Any]]  # inputs of a transformers model -> logits [b, V] and its cache


@dataclass
class LanguageModel:
    """A causal LM with its tokenizer. If not `has_head`, its head cannot be told apart from its body."""

    model: Any  # transformers.PreTrainedModel
    tokenizer: Any  # transformers.PreTrainedTokenizerFast
    path: str
    has_head: bool
    adapter: AdapterView | None = None  # LoRA: whose weights its passes add to the model's own; None without any
    compute_dtype: torch.dtype | None = None  # of forward and backward; None is that of the weights
    quantization: str = "none"  # of the frozen linear layers of the body: none | nf4 | int8
    shards: ShardSettings | None = None  # how its weights are spread over the processes; None: they are whole
    packs: bool = False  # its attention takes sequences that lie one after another in a row
    team: Team = ALONE  # the processes that hold parts of its packed rows
    low_head: Tensor | None = None  # of a tied head that is frozen: its weight in compute_dtype
    full_weights: dict[str, Tensor] = field(default_factory=dict)  # of a renewed reference: what was cast, in float32
    _keeps_head: bool = field(default=False, init=False)  # within `keeping_head`
    _kept_head: Tensor | None = field(default=None, init=False)

    @property
    def device(self) -> torch.device:
        """Where it computes; sharded weights may rest elsewhere."""
        if self.shards is not None:
            return self.shards.device
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def apart(self) -> bool:
        """Whether no process waits for another within a pass. Shards are gathered layer by layer, by all at once."""
        return self.shards is None and self.team.size == 1

    @property
    def vocabulary_size(self) -> int:
        """V, the rows of the output head: some models pad it beyond the tokenizer's vocabulary."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def max_context(self) -> int | None:
        """Longest prompt and completion together; None if the model's configuration names no limit."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit else None

    @property
    def pad_id(self) -> int:
        """An id to fill with: masks come from lengths, so any id serves that the embedding has."""
        pad = self.tokenizer.pad_token_id
        fill = int(pad if pad is not None else (self.tokenizer.eos_token_id or 0))
        return fill if fill < self.embedded_ids else 0

    @property
    def embedded_ids(self) -> int:
        """Rows of the input embedding: an id beyond them cannot be fed."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    def hidden_states(self, input_ids: Tensor, packed: list[int] | None = None) -> Tensor:
        """The body's last hidden states [b, L, D] of right-padded sequences [b, L].

        packed: sizes of sequences that lie one after another in [1, S]; each is read as if it stood alone. In a team
        the ids are this process's part of them.
        """
        inputs = {} if packed is None else packed_inputs(packed, input_ids.device, self.team)
        with self._adapted(), self._computing():
            output = self.model.base_model(input_ids=input_ids, use_cache=False, **inputs)
        hidden: Tensor = output.last_hidden_state
        return hidden if self.compute_dtype is None else hidden.to(self.compute_dtype)

    def continued_states(
        self, input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor, cache: Any
    ) -> Tensor:
        """The body's last hidden states [b, L, D] of tokens that follow those in `cache`, which takes these up too."""
        with self._adapted(), self._computing():
            output = self.model.base_model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
            )
        hidden: Tensor = output.last_hidden_state
        return hidden if self.compute_dtype is None else hidden.to(self.compute_dtype)

    def logits(self, input_ids: Tensor, packed: list[int] | None = None) -> Tensor:
        """Logits [b, L, V] in float32: the fall-back for a model without `has_head`. packed: as of `hidden_states`."""
        inputs = {} if packed is None else packed_inputs(packed, input_ids.device, self.team)
        with self._adapted(), self._computing(), self._float32_logits():
            output = self.model(input_ids=input_ids, use_cache=False, **inputs)
        logits: Tensor = output.logits
        return logits

    @contextmanager
    def sampling(self) -> Iterator[NextLogits]:
        """Within, a function that gives the logits of the next token [b, V], in float32 and without gradient.

        All processes that share the weights have to come in together; how they go on is up to `samples_apart`.
        Weights are cast, and the head is gathered, once for all tokens. The last product, of hidden states and head, is
        the one of scoring: else the policy would not be what its rollouts were drawn from.
        """
        with torch.no_grad(), self._computing():
            if self.shards is None:
                with self._float32_logits():
                    yield self._next_logits
            else:
                head = self.head()
                head = replace(head, weight=widened(head.weight))
                next_logits = partial(self._next_logits_of_shards, head)
                with kept_whole(self.model) if self.shards.keep_whole else nullcontext():
                    if self.shards.keep_whole:
                        one_token_pass(next_logits, self.device)  # gathers the weights
                    yield next_logits

    @property
    def samples_apart(self) -> bool:
        """Whether passes of `sampling` ask nothing of other processes. Else all have to make equally many of them."""
        return self.shards is None or self.shards.keep_whole

    def head(self) -> Head:
        """The output head, which turns hidden states into logits. A sharded weight is gathered."""
        head = head_of(self.model)
        if self.shards is not None:
            bias = None if head.bias is None else gathered(head.bias, self.device, head.bias.dtype)
            head = replace(head, weight=self._gathered(head.weight), bias=bias)
        if self.compute_dtype is not None:
            head = replace(head, weight=self._in_compute_dtype(head.weight))
        return head

    @contextmanager
    def keeping_head(self) -> Iterator[None]:
        """For a pass over several micro-batches, in which no weight moves: its head is gathered once.

        That is for shards that rest on the CPU, which come to the device for it; the others are quicker to gather than
        worth their memory. It takes V x D numbers of the pass's dtype in between, too (planning/memory.py has them).
        """
        if self.shards is None or not self.shards.rest_on_cpu:
            yield
            return
        self._keeps_head = True
        try:
            yield
        finally:
            self._keeps_head, self._kept_head = False, None

    def _gathered(self, weight: Tensor) -> Tensor:
        """The whole of the sharded head's weight, in the dtype of a pass."""
        dtype = self.compute_dtype or weight.dtype
        whole = gathered(weight, self.device, dtype, self._kept_head)
        if self._keeps_head:
            self._kept_head = whole.detach()
        return whole

    def on(self, device: str) -> LanguageModel:
        """The same model, all of its weights on a device."""
        if self.quantization == "none":  # else it was read onto the device
            self.model.to(device)
        kept = {name: weight.to(device) for name, weight in self.full_weights.items()}
        head = None if self.low_head is None else self.low_head.to(device)
        return replace(self, low_head=head, full_weights=kept)

    @property
    def weights_dtype(self) -> torch.dtype:
        """The dtype in which weights were loaded and are saved. Frozen ones may be held in another (`cast_once`)."""
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype

    @property
    def computes_in(self) -> str:
        """Name of the dtype of forward and backward."""
        return str(self.compute_dtype or self.weights_dtype).removeprefix("torch.")

    def frozen_weights(self) -> list[Tensor]:
        """The model's own weights under an adapter."""
        added = {id(parameter) for parameter in all_parameters(self.model)}
        return [parameter for parameter in self.model.parameters() if id(parameter) not in added]

    def _adapted(self) -> AbstractContextManager[None]:
        return nullcontext() if self.adapter is None else self.adapter.on()

    def _computing(self) -> AbstractContextManager[Any]:
        """float32 weights compute in bfloat16 within; sharded ones are gathered in it anyway."""
        if self.compute_dtype is None or self.shards is not None:
            return nullcontext()
        return torch.autocast(self.device.type, self.compute_dtype)

    def _in_compute_dtype(self, weight: Tensor) -> Tensor:
        """The weight of the head in the dtype of a pass."""
        if self.low_head is not None:
            return self.low_head
        return weight if self.compute_dtype is None else weight.to(self.compute_dtype)

    def _float32_logits(self) -> AbstractContextManager[None]:
        """Within, logits of the whole model are float32, if they would be rounded to less."""
        layer = self.model.get_output_embeddings()
        dtype = self.compute_dtype or (None if layer is None else layer.weight.dtype)
        if layer is None or dtype is None or not is_low(dtype):
            return nullcontext()
        return float32_logits(layer, self._in_compute_dtype(layer.weight))

    def _next_logits(self, **inputs: Any) -> tuple[Tensor, Any]:
        with self._adapted():
            output = self.model(use_cache=True, logits_to_keep=1, **inputs)
        return output.logits[:, -1], _cache_of(output)

    def _next_logits_of_shards(self, head: Head, **inputs: Any) -> tuple[Tensor, Any]:
        with self._adapted():
            output = self.model.base_model(use_cache=True, **inputs)
        return logits_of(head, output.last_hidden_state[:, -1]), _cache_of(output)


def one_token_pass(next_logits: NextLogits, device: torch.device) -> None:
    """A pass for the sake of what the other processes do in theirs."""
    token = torch.zeros((1, 1), dtype=torch.long, device=device)
    next_logits(input_ids=token, attention_mask=None, position_ids=token, past_key_values=None)


def _cache_of(output: Any) -> Any:
    """Keys and values of the tokens that were fed so far: without them only the last one would decide the next."""
    cache = getattr(output, "past_key_values", None)
    if cache is None:
        raise RunError("the model returns no past_key_values, and nothing can be drawn without", "another model.path")
    return cache
