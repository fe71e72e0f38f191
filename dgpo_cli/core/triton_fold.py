# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""The GPU's fold: one Triton kernel that takes the tiles of both models into the running sums.

Owns the kernel and its launch; the arithmetic is the one of `running_stats`, with the sums of a token in registers and
each tile read once. One program a token walks the ids of the tile in a fixed order, without atomics: results do not
depend on the launch. Scale, bias, soft-capping and temperature are applied here, so the product may come straight from
bf16 inputs. Imported only where Triton runs: on a GPU, or in a test through Triton's interpreter (TRITON_INTERPRET=1).
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgpo_cli.core.output_head import HeadTile
from dgpo_cli.core.running_stats import PolicySums, ReferenceSums

_BLOCK = 4096  # ids a program holds at once


def fold_tiles(
    products: Tensor,
    tile: HeadTile,
    targets: Tensor,
    policy: PolicySums,
    unit: float,
    ref_products: Tensor | None = None,
    ref_tile: HeadTile | None = None,
    reference: ReferenceSums | None = None,
) -> None:
    """Fold products weight @ hidden.T [v, n], in any memory order, of one model or of both into their sums [n].

    targets [n] are ids of the whole vocabulary; `unit` as in `running_stats`. The sums must be contiguous, in float32.
    """
    ids, count = products.shape
    if count == 0:
        return
    has_ref = ref_products is not None and ref_tile is not None and reference is not None
    if ref_products is None or ref_tile is None or reference is None:
        # Never read by the kernel: they only have to be there.
        ref_products, ref_tile, reference = products, tile, ReferenceSums(*[policy.max] * 4)
    head, ref_head = tile.head, ref_tile.head
    with torch.cuda.device_of(products) if products.is_cuda else nullcontext():
        _fold[(count,)](
            *(products, *products.stride()),
            *(ref_products, *ref_products.stride()),
            *(tile.bias, ref_tile.bias),
            targets.contiguous(),
            *(policy.max, policy.total, policy.weighted, policy.target, policy.squares),
            *(reference.max, reference.total, reference.target, reference.residual),
            *(ids, tile.start),
            *(head.scale, ref_head.scale, head.softcap or 1.0, ref_head.softcap or 1.0, unit),
            HAS_REF=has_ref,
            CAPPED=head.softcap is not None,
            REF_CAPPED=ref_head.softcap is not None,
            BLOCK=min(_BLOCK, triton.next_power_of_2(ids)),
            num_warps=8,
        )


@triton.jit
def _logits(products, bias, offsets, inside, stride, scale, softcap, unit, CAPPED: tl.constexpr):
    """Logits in half log2 units at `offsets`; a masked -1e30 outside the tile."""
    logits = tl.load(products + offsets * stride, mask=inside, other=0.0) * scale
    if bias is not None:
        logits += tl.load(bias + offsets, mask=inside, other=0.0)
    if CAPPED:
        logits = softcap * (2 * tl.sigmoid(2 * logits / softcap) - 1)
    return tl.where(inside, logits * unit, -1e30)


@triton.jit
def _fold(
    products,
    stride_id,
    stride_token,
    ref_products,
    ref_stride_id,
    ref_stride_token,
    bias,
    ref_bias,
    targets,
    max_p,
    total_p,
    weighted_p,
    target_p,
    squares_p,
    max_q,
    total_q,
    target_q,
    residual_q,
    ids,
    first_id,
    scale,
    ref_scale,
    softcap,
    ref_softcap,
    unit,
    HAS_REF: tl.constexpr,
    CAPPED: tl.constexpr,
    REF_CAPPED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    products += token * stride_token
    ref_products += token * ref_stride_token
    peak, total, weighted = tl.load(max_p + token), tl.load(total_p + token), tl.load(weighted_p + token)
    squares = tl.load(squares_p + token)
    row = tl.load(targets + token) - first_id
    if HAS_REF:
        ref_peak, ref_total, residual = tl.load(max_q + token), tl.load(total_q + token), tl.load(residual_q + token)

    for start in range(0, ids, BLOCK):
        offsets = start + tl.arange(0, BLOCK)
        inside = offsets < ids
        logits = _logits(products, bias, offsets, inside, stride_id, scale, softcap, unit, CAPPED)
        raised = tl.maximum(peak, tl.max(logits, axis=0))
        drop, peak = peak - raised, raised
        logits -= peak
        roots = tl.exp2(logits)
        masses = roots * roots
        added = tl.sum(masses, axis=0)
        rescale = tl.exp2(2 * drop)
        weighted = (weighted + total * drop) * rescale + tl.sum(masses * logits, axis=0)
        others = tl.where(offsets == row, 0.0, masses)
        squares = squares * rescale * rescale + tl.sum(others * others, axis=0)
        before = total * rescale
        total = before + added

        if HAS_REF:
            ref_logits = _logits(
                ref_products, ref_bias, offsets, inside, ref_stride_id, ref_scale, ref_softcap, unit, REF_CAPPED
            )
            ref_raised = tl.maximum(ref_peak, tl.max(ref_logits, axis=0))
            ref_drop, ref_peak = ref_peak - ref_raised, ref_raised
            ref_roots = tl.exp2(ref_logits - ref_peak)
            ref_added = tl.sum(ref_roots * ref_roots, axis=0)
            ref_before = ref_total * tl.exp2(2 * ref_drop)
            norm, ref_norm = tl.sqrt_rn(added), tl.sqrt_rn(ref_added)
            norm_before, ref_norm_before = tl.sqrt_rn(before), tl.sqrt_rn(ref_before)
            both = (norm > 0) & (ref_norm > 0)
            # Equal norms take 1.0 itself: u - 1.0 * v is exactly 0 for equal roots, fused multiply-add or not.
            ratio = tl.where(norm == ref_norm, 1.0, tl.div_rn(norm, tl.where(both, ref_norm, 1.0)))
            gaps = roots - ratio * ref_roots
            inner = 0.5 * tl.sum(gaps * gaps, axis=0) * tl.div_rn(ref_norm, tl.where(both, norm, 1.0))
            between = tl.where(
                (norm == ref_norm) & (norm_before == ref_norm_before),
                0.0,
                norm_before * ref_norm - norm * ref_norm_before,
            )
            ref_total = ref_before + ref_added
            whole = tl.sqrt_rn(total) * tl.sqrt_rn(ref_total) + norm_before * ref_norm_before + norm * ref_norm
            merged = tl.where(whole > 0, tl.div_rn(between * between, tl.where(whole > 0, whole, 1.0)), 0.0)
            residual = residual * tl.exp2(drop + ref_drop) + tl.where(both, inner, 0.0) + merged

    tl.store(max_p + token, peak)
    tl.store(total_p + token, total)
    tl.store(weighted_p + token, weighted)
    tl.store(squares_p + token, squares)
    if HAS_REF:
        tl.store(max_q + token, ref_peak)
        tl.store(total_q + token, ref_total)
        tl.store(residual_q + token, residual)

    if (row >= 0) & (row < ids):
        tl.store(target_p + token, _logits(products, bias, row, row < ids, stride_id, scale, softcap, unit, CAPPED))
        if HAS_REF:
            ref_target = _logits(
                ref_products, ref_bias, row, row < ids, ref_stride_id, ref_scale, ref_softcap, unit, REF_CAPPED
            )
            tl.store(target_q + token, ref_target)
