"""Token credit as an advantage estimator of verl: GRPO's advantages, spread over the tokens by dgpo's credit.

    import verl_advantage as credit       # with recipes/ on the path: registers `dgpo_credit` where verl is installed
    ray_trainer.compute_advantage = credit.with_batch(ray_trainer.compute_advantage)
    # then: algorithm.adv_estimator=dgpo_credit

verl calls an estimator with token_level_rewards, response_mask, index and config, and gives log-probs to estimators of
its own alone. `with_batch` therefore keeps the batch at hand while verl computes advantages: old_log_probs, and with a
reference ref_log_prob; it has to be set in the process that runs the trainer. The signature is that of verl at commits
012be9d (core_algos.py) and 0040110 (ray_trainer.py); this has not run inside verl.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.core.advantages import advantages_of_groups
from dgpo_cli.core.credit import TokenSignals, gated_score, map_rows, saturate, softmax_credit

NAME = "dgpo_credit"
_batch: ContextVar[Mapping[str, Tensor] | None] = ContextVar("batch", default=None)


def with_batch(compute_advantage: Callable[..., Any]) -> Callable[..., Any]:
    """verl's compute_advantage(data, ...), with data.batch at hand for `dgpo_credit`."""

    def computed(data: Any, *args: Any, **kwargs: Any) -> Any:
        token = _batch.set(data.batch)
        try:
            return compute_advantage(data, *args, **kwargs)
        finally:
            _batch.reset(token)

    return computed


@torch.no_grad()
def dgpo_credit(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: Any = None,
    config: Any = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns [B, T]: A[i] * w[i, t], 0 beyond the mask. `index` [B] names the group of each response.

    A group of one has A = 0. The score of a token is its surprisal, or with ref_log_prob the k3 of policy and
    reference, over its own 80th percentile; w = T softmax(score).

    Raises:
        ValueError: no log-probs are at hand (`with_batch`), or no index.
    """
    batch = _batch.get()
    if batch is None or "old_log_probs" not in batch.keys():  # noqa: SIM118 (a TensorDict refuses `in`)
        raise ValueError("dgpo_credit needs old_log_probs: compute_advantage = with_batch(compute_advantage)")
    if index is None:
        raise ValueError("dgpo_credit needs uid in non_tensor_batch: the group of each response")
    rows: dict[Any, list[int]] = {}
    for row, group in enumerate(index):
        rows.setdefault(group, []).append(row)
    by_std = config is None or bool(config.get("norm_adv_by_std_in_grpo", True))
    rewards: list[float | None] = list(token_level_rewards.sum(dim=1).tolist())
    found = advantages_of_groups(rewards, list(rows.values()), scale="group" if by_std else "none")
    advantages = torch.tensor([value or 0.0 for value in found], device=response_mask.device)
    shared = advantages[:, None] * _credit(response_mask.bool(), batch)
    return shared, shared


def _credit(mask: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """w >= 0 [B, T] with mean 1 over each response's counted tokens, which may have others between them."""
    has_reference = "ref_log_prob" in batch.keys()  # noqa: SIM118
    packed, back = _to_the_left(mask)
    signals = TokenSignals(
        packed,
        _left(batch["old_log_probs"].float(), back, packed),
        torch.zeros_like(packed, dtype=torch.float32),
        _left(batch["ref_log_prob"].float(), back, packed) if has_reference else None,
    )
    name = "kl" if has_reference else "surprisal"
    score = gated_score(signals, signal=name, entropy_exponent=0.0, vocabulary_size=2)
    score = saturate(score, float(score[packed].quantile(0.8)) if bool(packed.any()) else 0.0)
    weights = map_rows(score, packed, lambda row, _: softmax_credit(row, 1.0))
    return torch.zeros_like(weights).scatter(1, back, weights)


def _to_the_left(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The mask with each row's counted tokens first, and the column [B, T] that each comes from."""
    back = torch.argsort((~mask).int(), dim=1, stable=True)
    return mask.gather(1, back), back


def _left(values: Tensor, back: Tensor, packed: Tensor) -> Tensor:
    return torch.where(packed, values.gather(1, back), 0.0)


try:
    from verl.trainer.ppo.core_algos import register_adv_est
except ImportError:  # without verl the function can be called all the same
    pass
else:
    register_adv_est(NAME)(dgpo_credit)
