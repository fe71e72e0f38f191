"""Scoring against the dense float64 reference: values, exact zeros, tiny distances, masks, tiles."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from core.dense_reference import DenseStats, dense_logits, dense_stats
from torch import Tensor

from dgpo_cli.core.output_head import Scratch
from dgpo_cli.core.streamed_stats import Chunks, same_head, stream_pair
from dgpo_cli.core.token_stats import Head, TokenStats, stats_from_logits, token_stats

N, D, V = 37, 48, 1003  # no chunk below divides V
CHUNKS = [{}, {"vocab_chunk": 100, "token_chunk": 8}, {"vocab_chunk": 17, "token_chunk": 64}, {"vocab_chunk": 2000}]


def random_model(seed: int = 0, spread: float = 0.3) -> tuple[Tensor, Head, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, D, generator=generator)
    weight = spread * torch.randn(V, D, generator=generator)
    return hidden, Head(weight), torch.randint(0, V, (N,), generator=generator)


def moved(tensor: Tensor, by: float, seed: int = 1) -> Tensor:
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed))
    return tensor + by * tensor.float().std() * noise.to(tensor.dtype)


def dense(
    hidden: Tensor, head: Head, targets: Tensor, ref_hidden: Tensor, ref_head: Head, temperature: float = 1.0
) -> DenseStats:
    return dense_stats(dense_logits(hidden, head), targets, dense_logits(ref_hidden, ref_head), temperature)


def close(value: Tensor | None, expected: Tensor, atol: float, rtol: float = 0.0) -> None:
    assert value is not None
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected.double(), atol=atol, rtol=rtol)


def matches(stats: TokenStats, expected: DenseStats) -> None:
    close(stats.logprobs, expected.logprobs, 1e-5)
    close(stats.entropy, expected.entropy, 1e-5)
    close(stats.grad_norm, expected.grad_norm, 1e-6)
    close(stats.ref_logprobs, expected.ref_logprobs, 1e-5)
    close(stats.hellinger, expected.hellinger, 2e-6)


def pair(hidden: Tensor, head: Head, targets: Tensor, ref_hidden: Tensor, ref_head: Head) -> tuple[Tensor, Tensor]:
    """Residual form [N] and the policy's log-probs, whether or not the heads are the same."""
    scratch = Scratch(torch.float32, hidden.device)
    policy, reference = stream_pair(hidden, head, targets, ref_hidden, ref_head, 1.0, Chunks(100, 8), scratch)
    return reference.hellinger(policy), policy.logprobs()


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("drift", [1.0, 0.1, 1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("heads", ["two heads", "one head"])
def test_statistics_equal_the_dense_reference(heads: str, drift: float, chunks: dict[str, int]) -> None:
    hidden, head, targets = random_model()
    ref_hidden = moved(hidden, drift)
    ref_head = Head(moved(head.weight, drift, seed=2)) if heads == "two heads" else head
    given = ref_head if heads == "two heads" else None
    stats = token_stats(hidden, head, targets, ref_hidden=ref_hidden, ref_head=given, **chunks)
    matches(stats, dense(hidden, head, targets, ref_hidden, ref_head))


@pytest.mark.parametrize("ref", ["two heads", "one head"])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize(
    "options",
    [{"softcap": 5.0}, {"scale": 0.25}, {"bias": True}, {"bias": True, "softcap": 3.0, "scale": 2.0}],
    ids=["softcap", "scale", "bias", "all"],
)
def test_temperature_softcap_scale_and_bias(options: dict[str, float], temperature: float, ref: str) -> None:
    hidden, head, targets = random_model(spread=0.15)
    bias = torch.randn(V, generator=torch.Generator().manual_seed(5)) if "bias" in options else None
    head = Head(head.weight, bias, options.get("softcap"), options.get("scale", 1.0))
    ref_hidden = moved(hidden, 0.05)
    ref_head = replace(head, weight=moved(head.weight, 0.05, seed=2)) if ref == "two heads" else head
    given = ref_head if ref == "two heads" else None
    stats = token_stats(
        hidden, head, targets, temperature=temperature, ref_hidden=ref_hidden, ref_head=given, vocab_chunk=128
    )
    matches(stats, dense(hidden, head, targets, ref_hidden, ref_head, temperature))


@pytest.mark.parametrize("ref", ["two heads", "one head"])
def test_bfloat16_inputs_give_float32_statistics(ref: str) -> None:
    hidden, head, targets = random_model()
    hidden, head = hidden.bfloat16(), Head(head.weight.bfloat16())
    ref_hidden = moved(hidden, 0.02)
    ref_head = Head(moved(head.weight, 0.02, seed=2)) if ref == "two heads" else head
    given = ref_head if ref == "two heads" else None
    stats = token_stats(hidden, head, targets, ref_hidden=ref_hidden, ref_head=given, vocab_chunk=100, token_chunk=8)
    matches(stats, dense(hidden, head, targets, ref_hidden, ref_head))


def test_mixed_dtypes_are_multiplied_in_float32() -> None:
    hidden, head, targets = random_model()
    low = Head(head.weight.bfloat16())
    stats = token_stats(hidden, low, targets, ref_hidden=hidden.bfloat16(), ref_head=head)
    matches(stats, dense(hidden, low, targets, hidden.bfloat16(), head))


def test_autocast_does_not_round_the_logits() -> None:
    hidden, head, targets = random_model()
    ref_hidden = moved(hidden, 1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stats = token_stats(hidden, head, targets, ref_hidden=ref_hidden)
    matches(stats, dense(hidden, head, targets, ref_hidden, head))


def test_reference_of_another_width() -> None:
    hidden, head, targets = random_model()
    ref_hidden = torch.randn(N, 2 * D, generator=torch.Generator().manual_seed(3))
    ref_head = Head(0.2 * torch.randn(V, 2 * D, generator=torch.Generator().manual_seed(4)))
    stats = token_stats(hidden, head, targets, ref_hidden=ref_hidden, ref_head=ref_head, vocab_chunk=100)
    matches(stats, dense(hidden, head, targets, ref_hidden, ref_head))


def test_without_a_reference_there_is_no_distance() -> None:
    hidden, head, targets = random_model()
    stats = token_stats(hidden.requires_grad_(), head, targets)
    expected = dense(hidden, head, targets, hidden, head)
    close(stats.logprobs, expected.logprobs.detach(), 1e-5)
    close(stats.entropy, expected.entropy.detach(), 1e-5)
    assert (stats.ref_logprobs, stats.hellinger) == (None, None)
    assert not stats.logprobs.requires_grad


def test_the_gradient_norm_by_hand() -> None:
    # p = 1/2 1/4 1/4. The first: sqrt(1/4 + 1/16 + 1/16) = sqrt(6)/4; the second: sqrt(1/4 + 9/16 + 1/16) = sqrt(14)/4
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0]]).repeat(2, 1)
    stats = stats_from_logits(logits, torch.tensor([0, 1]))
    assert stats.grad_norm.tolist() == pytest.approx([math.sqrt(6) / 4, math.sqrt(14) / 4], rel=1e-6)


@pytest.mark.parametrize("chunks", CHUNKS)
def test_the_gradient_norm_is_the_one_that_autograd_gives(chunks: dict[str, Any]) -> None:
    hidden, head, targets = random_model(spread=0.3)
    logits = dense_logits(hidden, head).requires_grad_()
    torch.log_softmax(logits, -1).gather(1, targets[:, None]).sum().backward()
    assert logits.grad is not None
    close(token_stats(hidden, head, targets, **chunks).grad_norm, logits.grad.norm(dim=1), 1e-6)


def test_the_gradient_norm_of_a_sure_token_keeps_its_digits() -> None:
    """p = 1 - 2e-6: by 1 - 2 p + sum p^2 in float32 nothing would be left but rounding, up to 3e-4."""
    logits = torch.tensor([[0.0, math.log(1e-6), math.log(1e-6)]])
    expected = dense_stats(logits, torch.tensor([0]), logits).grad_norm
    assert float(expected) == pytest.approx(2.45e-6, rel=1e-2)
    close(stats_from_logits(logits, torch.tensor([0])).grad_norm, expected, 1.5e-7)


def test_heads_of_different_vocabularies_are_refused() -> None:
    hidden, head, targets = random_model()
    with pytest.raises(ValueError, match="1003 and 1000 rows"):
        token_stats(hidden, head, targets, ref_hidden=hidden, ref_head=Head(head.weight[:1000]))


@pytest.mark.parametrize("chunks", CHUNKS)
def test_no_tokens_give_empty_vectors(chunks: dict[str, Any]) -> None:
    hidden, head, targets = random_model()
    stats = token_stats(hidden[:0], head, targets[:0], ref_hidden=hidden[:0], **chunks)
    nothing = torch.empty(0)
    matches(stats, DenseStats(nothing, nothing, nothing, nothing, nothing))
    empty = stats_from_logits(torch.empty(0, V), targets[:0], ref_logits=torch.empty(0, V))
    close(empty.hellinger, nothing, 0.0)


# --- the distance where it is small, zero, or one ---


@pytest.mark.parametrize("d", [1e-6, 1e-8])
def test_small_distance_of_two_heads_keeps_two_digits(d: float) -> None:
    hidden, head, targets = random_model()
    drift = d**0.5  # d grows with the square of the drift
    ref_hidden, ref_head = moved(hidden, drift), Head(moved(head.weight, drift, seed=2))
    stats = token_stats(hidden, head, targets, ref_hidden=ref_hidden, ref_head=ref_head, vocab_chunk=100)
    expected = dense(hidden, head, targets, ref_hidden, ref_head).hellinger
    assert d / 2 < expected.median() < 2 * d
    close(stats.hellinger, expected, 0.0, rtol=1e-2)


@pytest.mark.parametrize("d", [1e-2, 1e-4, 1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("spread", [0.1, 0.3, 1.5], ids=["flat", "usual", "peaked"])
def test_small_distance_under_one_head_keeps_five_digits(spread: float, d: float) -> None:
    hidden, head, targets = random_model(spread=spread)
    ref_hidden = moved(hidden, d**0.5)
    stats = token_stats(hidden, head, targets, ref_hidden=ref_hidden, vocab_chunk=100)
    expected = dense(hidden, head, targets, ref_hidden, head).hellinger
    close(
        stats.hellinger, expected, 0.0, rtol=3e-5
    )  # the last digit is the matrix kernel's, which each CPU has its own


@pytest.mark.parametrize("softcap", [None, 4.0])
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_identical_models_are_exactly_zero_apart(
    dtype: torch.dtype, chunks: dict[str, int], softcap: float | None
) -> None:
    hidden, head, targets = random_model()
    hidden, head = hidden.to(dtype), Head(head.weight.to(dtype), softcap=softcap)
    copy = Head(head.weight.clone(), softcap=softcap)
    for ref_hidden, ref_head in [(hidden, None), (hidden.clone(), None), (hidden.clone(), head), (hidden, copy)]:
        stats = token_stats(hidden, head, targets, ref_hidden=ref_hidden, ref_head=ref_head, **chunks)
        assert stats.hellinger is not None
        assert stats.hellinger.eq(0.0).all()
        assert stats.ref_logprobs is not None
        assert torch.equal(stats.logprobs, stats.ref_logprobs)


def test_residual_of_equal_tiles_is_exactly_zero() -> None:
    hidden, head, targets = random_model()
    distance, _ = pair(hidden, head, targets, hidden.clone(), Head(head.weight.clone()))
    assert distance.eq(0.0).all()


def test_copies_of_a_head_are_recognised() -> None:
    _, head, _ = random_model()
    bias = torch.zeros(V)
    assert same_head(head, Head(head.weight.clone()))
    assert not same_head(head, Head(moved(head.weight, 1e-6)))
    assert not same_head(head, Head(head.weight, bias))
    assert not same_head(Head(head.weight, bias), Head(head.weight, bias + 1))
    assert not same_head(head, Head(head.weight, softcap=3.0))
    one_row = head.weight.clone()
    one_row[17, 3] += 1.0
    assert not same_head(head, Head(one_row))


def test_disjoint_supports_are_one_apart() -> None:
    hidden, head, targets = random_model()
    even, odd = torch.zeros(V), torch.zeros(V)
    even[1::2], odd[0::2] = -torch.inf, -torch.inf
    stats = token_stats(
        *(hidden, Head(head.weight, even), targets),
        ref_hidden=hidden,
        ref_head=Head(head.weight, odd),
        vocab_chunk=100,
    )
    close(stats.hellinger, torch.ones(N), 5e-7)


def test_distance_stays_within_zero_and_one() -> None:
    for drift in (1e-7, 1e-3, 1.0, 30.0):
        for spread in (0.01, 1.0, 20.0):
            hidden, head, targets = random_model(spread=spread)
            ref_hidden = moved(hidden, drift)
            other = Head(moved(head.weight, drift))
            for ref_head in (None, other):
                stats = token_stats(hidden, head, targets, ref_hidden=ref_hidden, ref_head=ref_head, vocab_chunk=100)
                assert stats.hellinger is not None
                assert ((stats.hellinger >= 0) & (stats.hellinger <= 1)).all()


@pytest.mark.parametrize("shift", [-60.0, -12.0, 12.0, 60.0])
def test_one_head_falls_back_where_the_difference_is_large(shift: float) -> None:
    hidden, head, targets = random_model()
    weight = torch.cat([head.weight, torch.ones(V, 1)], dim=1)  # one coordinate moves every logit alike: d is unchanged
    hidden = torch.cat([hidden, torch.zeros(N, 1)], dim=1)
    ref_hidden = moved(hidden, 0.1)
    ref_hidden[:, -1] = torch.where(torch.arange(N) % 2 == 0, shift, 0.0)
    stats = token_stats(hidden, Head(weight), targets, ref_hidden=ref_hidden, vocab_chunk=100, token_chunk=8)
    expected = dense(hidden, Head(weight), targets, ref_hidden, Head(weight))
    close(stats.hellinger, expected.hellinger, 2e-6)
    close(stats.ref_logprobs, expected.ref_logprobs, 4e-5)  # logits near 60 are only known to 4e-6


@pytest.mark.parametrize("ref", ["two heads", "one head", "logits"])
def test_one_id_outweighing_another_model_keeps_its_digits(ref: str) -> None:
    # p puts 1 - 1e-6 on one id, q 1 - 4e-6: d = 0.5 [(1e-3 - 2e-3)^2 + tiny] = 5e-7, from a tile of its own.
    logits = torch.full((1, V), -30.0).double()
    ref_logits = logits.clone()
    logits[0, 500], logits[0, 900] = 0.0, torch.logit(torch.tensor(1e-6)).item()
    ref_logits[0, 500], ref_logits[0, 900] = 0.0, torch.logit(torch.tensor(4e-6)).item()
    weight = torch.stack([logits[0], ref_logits[0] - logits[0]], dim=1).float()
    hidden, ref_hidden, targets = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([900])
    expected = dense_stats(hidden.double() @ weight.double().T, targets, ref_hidden.double() @ weight.double().T)
    if ref == "one head":
        value = token_stats(hidden, Head(weight), targets, ref_hidden=ref_hidden, vocab_chunk=100).hellinger
    elif ref == "two heads":
        value, _ = pair(hidden, Head(weight), targets, ref_hidden, Head(weight))
    else:
        value = stats_from_logits(hidden @ weight.T, targets, ref_logits=ref_hidden @ weight.T).hellinger
    assert expected.hellinger.item() == pytest.approx(5e-7, rel=1e-2)
    close(value, expected.hellinger, 0.0, rtol=1e-5 if ref == "one head" else 1e-4)


# --- masked ids ---


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("ref", ["two heads", "one head"])
def test_ids_masked_by_a_bias_of_minus_infinity(ref: str, chunks: dict[str, int]) -> None:
    hidden, head, targets = random_model()
    bias = torch.zeros(V)
    bias[:250] = -torch.inf  # the first tiles hold nothing else
    bias[600:650] = -torch.inf
    head = Head(head.weight, bias)
    ref_hidden = moved(hidden, 0.05)
    ref_head = Head(moved(head.weight, 0.05, seed=2), bias) if ref == "two heads" else head
    given = ref_head if ref == "two heads" else None
    stats = token_stats(hidden, head, targets, ref_hidden=ref_hidden, ref_head=given, **chunks)
    expected = dense(hidden, head, targets, ref_hidden, ref_head)
    assert expected.logprobs.isneginf().any()
    close(stats.logprobs, expected.logprobs, 1e-5)
    close(stats.ref_logprobs, expected.ref_logprobs, 1e-5)
    close(stats.entropy, expected.entropy.nan_to_num(), 1e-5)
    close(stats.grad_norm, expected.grad_norm, 1e-6)
    close(stats.hellinger, expected.hellinger, 2e-6)


def test_logits_of_minus_infinity() -> None:
    hidden, head, targets = random_model()
    logits, ref_logits = dense_logits(hidden, head).float(), dense_logits(moved(hidden, 0.1), head).float()
    logits[:, ::3], ref_logits[:, ::3] = -torch.inf, -torch.inf
    stats = stats_from_logits(logits, targets, ref_logits=ref_logits)
    matches(stats, dense_stats(logits, targets, ref_logits))
    assert torch.isneginf(logits).any()  # the caller's logits are left as they were


# --- what must not matter ---


@pytest.mark.parametrize("chunks", CHUNKS[1:])
@pytest.mark.parametrize("ref", ["two heads", "one head"])
def test_chunk_sizes_do_not_matter(ref: str, chunks: dict[str, int]) -> None:
    hidden, head, targets = random_model(spread=0.1)
    ref_hidden = moved(hidden, 0.05)
    ref_head = Head(moved(head.weight, 0.05, seed=2)) if ref == "two heads" else None
    one_tile = token_stats(hidden, head, targets, ref_hidden=ref_hidden, ref_head=ref_head)
    tiles = token_stats(hidden, head, targets, ref_hidden=ref_hidden, ref_head=ref_head, **chunks)
    for name in ("logprobs", "entropy", "grad_norm", "ref_logprobs", "hellinger"):
        close(getattr(tiles, name), getattr(one_tile, name), 1e-6, rtol=1e-6 / 7)  # the values reach 7: log V


def test_the_company_of_a_token_does_not_matter() -> None:
    hidden, head, targets = random_model(spread=0.1)
    ref_hidden = moved(hidden, 0.05)
    together = token_stats(hidden, head, targets, ref_hidden=ref_hidden)
    for some in (slice(0, 1), slice(3, 20), slice(30, N)):
        alone = token_stats(hidden[some], head, targets[some], ref_hidden=ref_hidden[some])
        for name in ("logprobs", "entropy", "grad_norm", "ref_logprobs", "hellinger"):
            close(getattr(alone, name), getattr(together, name)[some], 1e-6, rtol=1e-6 / 7)


def test_memory_order_of_the_inputs_does_not_matter() -> None:
    hidden, head, targets = random_model()
    ref_hidden = moved(hidden, 0.05)
    plain = token_stats(hidden, head, targets, ref_hidden=ref_hidden, vocab_chunk=100)
    strided = token_stats(
        *(hidden.T.contiguous().T, Head(head.weight.T.contiguous().T), targets),
        ref_hidden=torch.cat([ref_hidden, ref_hidden], dim=1)[:, :D],
        vocab_chunk=100,
    )
    close(strided.logprobs, plain.logprobs, 5e-6)
    assert plain.hellinger is not None
    close(strided.hellinger, plain.hellinger, 1e-6)


# --- logits that a model computed itself ---


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_statistics_from_logits_equal_the_dense_reference(temperature: float) -> None:
    hidden, head, targets = random_model()
    logits, ref_logits = dense_logits(hidden, head).float(), dense_logits(moved(hidden, 0.01), head).float()
    stats = stats_from_logits(logits, targets, temperature=temperature, ref_logits=ref_logits)
    matches(stats, dense_stats(logits, targets, ref_logits, temperature))
    same = stats_from_logits(logits, targets, temperature=temperature, ref_logits=logits.clone())
    assert same.hellinger is not None
    assert same.hellinger.eq(0.0).all()


def test_statistics_from_bfloat16_logits() -> None:
    hidden, head, targets = random_model()
    logits = dense_logits(hidden, head).bfloat16()
    ref_logits = dense_logits(moved(hidden, 0.1), head).bfloat16()
    matches(stats_from_logits(logits, targets, ref_logits=ref_logits), dense_stats(logits, targets, ref_logits))
