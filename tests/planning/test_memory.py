"""Memory by part: sums worked by hand, and what autograd really saves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from dgpo_cli.models.lora import add_adapter
from dgpo_cli.planning.architecture import Adapters, Architecture
from dgpo_cli.planning.memory import (
    Batch,
    Generation,
    Setting,
    backward,
    generating,
    host_bytes,
    optimizer_step,
    scoring_buffers,
    standing,
    training_phases,
)

MODEL = Architecture(64, 3, 4, 2, 16, 96, 50_000, True, 128, qkv_bias=True)
BATCH = Batch(rows=2, width=40, counted=30)
GENERATION = Generation(rows=8, width=40, prompt=10)
SHAPE = {
    "vocab_size": 100,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
}
FAMILIES = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16}),
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
}


def saved_by_autograd(family: str, layers: int, dtype: torch.dtype, rank: int = 0) -> int:
    """Bytes of the storages that a forward of the body saves, weights and buffers left out."""
    make, config, more = FAMILIES[family]
    torch.manual_seed(0)
    model = make(config(**SHAPE, **more, num_hidden_layers=layers)).to(dtype).eval()
    if rank:
        model.requires_grad_(False)
        add_adapter(model, rank=rank, alpha=None, target_modules=None, base="none", revision=None, seed=0)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept, sizes = [], {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept.append(tensor)  # alive, so that no other tensor gets its address
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.base_model(torch.zeros(2, 40, dtype=torch.long), use_cache=False)
    return sum(sizes.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_saves_for_its_backward_what_the_plan_counts(family: str, dtype: torch.dtype) -> None:
    model = Architecture(64, 2, 4, 2, 16, 96, 100, True, 64, qkv_bias=family == "qwen2", qk_norm=family == "qwen3")
    one_layer = saved_by_autograd(family, 2, dtype) - saved_by_autograd(family, 1, dtype)
    assert one_layer == BATCH.tokens * model.saved_bytes(dtype.itemsize)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_under_autocast_saves_what_the_plan_counts(family: str) -> None:
    model = Architecture(64, 2, 4, 2, 16, 96, 100, True, 64, qkv_bias=family == "qwen2", qk_norm=family == "qwen3")
    with torch.autocast("cpu", torch.bfloat16):
        three, two = (saved_by_autograd(family, layers, torch.float32) for layers in (3, 2))
    weights = 2 * sum(inputs * outputs for inputs, outputs in model.projections.values())  # cast once, saved too
    assert three - two == 80 * model.saved_bytes_under_autocast() + weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_with_adapters_saves_what_the_plan_counts(family: str, dtype: torch.dtype) -> None:
    model = Architecture(64, 2, 4, 2, 16, 96, 100, True, 64, qkv_bias=family == "qwen2", qk_norm=family == "qwen3")
    # The first layer's input takes no gradient, so that a layer is the third's difference from the second.
    three, two = (saved_by_autograd(family, layers, dtype, rank=4) for layers in (3, 2))
    assert three - two == 80 * model.saved_bytes_of_adapters(dtype.itemsize, Adapters(4))


def test_float32_weights_gradients_and_moments_are_16_bytes_a_parameter() -> None:
    step = optimizer_step(MODEL, Setting(device="cuda"))
    watched = step.optimizer - 8 * MODEL.parameters
    assert step.weights + step.gradients + step.optimizer - watched == 16 * MODEL.parameters
    assert 0 < watched < 4 * MODEL.parameters


def test_adamw_on_a_cpu_takes_two_more_of_its_largest_tensor() -> None:
    on_gpu, on_cpu = (optimizer_step(MODEL, Setting(device=device)) for device in ("cuda", "cpu"))
    assert on_cpu.total - on_gpu.total == 2 * 4 * MODEL.vocab_rows * MODEL.hidden_size


def test_shards_divide_what_stands_and_gather_two_layers_with_both_ends() -> None:
    alone, spread = (
        standing(MODEL, Setting(reference="copy")),
        standing(MODEL, Setting(sharded=True, shards=4, reference="copy")),
    )
    gathered = 4 * (2 * MODEL.layer_parameters + 2 * MODEL.vocab_rows * MODEL.hidden_size)
    assert spread.weights - gathered == -(-alone.weights // 4)
    assert spread.optimizer == -(-alone.optimizer // 4)
    assert spread.reference == -(-alone.reference // 4)


def test_sampling_from_shards_holds_the_whole_model_unless_told_not_to() -> None:
    setting = Setting(device="cuda", sharded=True, shards=4, compute_bytes=2)
    whole, by_layer = (
        training_phases(MODEL, replace(setting, generates_gathered=on), BATCH, GENERATION, scores_first=False)
        for on in (True, False)
    )
    stored = MODEL.parameters * 4 // 4
    assert whole["rollout"].weights == stored + 2 * (MODEL.parameters + MODEL.embedding_parameters)
    assert by_layer["rollout"].weights == stored + 2 * 2 * (MODEL.layer_parameters + MODEL.embedding_parameters)


def test_autocast_keeps_a_bfloat16_copy_of_every_matrix() -> None:
    held = standing(MODEL, Setting(device="cuda", compute_bytes=2))
    matrices = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96
    assert held.weights == 4 * MODEL.parameters + 2 * (3 * matrices + 50_000 * 64)


def test_offloading_moves_weights_gradients_and_moments_to_the_cpu() -> None:
    setting = Setting(device="cuda", sharded=True, shards=2, offloaded=True, compute_bytes=2, reference="copy")
    step = optimizer_step(MODEL, setting)
    assert step.total == 0
    # Weights, gradients and two moments, and the reference's weights, over two processes.
    assert host_bytes(MODEL, setting) == (16 + 2) * MODEL.parameters // 2


def test_a_reference_that_rests_in_cpu_memory_is_counted_there() -> None:
    setting = Setting(device="cuda", sharded=True, compute_bytes=2, reference="copy", reference_offloaded=True)
    assert standing(MODEL, setting).reference == 0
    assert host_bytes(MODEL, setting) == 2 * MODEL.parameters  # stored as it computes


def test_adapters_train_little_and_need_no_second_model() -> None:
    setting = Setting(device="cuda", weight_bytes=2, compute_bytes=2, adapters=Adapters(8), reference="shared")
    held = standing(MODEL, setting)
    adapters = MODEL.adapter_parameters(Adapters(8))
    assert held.weights == 2 * MODEL.parameters + 4 * adapters
    assert held.optimizer == 8 * adapters
    assert held.reference == 0


def test_checkpointing_keeps_each_layers_input_and_one_layers_all() -> None:
    deep = replace(MODEL, layers=40)
    plain, sparing = (backward(deep, Setting(checkpointing=on), BATCH).activations for on in (False, True))
    layer = BATCH.tokens * deep.saved_bytes(4)
    assert plain - sparing == 39 * layer - 40 * BATCH.tokens * 64 * 4


def test_a_second_micro_batch_finds_the_gradients_of_the_first() -> None:
    untied = replace(MODEL, tied_embeddings=False)
    wide = replace(BATCH, rows=200)  # so that activations, not gradients, make the peak
    first, second = (backward(untied, Setting(), replace(wide, micro_batches=count)).gradients for count in (1, 2))
    assert second - first == 4 * untied.parameters


def test_the_cache_holds_keys_and_values_of_every_token_and_one_layer_twice() -> None:
    rows, width = GENERATION.rows, GENERATION.width
    cached = rows * width * 2 * MODEL.layers * 32 * 2  # keys and values of 32 in bfloat16
    sampler = rows * MODEL.vocab_rows * 24 + rows * 30 * 16  # a uniform and a log-prob a token
    parts = generating(MODEL, Setting(device="cuda", compute_bytes=2), GENERATION)
    assert parts["cache"] == cached + cached // MODEL.layers + sampler


def test_scoring_does_not_grow_with_the_vocabulary_but_with_hidden_states() -> None:
    few, many = (
        scoring_buffers(MODEL, Setting(reference="copy"), replace(BATCH, rows=rows), backward=False)
        for rows in (2000, 4000)
    )
    assert many - few == 2000 * 30 * 64 * 4 * 2  # of the policy and of the reference
    wider = replace(MODEL, vocab_rows=4 * MODEL.vocab_rows)
    assert scoring_buffers(wider, Setting(reference="copy"), replace(BATCH, rows=2000), backward=False) == few


def test_phases_of_a_step_have_what_belongs_to_them() -> None:
    phases = training_phases(MODEL, Setting(reference="copy"), BATCH, GENERATION, scores_first=True)
    assert list(phases) == ["rollout", "score", "forward", "backward", "accumulation", "optimizer"]
    assert phases["rollout"].cache > 0 == phases["backward"].cache
    assert phases["rollout"].gradients == 0 < phases["optimizer"].gradients
    inline = training_phases(MODEL, Setting(reference="copy"), BATCH, GENERATION, scores_first=False)
    assert "score" not in inline


def test_frozen_float32_weights_that_compute_in_bfloat16_are_held_in_it() -> None:
    """Matrices and biases of the layers at 2 bytes, embedding and norms at 4, and a tied head once more at 2."""
    matrices = 3 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96) + 3 * (64 + 2 * 32)
    embedding, norms = 50_000 * 64, 7 * 64
    held = 2 * matrices + 4 * (embedding + norms) + 2 * embedding
    low = Setting(device="cuda", compute_bytes=2, trains=False)
    assert standing(MODEL, low).weights == held
    under_lora = standing(MODEL, replace(low, trains=True, adapters=Adapters(8))).weights
    assert under_lora == held + 4 * MODEL.adapter_parameters(Adapters(8))
    untied = replace(MODEL, tied_embeddings=False)
    assert standing(untied, low).weights == held  # a head of its own is held in bfloat16 alone
    copied = replace(low, trains=True, reference="copy")
    assert standing(MODEL, copied).reference == held
    assert standing(MODEL, replace(copied, reference_renewed=True)).reference == held + 4 * matrices


def test_a_cpu_samples_from_a_float32_copy_of_a_low_head() -> None:
    caches = [
        generating(MODEL, Setting(device=device, compute_bytes=2), GENERATION)["cache"] for device in ("cpu", "cuda")
    ]
    assert caches[0] - caches[1] == 4 * 50_000 * 64
