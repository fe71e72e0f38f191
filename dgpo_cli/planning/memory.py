"""Bytes that one process holds at its peak, by part and by phase of a step.

    weights      stored weights, and under sharding the layers gathered for a pass
    gradients    one float32 value a trained weight, and the [V, D] gradient that is added to one that stands already
    optimizer    two moments a trained weight, in float32 or 8 bits, and what an update takes for a moment
    reference    the frozen reference's weights
    activations  what a forward saves for its backward, and the widest moment of a layer
    scoring      hidden states of the counted tokens, and the tiles that their log-probs are streamed through
    cache        keys and values of generation, and the distributions that are sampled from
    engine       a colocated server of engine=vllm on the same GPU: its share while it draws, a rest while it sleeps

float32 weights, gradients and two moments are the 16 bytes a parameter of mixed precision. Phases follow one another,
so their parts are never added up across phases. Nothing here knows a configuration: `phases` reads that.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from dgpo_cli.core.tile_sizes import TILE_IDS, TILE_TOKENS
from dgpo_cli.planning.architecture import FLOAT, Adapters, Architecture
from dgpo_cli.planning.pieces import GRADIENTS_AT_ONCE, NOISE_ROLLOUTS, WATCHED_WEIGHTS, moment_bytes

NO_ADAPTERS = Adapters()
FORWARD_TILES, BACKWARD_TILES = 4, 2  # buffers of a tile's size in a pass (core/running_stats.py, streamed_logprob.py)
SAMPLER_BYTES = 24  # of a logit that is sampled from: float32 logits and probabilities, and these in order for top_p
TOKEN_BYTES = 16  # of a token to be drawn: its uniform and its log-prob, float64


@dataclass(frozen=True)
class Memory:
    """Bytes by part."""

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    reference: int = 0
    activations: int = 0
    scoring: int = 0
    cache: int = 0
    engine: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, part) for part in PARTS)


PARTS = tuple(field.name for field in fields(Memory))


@dataclass(frozen=True)
class Setting:
    """How a process holds and computes its share of a model."""

    device: str = "cpu"  # cpu | cuda
    sharded: bool = False  # layers are gathered for a pass, from `shards` processes
    shards: int = 1
    copies: int = 1  # processes that hold the whole model each, and sum their gradients
    offloaded: bool = False  # sharded, and weights, gradients and moments rest in CPU memory
    weight_bytes: int = FLOAT  # of a stored weight; adapters are float32 in any case
    compute_bytes: int = FLOAT  # of a weight or activation in a pass
    checkpointing: bool = False
    adapters: Adapters = NO_ADAPTERS
    trains: bool = True  # the model's own weights, or adapters on them
    reference: str = "none"  # none | copy | shared (the policy with its adapters off)
    reference_renewed: bool = False  # so that its float32 weights are kept
    reference_offloaded: bool = False
    generates_gathered: bool = True  # sharded weights are held whole while completions are sampled
    quantization: str = "none"  # of the layers' matrices: none | nf4 | int8
    states: str = "float32"  # of the optimizer: float32 | 8bit
    saves_beside: bool = False  # checkpoints are written from a copy

    @property
    def autocast(self) -> bool:
        """Whole float32 weights that compute in bfloat16."""
        return self.compute_bytes < self.weight_bytes and not self.sharded

    @property
    def casts_for_good(self) -> bool:
        """Whole float32 weights that compute in bfloat16 and are frozen: their matrices are held in it."""
        return self.autocast and (self.adapters.rank > 0 or not self.trains)


@dataclass(frozen=True)
class Batch:
    """The largest micro-batch: `rows` sequences of `width` tokens, of which `counted` are completion.

    A `team` of processes holds a part of it each.
    """

    rows: int
    width: int
    counted: int  # of each row
    micro_batches: int = 1  # of an update
    team: int = 1

    @property
    def tokens(self) -> int:
        """Of a process."""
        return -(-self.rows * self.width // self.team)

    @property
    def scored(self) -> int:
        """Counted tokens of a process: its part of a long sequence may hold nothing else."""
        return min(self.rows * self.counted, self.tokens)


@dataclass(frozen=True)
class Generation:
    """Completions drawn together by a process."""

    rows: int
    width: int  # prompt and longest completion
    prompt: int


def trained_parameters(model: Architecture, setting: Setting) -> int:
    return model.adapter_parameters(setting.adapters) if setting.adapters.rank else model.parameters


def training_phases(
    model: Architecture, setting: Setting, batch: Batch, generation: Generation, *, scores_first: bool
) -> dict[str, Memory]:
    """Phases of a step in the steady state of a run; scoring is one if it is a pass of its own."""
    held = standing(model, setting)
    with_reference = replace(held, reference=held.reference + reference_at_work(model, setting))
    phases = {"rollout": sampling_phase(model, setting, generation)}
    if scores_first:
        phases["score"] = replace(with_reference, **scoring_pass(model, setting, batch))
    phases["forward"] = forward(model, setting, batch)
    if not scores_first:  # the reference is scored in the same pass
        phases["forward"] = replace(phases["forward"], reference=with_reference.reference)
    # A head that rests on the CPU stays for the whole pass (LanguageModel.keeping_head); the policy's stands anyway.
    kept = 0 if scores_first else reference_head_kept(model, setting)
    for name, of in (("backward", backward), ("accumulation", accumulation)):
        phase = of(model, setting, batch)
        phases[name] = replace(phase, reference=phase.reference + kept)
    phases["optimizer"] = optimizer_step(model, setting)
    return phases


def sampling_phase(model: Architecture, setting: Setting, generation: Generation) -> Memory:
    """Completions drawn in a run that trains: moments and reference stand beside the weights that sample."""
    weights = stored_weights(model, setting) + generating_weights(model, setting)
    return replace(standing(model, setting), weights=weights, **generating(model, setting, generation))


def standing(model: Architecture, setting: Setting) -> Memory:
    """What stands through all phases: weights as they are gathered for a pass, moments, reference."""
    copied = saved_copy(model, setting) if setting.device == "cpu" else 0
    return Memory(
        weights=stored_weights(model, setting) + gathered_weights(model, setting),
        optimizer=copied + (0 if setting.offloaded else _shard(moments(model, setting), setting)),
        reference=reference_weights(model, setting),
    )


def saved_copy(model: Architecture, setting: Setting) -> int:
    """CPU memory that a checkpoint is written from beside training: moments, and weights but for an adapter's."""
    weights = 0 if setting.adapters.rank else setting.weight_bytes * model.parameters
    return _shard(weights + moments(model, setting), setting) if setting.saves_beside else 0


def moments(model: Architecture, setting: Setting) -> int:
    """AdamW's two of all trained weights."""
    return sum(count * moment_bytes(elements, setting.states) for elements, count in _trained_tensors(model, setting))


def _trained_tensors(model: Architecture, setting: Setting) -> list[tuple[int, int]]:
    return model.adapter_tensors(setting.adapters) if setting.adapters.rank else model.tensors()


def stored_weights(model: Architecture, setting: Setting) -> int:
    if setting.offloaded:
        return 0
    adapters = FLOAT * model.adapter_parameters(setting.adapters)
    own = _frozen_bytes(model, setting) if setting.casts_for_good else setting.weight_bytes * model.parameters
    if setting.quantization != "none":
        element = setting.compute_bytes if setting.casts_for_good else setting.weight_bytes
        own += _quantized_bytes(model, setting.quantization) - element * _quantized_weights(model)
    return _shard(own + adapters, setting)


def _frozen_bytes(model: Architecture, setting: Setting) -> int:
    """Frozen weights cast once: matrices and head as they compute, embedding and norms as they are stored.

    A tied head is there twice.
    """
    untied = 0 if model.tied_embeddings else model.embedding_parameters
    as_stored = model.parameters - _layer_matrices(model) - untied
    return setting.weight_bytes * as_stored + setting.compute_bytes * (
        _layer_matrices(model) + model.embedding_parameters
    )


def _quantized_weights(model: Architecture) -> int:
    return model.layers * sum(inputs * outputs for inputs, outputs in model.projections.values())


def _quantized_bytes(model: Architecture, quantization: str) -> int:
    """Codes and scales. nf4: a byte for the scale of 64 weights, and 4 for 256 of these. int8: 4 bytes a row."""
    weights = _quantized_weights(model)
    if quantization == "nf4":
        return weights // 2 + weights // 64 + FLOAT * weights // (64 * 256)
    return weights + FLOAT * model.layers * sum(outputs for _, outputs in model.projections.values())


def _layer_matrices(model: Architecture) -> int:
    """Weights of the layers' linear maps, and their biases."""
    biases = model.qkv_bias * (model.query_width + 2 * model.kv_width) + model.output_bias * model.hidden_size
    return model.layers * (biases + sum(inputs * outputs for inputs, outputs in model.projections.values()))


def gathered_weights(model: Architecture, setting: Setting) -> int:
    """Weights in the dtype of a pass, beside those that are stored.

    Sharded: the layer at work and the next, the embedding, and the head, which is gathered by itself. Under autocast:
    every matrix of the layers, cast once, and the head; nothing of frozen weights, which are stored like that.
    """
    if setting.sharded:
        return setting.compute_bytes * (2 * model.layer_parameters + 2 * model.embedding_parameters)
    if setting.quantization != "none":  # the matrix at work, as numbers
        return FLOAT * max(inputs * outputs for inputs, outputs in model.projections.values())
    if setting.autocast and not setting.casts_for_good:
        matrices = sum(inputs * outputs for inputs, outputs in model.projections.values())
        return setting.compute_bytes * (model.layers * matrices + model.embedding_parameters)
    return 0


def generating_weights(model: Architecture, setting: Setting) -> int:
    """As `gathered_weights` while completions are sampled: a sharded model is held whole, unless it is told not to."""
    if not setting.sharded or not setting.generates_gathered:
        return gathered_weights(model, setting)
    head = model.embedding_parameters if model.tied_embeddings else 0  # gathered by itself
    return setting.compute_bytes * (model.parameters + head)


def reference_weights(model: Architecture, setting: Setting) -> int:
    if setting.reference != "copy" or setting.reference_offloaded or setting.offloaded:
        return 0
    if setting.autocast:
        untied = 0 if model.tied_embeddings else model.embedding_parameters
        kept = setting.weight_bytes * (_layer_matrices(model) + untied) if setting.reference_renewed else 0
        return _frozen_bytes(model, setting) + kept
    return _shard(reference_bytes(setting) * model.parameters, setting)


def reference_bytes(setting: Setting) -> int:
    """Of one weight. A sharded reference is stored as it computes: nothing is added up in it."""
    return setting.compute_bytes if setting.sharded else setting.weight_bytes


def reference_at_work(model: Architecture, setting: Setting) -> int:
    """What a pass over a sharded reference gathers: two layers, its embedding and its head."""
    if setting.reference != "copy" or not setting.sharded:
        return 0
    return setting.compute_bytes * (2 * model.layer_parameters + 2 * model.embedding_parameters)


def reference_head_kept(model: Architecture, setting: Setting) -> int:
    """Of a sharded reference that rests on the CPU, while the policy's backward runs in the same pass."""
    rests = setting.reference_offloaded or setting.offloaded
    at_work = setting.reference == "copy" and setting.sharded and rests
    return setting.compute_bytes * model.embedding_parameters if at_work else 0


def host_bytes(model: Architecture, setting: Setting) -> int:
    """CPU memory of a process that computes on a GPU: what is offloaded there."""
    trained = trained_parameters(model, setting)
    offloaded = setting.weight_bytes * model.parameters + 3 * FLOAT * trained if setting.offloaded else 0
    resting = setting.offloaded or setting.reference_offloaded
    reference = reference_bytes(setting) * model.parameters if setting.reference == "copy" and resting else 0
    return _shard(offloaded + reference, setting) + saved_copy(model, setting)


def forward(model: Architecture, setting: Setting, batch: Batch) -> Memory:
    """The end of the last micro-batch's forward: every activation stands while the head is streamed."""
    return replace(
        standing(model, setting),
        gradients=_earlier_gradients(model, setting, batch),
        activations=saved_activations(model, setting, batch),
        scoring=scoring_buffers(model, setting, batch, backward=False),
    )


def backward(model: Architecture, setting: Setting, batch: Batch) -> Memory:
    """The start of its backward: the head's gradient is formed, then that of the last layer begins."""
    saved = saved_activations(model, setting, batch)
    points = [
        (saved, scoring_buffers(model, setting, batch, backward=True)),
        (saved + layer_moment(model, setting, batch, backward=True), 0),
    ]
    activations, scoring = max(points, key=sum)
    gradients = _earlier_gradients(model, setting, batch) + _whole_gradients(model, setting)
    held = standing(model, setting)
    return replace(held, gradients=gradients, activations=activations, scoring=scoring)


def accumulation(model: Architecture, setting: Setting, batch: Batch) -> Memory:
    """Its end: activations are gone, and the embedding's gradient, which is dense, is added to one that stands."""
    stands = batch.micro_batches > 1 or model.tied_embeddings or setting.sharded
    whole = _whole_gradients(model, setting) if stands else 0
    return replace(standing(model, setting), gradients=_gradients(model, setting) + whole)


def _gradients(model: Architecture, setting: Setting) -> int:
    return 0 if setting.offloaded else _shard(FLOAT * trained_parameters(model, setting), setting)


def _earlier_gradients(model: Architecture, setting: Setting, batch: Batch) -> int:
    return _gradients(model, setting) if batch.micro_batches > 1 else 0


def _whole_gradients(model: Architecture, setting: Setting) -> int:
    """Of the [V, D] matrix at work and, under sharding, of a layer, before they are spread or added up.

    A gradient that comes in bfloat16 is there in float32 too when it is reduced.
    """
    if setting.adapters.rank:
        return 0
    layer = model.layer_parameters if setting.sharded else 0
    both = FLOAT + (setting.compute_bytes if setting.compute_bytes < FLOAT else 0)
    return both * (model.embedding_parameters + layer)


def optimizer_step(model: Architecture, setting: Setting) -> Memory:
    """AdamW: every gradient stands, and on a CPU the update of one tensor takes two more of its size.

    Of moments in 8 bits five: both in float32, the gradient, and two on the way to its divisor.
    """
    held = replace(standing(model, setting), weights=stored_weights(model, setting))
    if setting.offloaded:
        return held
    tensors = [(-(-elements // setting.shards), count) for elements, count in _trained_tensors(model, setting)]
    watched = sum(count * min(elements, 2 * WATCHED_WEIGHTS) for elements, count in tensors)
    largest = max(elements for elements, _ in tensors)
    beside = 2 if setting.states == "float32" else 5
    passing = beside * largest if setting.device == "cpu" else 0  # a GPU's fused update takes nothing
    summing = largest + GRADIENTS_AT_ONCE if setting.copies > 1 else 0  # before it, with none of the update's
    trained = trained_parameters(model, setting)
    return replace(
        held,
        gradients=_shard(FLOAT * trained, setting),
        optimizer=held.optimizer + FLOAT * max(watched + passing, summing),
    )


def scoring_pass(model: Architecture, setting: Setting, batch: Batch) -> dict[str, int]:
    """A forward without gradients over the policy and the reference, and the streamed head."""
    return {
        "activations": layer_moment(model, setting, batch, backward=False),
        "scoring": scoring_buffers(model, setting, batch, backward=False),
    }


def noise_phase(model: Architecture, setting: Setting, batch: Batch) -> Memory:
    """The noise floor: two passes of the policy without gradients, whose hidden states are compared."""
    rows = min(NOISE_ROLLOUTS, batch.rows)
    passes = scoring_pass(model, replace(setting, reference="shared"), replace(batch, rows=rows))
    put_together = rows * batch.counted * model.hidden_size * setting.compute_bytes
    return replace(standing(model, setting), **passes | {"scoring": passes["scoring"] + put_together})


def saved_activations(model: Architecture, setting: Setting, batch: Batch) -> int:
    """What all layers save for the backward; with checkpointing each layer's input, and one layer's all."""
    element = setting.compute_bytes
    if setting.adapters.rank:
        saved = model.saved_bytes_of_adapters(element, setting.adapters)
    elif setting.autocast:
        saved = model.saved_bytes_under_autocast()
    else:
        saved = model.saved_bytes(element)
    layer = batch.tokens * saved
    ends = batch.tokens * (model.norm_bytes(element) + 2 * model.head_dim * element)
    if setting.checkpointing:
        stream = FLOAT if setting.autocast else element  # a residual's
        return model.layers * batch.tokens * model.hidden_size * stream + layer + ends
    return model.layers * layer + ends


def layer_moment(model: Architecture, setting: Setting, batch: Batch, *, backward: bool) -> int:
    """The widest moment within a layer: in its MLP three tensors of the inner width, and a few hidden states."""
    hidden_states = 2 if backward else 4
    widths = 3 * model.intermediate_size + hidden_states * model.hidden_size
    return setting.compute_bytes * batch.tokens * widths


def scoring_buffers(model: Architecture, setting: Setting, batch: Batch, *, backward: bool) -> int:
    """Tiles of logits and of the head, and hidden states of the counted tokens: in a forward the reference's too.

    A backward needs the policy's alone, with their gradient; that of a frozen head is prepared in its forward, as a
    second tensor of their size.
    """
    counted = batch.scored
    ids = min(TILE_IDS[setting.device], model.vocab_rows)
    tile = FLOAT * min(TILE_IDS[setting.device] * TILE_TOKENS[setting.device], counted * ids)
    states = counted * model.hidden_size
    cast = FLOAT * ids * model.hidden_size if setting.compute_bytes != FLOAT else 0
    if backward:
        directions = 2 if setting.adapters.rank else 1
        return BACKWARD_TILES * tile + (setting.compute_bytes + directions * FLOAT) * states + 2 * cast
    models = 1 if setting.reference == "none" else 2
    return FORWARD_TILES * tile + models * (setting.compute_bytes * states + cast)


def generating(model: Architecture, setting: Setting, generation: Generation) -> dict[str, int]:
    """Keys and values at full length, one layer's twice while its rows move; the sampler; the prompts' pass.

    That pass is taken as if no two completions had the same prompt, which no one promises. A CPU samples from a float32
    copy of a head that computes in less.
    """
    rows, element = generation.rows, setting.compute_bytes
    cached = model.cache_bytes(element) * rows * generation.width
    moving = cached // model.layers
    sampler = rows * model.vocab_rows * SAMPLER_BYTES + rows * (generation.width - generation.prompt) * TOKEN_BYTES
    widened = setting.device == "cpu" and setting.compute_bytes < FLOAT
    sampler += FLOAT * model.embedding_parameters if widened else 0
    first = Batch(rows, generation.prompt, 0)
    return {
        "cache": cached + moving + sampler,
        "activations": layer_moment(model, setting, first, backward=False),
    }


def _shard(total: int, setting: Setting) -> int:
    return -(-total // setting.shards)
