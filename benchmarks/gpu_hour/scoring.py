"""The machine's ceilings; the head's exactness against float64, and its time over the two products alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.core.output_head import Head, Scratch, head_tiles, product, tile_shape, token_slices
from dgpo_cli.core.token_stats import token_logprobs, token_stats
from dgpo_cli.training.probe import PeakMemory
from gpu_hour.checks import Hour
from gpu_hour.models import interleaved, seconds_of, tidy

GIB = 2**30
SHEET_FLOPS = 989e12  # dense bfloat16 of an H100 and an H200
WEIGHT = 0.05  # standard deviation of a head's weights: logits of 1.5 at D = 896
SMALL_DISTANCE = 1e-8


@dataclass(frozen=True)
class Inputs:
    """One head's problem: hidden states [N, D] of policy and reference, their heads [V, D], targets [N]."""

    hidden: Tensor
    weight: Tensor
    ref_hidden: Tensor
    ref_weight: Tensor
    targets: Tensor


def machine(hour: Hour) -> None:
    """What it is, how fast it copies, and how fast it multiplies: the ceilings of the other sections."""
    if hour.on_gpu:
        facts = torch.cuda.get_device_properties(0)
        hour.tell("gpu", f"{facts.name}, compute capability {facts.major}.{facts.minor}")
        hour.tell("memory", round(facts.total_memory / GIB, 1), "GiB")
    side, size = (8192, 2 * GIB) if hour.on_gpu else (256, 2**24)
    dtype = torch.bfloat16 if hour.on_gpu else torch.float32
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=hour.device)
    target = torch.empty_like(source)
    seconds = interleaved({"copy": lambda: target.copy_(source)}, 5)["copy"]
    rate = 2 * size / seconds
    # An H100 has 3.35 TB/s and an H200 4.8 by their datasheets; a copy reaches nine tenths of that.
    hour.expect("copy", rate / 1e12, least=2.6, unit="TB/s", judged=hour.on_gpu, note="read and written")
    left, right = (torch.randn(side, side, device=hour.device, dtype=dtype) for _ in range(2))
    seconds = interleaved({"product": lambda: left @ right}, 5)["product"]
    rate = 2 * side**3 / seconds
    hour.expect("product", rate / 1e12, least=600, unit="TFLOP/s", judged=hour.on_gpu, note=f"{dtype}, {side}^3")
    tf32 = torch.backends.cuda.matmul.allow_tf32
    hour.expect("products of float32 in tf32", float(tf32), least=0, most=0, note="they would lose small distances")


def exactness(hour: Hour) -> None:
    """token_stats and the gradient of token_logprobs against float64 on the same inputs."""
    sizes = [(1_000, 32, 96), (1_003, 48, 200)] if hour.small else [(151_936, 896, 32_768), (152_064, 3_584, 32_768)]
    for vocabulary, width, count in sizes:
        for dtype in (torch.float32, torch.bfloat16):
            name = f"V={vocabulary} D={width} N={count} {str(dtype).removeprefix('torch.')}"
            inputs = inputs_of(hour, vocabulary, width, count, dtype, small_distance=True)
            _against_float64(hour, name, inputs)
            _gradients(hour, name, inputs)
            del inputs
            tidy()
    vocabulary, width, count = (1_003, 32, 64) if hour.small else (152_064, 896, 2_048)
    for dtype in (torch.float32, torch.bfloat16):
        name = f"bias, softcap, T=0.7 {str(dtype).removeprefix('torch.')}"
        _with_everything(hour, name, inputs_of(hour, vocabulary, width, count, dtype))
        tidy()


def inputs_of(
    hour: Hour, vocabulary: int, width: int, count: int, dtype: torch.dtype, *, small_distance: bool = False
) -> Inputs:
    """Random ones. Two models differ by a change of the head's weights alone, exact in `dtype`."""
    generator = torch.Generator(hour.device).manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device=hour.device, generator=generator)

    hidden = random(count, width).to(dtype)
    weight = (WEIGHT * random(vocabulary, width)).to(dtype)
    # d is about Var(delta z) / 8, and delta z sums `share` x D relative changes of size `relative`.
    variance = 8 * (SMALL_DISTANCE if small_distance else 1e-3)
    relative = 2.0**-7 if dtype == torch.bfloat16 else math.sqrt(variance / width) / WEIGHT
    share = min(1.0, variance / (width * (WEIGHT * relative) ** 2))
    changed = torch.rand(vocabulary, width, device=hour.device, generator=generator) < share
    sign = torch.where(random(vocabulary, width) > 0, 1.0, -1.0)
    ref_weight = torch.where(changed, weight.float() * (1 + relative * sign), weight.float()).to(dtype)
    targets = torch.randint(0, vocabulary, (count,), device=hour.device, generator=generator)
    return Inputs(hidden, weight, hidden.clone(), ref_weight, targets)


def dense(head: Head, hidden: Tensor, temperature: float) -> Tensor:
    """log-softmax [n, V] in float64."""
    logits = head.scale * (hidden.double() @ head.weight.double().T)
    if head.bias is not None:
        logits += head.bias.double()
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return torch.log_softmax(logits / temperature, dim=-1)


@torch.no_grad()
def reference(
    inputs: Inputs, head: Head, ref_head: Head, rows: Tensor, temperature: float = 1.0, chunk: int = 256
) -> dict[str, Tensor]:
    """The four statistics of those rows in float64. The distance as half a sum of squares, which loses no digits."""
    found: dict[str, list[Tensor]] = {name: [] for name in ("logprobs", "ref_logprobs", "entropy", "hellinger")}
    for part in rows.split(chunk):
        log_p = dense(head, inputs.hidden[part], temperature)
        log_q = dense(ref_head, inputs.ref_hidden[part], temperature)
        at = inputs.targets[part][:, None]
        found["logprobs"].append(log_p.gather(1, at)[:, 0])
        found["ref_logprobs"].append(log_q.gather(1, at)[:, 0])
        found["entropy"].append(-torch.special.xlogy(log_p.exp(), log_p.exp()).sum(1))
        found["hellinger"].append(0.5 * ((log_p / 2).exp() - (log_q / 2).exp()).square().sum(1))
    return {name: torch.cat(parts) for name, parts in found.items()}


def furthest(ours: Tensor, wanted: Tensor, *, relative: bool = False) -> float:
    gap = (ours.double() - wanted).abs()
    gap = torch.where(ours.double() == wanted, 0.0, gap)  # both -inf
    return float((gap / wanted if relative else gap).max())


def _against_float64(hour: Hour, name: str, inputs: Inputs) -> None:
    head, ref_head = Head(inputs.weight), Head(inputs.ref_weight)
    options: dict[str, Any] = {"ref_hidden": inputs.ref_hidden, "ref_head": ref_head}
    stats = token_stats(inputs.hidden, head, inputs.targets, **options)
    rows = torch.arange(0, len(inputs.targets), 8, device=hour.device)
    wanted = reference(inputs, head, ref_head, rows)
    for field in ("logprobs", "ref_logprobs", "entropy"):
        hour.expect(f"{name}: {field}", furthest(getattr(stats, field)[rows], wanted[field]), most=1e-5, unit="nats")
    assert stats.hellinger is not None
    middle = float(wanted["hellinger"].median())
    gap = furthest(stats.hellinger[rows], wanted["hellinger"], relative=True)
    hour.expect(f"{name}: distance, relative", gap, most=1e-2, note=f"median d {middle:.1e}")
    several = [
        token_stats(
            inputs.hidden[part], head, inputs.targets[part], ref_hidden=inputs.ref_hidden[part], ref_head=ref_head
        ).logprobs
        for part in torch.arange(len(inputs.targets), device=hour.device).split(1000)
    ]
    gap = furthest(torch.cat(several), stats.logprobs.double())
    hour.expect(f"{name}: in parts of 1000", gap, most=2e-6, unit="nats")
    same = token_stats(
        inputs.hidden, head, inputs.targets, ref_hidden=inputs.hidden.clone(), ref_head=Head(inputs.weight.clone())
    )
    assert same.hellinger is not None
    hour.expect(f"{name}: distance of a copy", float(same.hellinger.abs().max()), least=0, most=0)


def _gradients(hour: Hour, name: str, inputs: Inputs) -> None:
    """Of sum of g * log p: to hidden states and head, and to hidden states under a frozen head."""
    count = min(256, len(inputs.targets))
    hidden, targets = inputs.hidden[:count], inputs.targets[:count]
    pull = torch.randn(count, device=hour.device, generator=torch.Generator(hour.device).manual_seed(1))
    exact_hidden = hidden.double().requires_grad_()
    exact_weight = inputs.weight.double().requires_grad_()
    logprobs = torch.log_softmax(exact_hidden @ exact_weight.T, dim=-1).gather(1, targets[:, None])[:, 0]
    wanted = torch.autograd.grad((logprobs * pull.double()).sum(), (exact_hidden, exact_weight))
    del logprobs, exact_weight
    # bfloat16 products round their operands to 2^-9.
    most = 1e-5 if hidden.dtype == torch.float32 else 1e-2
    for trained in (True, False):
        ours = hidden.detach().requires_grad_(), inputs.weight.detach().requires_grad_(trained)
        (token_logprobs(ours[0], Head(ours[1]), targets) * pull).sum().backward()
        kind = "trained" if trained else "frozen"
        for what, weight, exact in zip(("hidden", "weight"), ours, wanted, strict=True):
            if weight.grad is not None:
                gap = float((weight.grad.double() - exact).norm() / exact.norm())
                hour.expect(f"{name}: gradient of {what}, {kind} head", gap, most=most, note="relative L2")


def _with_everything(hour: Hour, name: str, inputs: Inputs) -> None:
    """A bias that removes ids, a soft cap, a scale, a temperature, and distances of every size."""
    vocabulary = len(inputs.weight)
    bias = torch.linspace(-1, 1, vocabulary, device=hour.device)
    bias[::7] = -torch.inf
    head = Head(inputs.weight, bias, 30.0, 0.9)
    ref_head = Head(inputs.ref_weight, bias.clone(), 30.0, 0.9)
    options: dict[str, Any] = {"temperature": 0.7, "ref_hidden": inputs.ref_hidden, "ref_head": ref_head}
    # A soft cap bounds what it is given: an id with a bias of -inf has the logit -30, as in the model itself.
    stats = token_stats(inputs.hidden, head, inputs.targets, **options)
    rows = torch.arange(0, len(inputs.targets), 4, device=hour.device)
    wanted = reference(inputs, head, ref_head, rows, 0.7)
    hour.expect(f"{name}: logprobs", furthest(stats.logprobs[rows], wanted["logprobs"]), most=1e-5, unit="nats")
    hour.expect(f"{name}: entropy", furthest(stats.entropy[rows], wanted["entropy"]), most=1e-5, unit="nats")
    assert stats.hellinger is not None
    hour.expect(f"{name}: distance", furthest(stats.hellinger[rows], wanted["hellinger"]), most=2e-6)
    plain, ref_plain = Head(inputs.weight, bias), Head(inputs.ref_weight, bias.clone())
    stats = token_stats(inputs.hidden, plain, inputs.targets, ref_hidden=inputs.ref_hidden, ref_head=ref_plain)
    wanted = reference(inputs, plain, ref_plain, rows)
    hour.expect(f"{name}: logprobs of removed ids", furthest(stats.logprobs[rows], wanted["logprobs"]), most=1e-5)
    numbers = torch.stack([stats.entropy, stats.grad_norm])
    hour.expect(f"{name}: not a number", float(torch.isnan(numbers).sum()), least=0, most=0)


def speed(hour: Hour) -> None:
    """Seconds of scoring over those of its two products alone, in the same tiles; its memory; other tiles."""
    cases = [(512, 32, 64, torch.float32)]
    if not hour.small:
        cases = [(152_064, 5_120, 16_384, torch.bfloat16), (151_936, 896, 16_384, torch.bfloat16)]
        cases.append((151_936, 896, 8_192, torch.float32))
    for vocabulary, width, count, dtype in cases:
        name = f"V={vocabulary} D={width} N={count} {str(dtype).removeprefix('torch.')}"
        inputs = inputs_of(hour, vocabulary, width, count, dtype)
        sides = sides_of(inputs)
        taken = interleaved(sides, 5)
        flops = 4 * vocabulary * width * count
        hour.tell(f"{name}: two products", flops / taken["products"] / 1e12, "TFLOP/s")
        goals = {"two heads": ("products", 1.25), "one head": ("products", 1.25)}
        goals |= {"trained, four products": ("products_of_four", 1.5), "frozen": ("products", 1.3)}
        for side, (over, most) in goals.items():
            ratio = taken[side] / taken[over]
            note = f"then 1.10; {taken[side] * 1e3:.1f} ms" if most == 1.25 else f"{taken[side] * 1e3:.1f} ms"
            hour.expect(f"{name}: {side}", ratio, most=most, unit="x", judged=hour.on_gpu, note=note)
        memory = PeakMemory(hour.device)
        memory.reset()
        sides["two heads"]()
        # Four tiles of 134 MB and a tile of each head in float32.
        most = 4 * 0.125 + (0 if dtype == torch.bfloat16 else 2 * 16_384 * width * 4 / GIB) + 0.13
        hour.expect(f"{name}: memory", memory.peak() / GIB, most=most, unit="GiB", judged=hour.on_gpu)
        tiles(hour, name, inputs)
        del inputs, sides
        tidy()


def sides_of(inputs: Inputs) -> dict[str, Callable[[], object]]:
    """What is timed: the products alone, and everything that is made of them."""
    head, ref_head = Head(inputs.weight), Head(inputs.ref_weight)

    def scored(ref_head: Head | None) -> Callable[[], object]:
        options: dict[str, Any] = {"ref_hidden": inputs.ref_hidden, "ref_head": ref_head}
        return lambda: token_stats(inputs.hidden, head, inputs.targets, **options)

    def trained(whole: bool) -> Callable[[], object]:
        def work() -> None:
            hidden, weight = inputs.hidden.detach().requires_grad_(), inputs.weight.detach().requires_grad_(whole)
            token_logprobs(hidden, Head(weight), inputs.targets).sum().backward()

        return work

    def products() -> None:
        for side, states in ((head, inputs.hidden), (ref_head, inputs.ref_hidden)):
            products_alone(side, states)

    def twice() -> None:
        products()
        products()

    return {
        "products": products,
        "products_of_four": twice,
        "two heads": scored(ref_head),
        "one head": scored(None),
        "trained, four products": trained(True),
        "frozen": trained(False),
    }


@torch.no_grad()
def products_alone(head: Head, hidden: Tensor) -> None:
    """A head's tiles of logits, made by the product that scoring makes them by, and dropped."""
    scratch = Scratch(torch.float32, hidden.device)
    ids, tokens = tile_shape(head.vocab_size, hidden.device)
    for tile in head_tiles(head, ids, scratch, "weight"):
        for part in token_slices(len(hidden), tokens):
            product(tile.weight, hidden[part], scratch)


def tiles(hour: Hour, name: str, inputs: Inputs) -> None:
    """Whether other tiles than those of core/tile_sizes.py would be quicker."""
    head, ref_head = Head(inputs.weight), Head(inputs.ref_weight)
    chosen = tile_shape(head.vocab_size, inputs.hidden.device)
    asked = [chosen, (8192, 2048), (32768, 2048), (16384, 1024), (16384, 4096), (32768, 4096)]
    options: dict[str, Any] = {"ref_hidden": inputs.ref_hidden, "ref_head": ref_head}

    def scored(ids: int, tokens: int) -> Callable[[], object]:
        chunks: dict[str, Any] = {"vocab_chunk": ids, "token_chunk": tokens}
        return lambda: token_stats(inputs.hidden, head, inputs.targets, **options | chunks)

    sides = {f"{ids} x {tokens}": scored(ids, tokens) for ids, tokens in asked[: 2 if hour.small else None]}
    for work in sides.values():
        seconds_of(work)
    taken = interleaved(sides, 3)
    best = min(taken, key=lambda side: taken[side])
    listed = ", ".join(f"{side} {seconds * 1e3:.1f} ms" for side, seconds in taken.items())
    own = taken["{} x {}".format(*chosen)]
    hour.expect(
        f"{name}: tiles over the best ({best})", own / taken[best], most=1.05, unit="x", judged=hour.on_gpu, note=listed
    )
