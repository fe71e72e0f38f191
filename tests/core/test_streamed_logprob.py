"""The training pass against plain float64 autograd: values, gradients, and what is never held in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from core.dense_reference import dense_logprobs
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dgpo_cli.core.token_stats import (
    Head,
    logprobs_from_logits,
    token_logprobs,
    token_logprobs_and_stats,
    token_stats,
)

N, D, V = 23, 16, 211
DIRECT: dict[str, int] = {}
TILES: dict[str, Any] = {"vocab_chunk": 40, "token_chunk": 6}


def random_head(
    dtype: torch.dtype = torch.float32, *, bias: bool = False, trained: bool = True, **options: Any
) -> tuple[Tensor, Head, Tensor, Tensor]:
    """hidden, head, targets and an incoming gradient."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=generator).to(dtype).requires_grad_()
    weight = (0.5 * torch.randn(V, D, generator=generator)).to(dtype).requires_grad_(trained)
    bias_values = torch.randn(V, generator=generator).to(dtype).requires_grad_(trained) if bias else None
    targets = torch.randint(0, V, (N,), generator=generator)
    return hidden, Head(weight, bias_values, **options), targets, torch.randn(N, generator=generator)


def leaves(hidden: Tensor, head: Head) -> list[Tensor]:
    return [x for x in (hidden, head.weight, head.bias) if x is not None and x.requires_grad]


@pytest.mark.parametrize("chunks", [DIRECT, TILES, {"vocab_chunk": 1000}], ids=["direct", "tiles", "one tile"])
@pytest.mark.parametrize("trained", [True, False], ids=["trained head", "frozen head"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(("bias", "scale"), [(False, 1.0), (True, 0.5)])
def test_values_and_gradients_equal_plain_autograd(
    bias: bool, scale: float, softcap: float | None, temperature: float, trained: bool, chunks: dict[str, int]
) -> None:
    hidden, head, targets, grad = random_head(bias=bias, trained=trained, softcap=softcap, scale=scale)
    inputs = leaves(hidden, head)
    expected = dense_logprobs(hidden, head, targets, temperature)
    expected_grads = torch.autograd.grad(expected, inputs, grad.double())
    logprobs = token_logprobs(hidden, head, targets, temperature=temperature, **chunks)
    assert logprobs.dtype == torch.float32
    torch.testing.assert_close(logprobs.double(), expected, atol=1e-5, rtol=0)
    for got, wanted in zip(torch.autograd.grad(logprobs, inputs, grad), expected_grads, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunks", [DIRECT, TILES], ids=["direct", "tiles"])
@pytest.mark.parametrize("trained", [True, False], ids=["trained head", "frozen head"])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_gradcheck_in_float64(softcap: float | None, trained: bool, chunks: dict[str, int]) -> None:
    hidden, head, targets, _ = random_head(torch.float64, bias=True, trained=trained, softcap=softcap, scale=0.7)
    hidden, targets = hidden[:4, :3].detach().requires_grad_(), targets[:4] % 11
    assert head.bias is not None
    weight = head.weight[:11, :3].detach().requires_grad_(trained)
    bias = head.bias[:11].detach().requires_grad_(trained)
    small = {"vocab_chunk": 4, "token_chunk": 3} if chunks else {}

    def logprobs(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return token_logprobs(hidden, Head(weight, bias, softcap, 0.7), targets, temperature=1.3, **small)

    assert torch.autograd.gradcheck(logprobs, (hidden, weight, bias))


@pytest.mark.parametrize("chunks", [DIRECT, TILES], ids=["direct", "tiles"])
@pytest.mark.parametrize("trained", [True, False], ids=["trained head", "frozen head"])
def test_bfloat16_gradients_are_summed_in_float32_and_rounded_once(trained: bool, chunks: dict[str, int]) -> None:
    hidden, head, targets, grad = random_head(torch.bfloat16, trained=trained)
    inputs = leaves(hidden, head)
    expected = dense_logprobs(hidden, head, targets)
    expected_grads = torch.autograd.grad(expected, inputs, grad.double())
    logprobs = token_logprobs(hidden, head, targets, **chunks)
    torch.testing.assert_close(logprobs.double(), expected, atol=1e-5, rtol=0)
    for got, wanted in zip(torch.autograd.grad(logprobs, inputs, grad), expected_grads, strict=True):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.double(), wanted.double(), atol=1e-6, rtol=2**-7)  # one unit in the last place


def test_tied_embedding_takes_the_gradient_of_both_its_uses() -> None:
    _, head, targets, grad = random_head()
    mixing = torch.randn(D, D, generator=torch.Generator().manual_seed(1))

    def body(embedding: Tensor) -> Tensor:
        return torch.tanh(embedding[targets.roll(1)] @ mixing.to(embedding.dtype))

    double = head.weight.detach().double().requires_grad_()
    wanted = torch.autograd.grad(dense_logprobs(body(double), Head(double), targets), double, grad.double())[0]
    logprobs = token_logprobs(body(head.weight), head, targets, **TILES)
    got = torch.autograd.grad(logprobs, head.weight, grad)[0]
    torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunks", [DIRECT, TILES], ids=["direct", "tiles"])
def test_only_the_inputs_that_ask_get_a_gradient(chunks: dict[str, int]) -> None:
    hidden, head, targets, _ = random_head(bias=True, trained=False)
    assert head.bias is not None
    bias = head.bias.detach().requires_grad_()
    token_logprobs(hidden.detach(), Head(head.weight, bias), targets, **chunks).sum().backward()
    wanted = torch.autograd.grad(dense_logprobs(hidden, Head(head.weight, bias), targets).sum(), bias)[0]
    torch.testing.assert_close(bias.grad, wanted, atol=1e-5, rtol=1e-5)
    assert head.weight.grad is None
    assert not token_logprobs(hidden.detach(), head, targets, **chunks).requires_grad
    with torch.no_grad():
        assert not token_logprobs(hidden, Head(head.weight, bias), targets, **chunks).requires_grad


@pytest.mark.parametrize("trained", [True, False], ids=["trained head", "frozen head"])
@pytest.mark.parametrize("chunks", [DIRECT, TILES], ids=["direct", "tiles"])
def test_masked_ids_have_no_probability_and_no_gradient(chunks: dict[str, int], trained: bool) -> None:
    hidden, head, targets, _ = random_head(trained=trained)
    bias = torch.zeros(V)
    bias[100:] = -torch.inf
    kept = Head(head.weight[:100])
    inputs = leaves(hidden, head)
    logprobs = token_logprobs(hidden, Head(head.weight, bias), targets % 100, **chunks)
    expected = dense_logprobs(hidden, kept, targets % 100)
    torch.testing.assert_close(logprobs.double(), expected, atol=1e-5, rtol=0)
    wanted = torch.autograd.grad(expected.sum(), inputs)
    for got, want in zip(torch.autograd.grad(logprobs.sum(), inputs), wanted, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    masked = token_logprobs(hidden, Head(head.weight, bias), torch.full_like(targets, 150), **chunks)
    assert masked.isneginf().all()


@pytest.mark.parametrize("trained", [True, False], ids=["trained head", "frozen head"])
@pytest.mark.parametrize("chunks", [DIRECT, TILES], ids=["direct", "tiles"])
def test_no_tokens_give_an_empty_vector_and_zero_gradients(chunks: dict[str, int], trained: bool) -> None:
    hidden, head, targets, _ = random_head(trained=trained)
    empty = hidden[:0].detach().requires_grad_()
    logprobs = token_logprobs(empty, head, targets[:0], **chunks)
    assert logprobs.shape == (0,)
    logprobs.sum().backward()
    assert empty.grad is not None
    assert empty.grad.shape == (0, D)
    if trained:
        assert head.weight.grad is not None
        assert head.weight.grad.eq(0).all()


def test_scoring_and_training_agree_to_rounding() -> None:
    hidden, head, targets, _ = random_head()
    scored = token_stats(hidden, head, targets, **TILES).logprobs
    for chunks in (DIRECT, TILES):
        torch.testing.assert_close(token_logprobs(hidden, head, targets, **chunks), scored, atol=2e-6, rtol=0)


def test_log_probs_from_logits_carry_a_gradient() -> None:
    hidden, head, targets, grad = random_head()
    logits = (hidden @ head.weight.T).detach().requires_grad_()
    wanted = torch.log_softmax(logits.double() / 0.7, -1).gather(1, targets[:, None])[:, 0]
    got = logprobs_from_logits(logits, targets, temperature=0.7)
    torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        torch.autograd.grad(got, logits, grad)[0],
        torch.autograd.grad(wanted, logits, grad.double())[0],
        atol=1e-6,
        rtol=1e-5,
    )
    assert logprobs_from_logits(logits.bfloat16(), targets).dtype == torch.float32


class Products(TorchDispatchMode):
    """How many matrix products ran."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "mm" in func.__name__
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("trained", "graded", "products"),
    [(True, True, 4), (False, True, 2), (True, False, 1), (False, False, 1)],
    ids=["trained", "frozen", "trained, no grad", "frozen, no grad"],
)
def test_products_of_a_pass(trained: bool, graded: bool, products: int) -> None:
    hidden, head, targets, _ = random_head(trained=trained)
    with torch.set_grad_enabled(graded), Products() as ran:
        logprobs = token_logprobs(hidden, head, targets, vocab_chunk=1000)
        if graded:
            logprobs.sum().backward()
    assert ran.count == products


class LargestFloat32(TorchDispatchMode):
    """The most elements that any float32 result held."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.float32:
            self.elements = max(self.elements, result.untyped_storage().nbytes() // 4)
        return result


@pytest.mark.parametrize("trained", [True, False], ids=["trained head", "frozen head"])
def test_neither_logits_nor_a_float32_head_are_ever_held(trained: bool) -> None:
    hidden, head, targets, grad = random_head(torch.bfloat16, trained=trained)
    with LargestFloat32() as largest:
        token_logprobs(hidden, head, targets, **TILES).backward(grad)
        token_stats(hidden, head, targets, ref_hidden=hidden + 1, ref_head=Head(head.weight.detach() + 1), **TILES)
    assert largest.elements <= max(N * D, 40 * D, 40 * 6)  # hidden states, or a tile of the head, or one of logits
    assert largest.elements < min(N * V, V * D)


@pytest.mark.parametrize("vocabulary", [60, 9000])
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("reference", ["none", "shared", "own"])
def test_the_training_pass_scores_as_scoring_does(vocabulary: int, trained: bool, reference: str) -> None:
    torch.manual_seed(8)
    count, width = 600, 16
    hidden = torch.randn(count, width, requires_grad=True)
    head = Head(torch.randn(vocabulary, width, requires_grad=trained))
    targets = torch.randint(0, vocabulary, (count,))
    options: dict[str, Any] = {"temperature": 0.8}
    if reference != "none":
        options["ref_hidden"] = hidden.detach() + 0.01 * torch.randn(count, width)
    if reference == "own":
        options["ref_head"] = Head(torch.randn(vocabulary, width))
    logprobs, stats = token_logprobs_and_stats(hidden, head, targets, **options)
    expected = token_stats(hidden, head, targets, **options)
    for name in ("logprobs", "entropy", "ref_logprobs", "hellinger"):
        got, wanted = getattr(stats, name), getattr(expected, name)
        assert (got is None) == (wanted is None)
        if got is not None:
            assert not got.requires_grad
            torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(logprobs.detach(), expected.logprobs, atol=1e-5, rtol=1e-6)
    alone = token_logprobs(hidden, head, targets, temperature=0.8)
    inputs = [hidden, head.weight] if trained else [hidden]
    wanted_grads = torch.autograd.grad(alone.sum(), inputs)
    for got, wanted in zip(torch.autograd.grad(logprobs.sum(), inputs), wanted_grads, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)
