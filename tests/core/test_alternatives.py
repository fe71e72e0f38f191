"""The likeliest tokens, streamed over tiles, against a full softmax in float64."""

from __future__ import annotations

import pytest
import torch
from core.dense_reference import dense_logits
from torch import Tensor

from dgpo_cli.core.alternatives import (
    Alternatives,
    alternatives_from_logits,
    from_columns,
    to_columns,
    token_alternatives,
    width,
)
from dgpo_cli.core.token_stats import Head

N, D, V, K = 23, 8, 101, 5


def head_of(seed: int, **options: object) -> Head:
    draw = torch.Generator().manual_seed(seed)
    bias = torch.randn(V, generator=draw)
    bias[7] = -torch.inf  # an id that the vocabulary does not have
    return Head(torch.randn(V, D, generator=draw), bias, **options)  # type: ignore[arg-type]


def check(found: Alternatives, logits: Tensor, ref_logits: Tensor | None, targets: Tensor, temperature: float) -> None:
    """Ids, both probabilities and ranks of both models by a full softmax."""
    log_p = torch.log_softmax(logits / temperature, dim=-1)
    log_q = None if ref_logits is None else torch.log_softmax(ref_logits / temperature, dim=-1)
    for top, own in ((found.policy, log_p), (found.reference, log_q)):
        if own is None:
            assert top is None
            continue
        assert top is not None
        assert top.ids.tolist() == own.topk(K, dim=1).indices.tolist()
        assert torch.allclose(top.logprobs.double(), log_p.gather(1, top.ids), atol=1e-5)
        if log_q is not None and top.ref_logprobs is not None:
            assert torch.allclose(top.ref_logprobs.double(), log_q.gather(1, top.ids), atol=1e-5)
        ranks = 1 + (own > own.gather(1, targets[:, None])).sum(1)
        assert top.rank.tolist() == ranks.tolist()
        assert ranks.min() <= K < ranks.max()  # both ways of counting


@pytest.mark.parametrize("chunks", [(None, None), (17, 4), (3, 23)], ids=str)
@pytest.mark.parametrize("options", [{}, {"softcap": 3.0, "scale": 0.5}], ids=["plain", "softcap"])
def test_ids_probabilities_and_ranks_are_those_of_a_full_softmax(
    chunks: tuple[int | None, int | None], options: dict[str, float]
) -> None:
    draw = torch.Generator().manual_seed(0)
    hidden, ref_hidden = torch.randn(N, D, generator=draw), torch.randn(N, D, generator=draw)
    targets = torch.randint(0, V, (N,), generator=draw)
    targets[targets == 7] = 8
    head, ref_head = head_of(1, **options), head_of(2, **options)
    targets[0] = dense_logits(hidden, head)[0].argmax()  # likely ones, too
    targets[1] = dense_logits(ref_hidden, ref_head)[1].argmax()
    found = token_alternatives(
        hidden,
        head,
        targets,
        count=K,
        temperature=0.7,
        ref_hidden=ref_hidden,
        ref_head=ref_head,
        vocab_chunk=chunks[0],
        token_chunk=chunks[1],
    )
    logits, ref_logits = dense_logits(hidden, head), dense_logits(ref_hidden, ref_head)
    check(found, logits, ref_logits, targets, 0.7)
    check(
        alternatives_from_logits(logits, targets, count=K, temperature=0.7, ref_logits=ref_logits),
        logits,
        ref_logits,
        targets,
        0.7,
    )
    alone = token_alternatives(hidden, head, targets, count=K, temperature=0.7, vocab_chunk=chunks[0])
    check(alone, logits, None, targets, 0.7)


def test_equal_logits_share_the_better_rank_and_a_small_vocabulary_is_shown_whole() -> None:
    logits = torch.tensor([[2.0, 2.0, 1.0], [0.0, 1.0, -torch.inf]])
    found = alternatives_from_logits(logits, torch.tensor([1, 2]), count=K).policy
    assert found.ids.shape == (2, 3)
    assert found.rank.tolist() == [1, 3]
    weight = torch.eye(3)
    streamed = token_alternatives(logits[:1], Head(weight), torch.tensor([2]), count=2, vocab_chunk=1).policy
    assert streamed.rank.tolist() == [3]
    assert sorted(streamed.ids[0].tolist()) == [0, 1]


@pytest.mark.parametrize("has_reference", [False, True])
def test_columns_hold_what_was_found(has_reference: bool) -> None:
    logits = torch.randn(4, 300_000, generator=torch.Generator().manual_seed(3))
    reference = logits.flip(1) if has_reference else None
    found = alternatives_from_logits(logits, torch.tensor([0, 1, 2, 299_999]), count=K, ref_logits=reference)
    columns = to_columns(found)
    assert columns.shape == (4, width(K, has_reference=has_reference))
    again = from_columns(columns, has_reference=has_reference)
    for before, after in ((found.policy, again.policy), (found.reference, again.reference)):
        for name in ("ids", "logprobs", "ref_logprobs", "rank"):
            one, other = (getattr(top, name, None) for top in (before, after))
            assert (one is None) == (other is None), name
            assert one is None or other is None or torch.equal(one, other), name
