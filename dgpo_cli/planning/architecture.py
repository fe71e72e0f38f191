"""The shape of a decoder-only transformer: how many parameters it has, and what a token leaves behind in it.

Owns the record `Architecture`, filled from a model option (conf/model) or from a config.json, and the counts that
follow from it. Shapes are those of Llama, Qwen2 and Qwen3: RMS norms, rotary positions, grouped-query attention, a
gated MLP. `memory` turns these counts into bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgpo_cli.config.model_groups import ArchitectureConfig

# config.json's model_type of architectures that are counted exactly.
EXACT_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
FLOAT, BFLOAT = 4, 2  # bytes of float32 and bfloat16
QKV_BIAS, QK_NORM = ("qwen2",), ("qwen3",)


@dataclass(frozen=True)
class Adapters:
    """LoRA's matrices of a rank, on the linear maps named or on all. Rank 0: none, the model itself is trained."""

    rank: int = 0
    targets: tuple[str, ...] | None = None

    def reach(self, projection: str) -> bool:
        return self.targets is None or projection in self.targets


@dataclass(frozen=True)
class Architecture:
    """Sizes of a model, named as in conf/model. `family` is None if they stand for another architecture roughly."""

    hidden_size: int  # D
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_rows: int  # V, rows of the output head
    tied_embeddings: bool
    max_positions: int | None
    qkv_bias: bool = False
    qk_norm: bool = False
    output_bias: bool = False  # Llama's attention_bias adds one to the attention's output as well
    family: str | None = "llama"

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of a layer's linear maps."""
        hidden, inner = self.hidden_size, self.intermediate_size
        return {
            "q_proj": (hidden, self.query_width),
            "k_proj": (hidden, self.kv_width),
            "v_proj": (hidden, self.kv_width),
            "o_proj": (self.query_width, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @property
    def layer_parameters(self) -> int:
        matrices = sum(inputs * outputs for inputs, outputs in self.projections.values())
        biases = self.qkv_bias * (self.query_width + 2 * self.kv_width) + self.output_bias * self.hidden_size
        return matrices + biases + 2 * self.hidden_size + self.qk_norm * 2 * self.head_dim

    @property
    def embedding_parameters(self) -> int:
        """One [V, D] matrix: the input embedding, and the head of its own if they are not tied."""
        return self.vocab_rows * self.hidden_size

    @property
    def parameters(self) -> int:
        matrices = 1 if self.tied_embeddings else 2
        return self.layers * self.layer_parameters + matrices * self.embedding_parameters + self.hidden_size

    @property
    def body_parameters(self) -> int:
        """Without embedding and head: what a token is multiplied by, the head aside."""
        return self.layers * self.layer_parameters + self.hidden_size

    def adapter_tensors(self, adapters: Adapters) -> list[tuple[int, int]]:
        """(elements, how many of them) of LoRA's matrices A [r, in] and B [out, r]."""
        sides = [side for name, sides in self.projections.items() if adapters.reach(name) for side in sides]
        return [(adapters.rank * side, self.layers) for side in sides]

    def adapter_parameters(self, adapters: Adapters) -> int:
        return sum(elements * count for elements, count in self.adapter_tensors(adapters))

    def tensors(self) -> list[tuple[int, int]]:
        """(elements, how many of them) of the parameters, for what is kept a tensor at a time."""
        maps = [(inputs * outputs, self.layers) for inputs, outputs in self.projections.values()]
        vectors = [(self.hidden_size, 2 * self.layers + 1)]
        if self.qkv_bias:
            vectors += [(self.query_width, self.layers), (self.kv_width, 2 * self.layers)]
        if self.qk_norm:
            vectors.append((self.head_dim, 2 * self.layers))
        if self.output_bias:
            vectors.append((self.hidden_size, self.layers))
        return [(self.embedding_parameters, 1 if self.tied_embeddings else 2), *maps, *vectors]

    def cache_bytes(self, element_bytes: int) -> int:
        """Keys and values that generation keeps of one token."""
        return 2 * self.layers * self.kv_width * element_bytes

    def norm_bytes(self, element_bytes: int) -> int:
        """What a norm saves of one token: its input in float32, the normalised values and its output as in the pass."""
        return self.hidden_size * (FLOAT + 2 * element_bytes) + FLOAT

    def saved_bytes(self, element_bytes: int) -> int:
        """What a layer saves of one token for its backward, with fused attention and no checkpointing.

        Attention saves queries, keys, values, its output and a normaliser a head. The gated MLP saves four tensors of
        its inner width.
        """
        norms, heads = 2 * self.norm_bytes(element_bytes), 0
        if self.qk_norm:
            heads = (FLOAT + element_bytes) * (self.query_width + self.kv_width) + FLOAT * (self.heads + self.kv_heads)
        inner = element_bytes * 4 * self.intermediate_size
        return norms + heads + self._attention_bytes(element_bytes) + inner

    def saved_bytes_under_autocast(self) -> int:
        """`saved_bytes` of float32 weights that compute in bfloat16: the residual stream and its norms stay in float32.

        Each of the five maps that read a norm's output casts it for itself.
        """
        norms = 2 * FLOAT * (2 * self.hidden_size + 1)
        heads = 0
        if self.qk_norm:
            heads = (FLOAT + BFLOAT) * (self.query_width + self.kv_width) + FLOAT * (self.heads + self.kv_heads)
        casts = 5 * BFLOAT * self.hidden_size
        return norms + heads + casts + self._attention_bytes(BFLOAT) + BFLOAT * 4 * self.intermediate_size

    def saved_bytes_of_adapters(self, element_bytes: int, adapters: Adapters) -> int:
        """`saved_bytes` under LoRA: frozen norms save their input alone, and adapters theirs in float32.

        Each adapter of a low-precision layer casts the layer's input for itself.
        """
        hidden, queries, inner = self.hidden_size, self.query_width, self.intermediate_size
        norms = 2 * FLOAT * (hidden + 1)
        heads = FLOAT * (queries + self.kv_width + self.heads + self.kv_heads) if self.qk_norm else 0
        cast = FLOAT * (5 * hidden + queries) if element_bytes != FLOAT else FLOAT * 2 * hidden
        mlp = (3 * element_bytes + FLOAT) * inner
        adapted = FLOAT * adapters.rank * sum(adapters.reach(name) for name in self.projections)
        return norms + heads + cast + self._attention_bytes(element_bytes) + mlp + adapted

    def _attention_bytes(self, element_bytes: int) -> int:
        return element_bytes * (2 * self.query_width + 2 * self.kv_width) + FLOAT * self.heads


def from_config(settings: ArchitectureConfig) -> Architecture | None:
    """The architecture that a model option states, or None if it states none."""
    if settings.hidden_size is None:
        return None
    values = {name: getattr(settings, name) for name in ArchitectureConfig.__dataclass_fields__}
    missing = [name for name in REQUIRED if values[name] is None]
    if missing:
        raise ValueError(f"model.architecture lacks {', '.join(missing)}")
    return Architecture(**values)


REQUIRED = ("layers", "heads", "kv_heads", "head_dim", "intermediate_size", "vocab_rows")


def from_json(file: Path) -> Architecture:
    """The architecture of a config.json in transformers' format.

    Raises:
        ValueError: it lacks a size that the plan needs.
        OSError: it cannot be read.
    """
    try:
        return from_content(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def from_content(content: dict[str, Any]) -> Architecture:
    """The architecture of what a config.json holds; ValueError as in `from_json`."""
    content = content.get("text_config") or content
    family = content.get("model_type", "")
    try:
        hidden, heads = content["hidden_size"], content["num_attention_heads"]
        return Architecture(
            hidden_size=hidden,
            layers=content["num_hidden_layers"],
            heads=heads,
            kv_heads=content.get("num_key_value_heads") or heads,
            head_dim=content.get("head_dim") or hidden // heads,
            intermediate_size=content["intermediate_size"],
            vocab_rows=content["vocab_size"],
            tied_embeddings=content.get("tie_word_embeddings", False),
            max_positions=content.get("max_position_embeddings"),
            qkv_bias=family in QKV_BIAS or content.get("attention_bias", False),
            qk_norm=family in QK_NORM,
            output_bias=family not in QKV_BIAS and content.get("attention_bias", False),
            family=family if family in EXACT_FAMILIES else None,
        )
    except KeyError as error:
        raise ValueError(f"it has no {error.args[0]}") from None
