"""Token credit in TRL's GRPOTrainer: the advantages [B] of a batch become [B, T], each token's share by dgpo's credit.

    trainer = CreditTrainer("Qwen/Qwen2.5-0.5B-Instruct", reward_funcs=..., args=GRPOConfig(...), train_dataset=...)

Without `reference` a token earns by its surprisal (s = -log p * H, over its own 80th percentile, tau 1). With one it
earns by DGPO's rule as publicly understood (s = d * H, tau 0.5): that costs a second model in memory and a pass more.
trl 1.16.0 takes advantages [B, T] in every loss that multiplies a token by its advantage, `grpo`, `dapo`, `bnpo`,
`dr_grpo` and `cispo` among them. `tests/recipes/test_trl_token_credit.py` holds its loss against dgpo's. Single process
and DDP: the passes here run the model as it is, so weights sharded by DeepSpeed or FSDP are not gathered.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from dgpo_cli.core.credit import TokenSignals, gated_score, map_rows, saturate, softmax_credit
from dgpo_cli.core.token_stats import stats_from_logits


class CreditTrainer(GRPOTrainer):
    """GRPO whose tokens carry credit; see above. `reference`: a model with the policy's tokenizer, or None."""

    def __init__(self, *args: Any, reference: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reference = None if reference is None else reference.to(self.accelerator.device).eval()

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        policy = self.accelerator.unwrap_model(self.model)
        signals = signals_of(policy, self.reference, output, temperature=self.temperature)
        output["advantages"] = output["advantages"][:, None] * credit_of(signals, policy.config.vocab_size)
        return output


def credit_of(signals: TokenSignals, vocabulary_size: int) -> Tensor:
    """w >= 0 [B, T] with mean 1 over each completion's counted tokens; 0 beyond them."""
    has_reference = signals.hellinger is not None
    name, temperature = ("hellinger", 0.5) if has_reference else ("surprisal", 1.0)
    score = gated_score(signals, signal=name, entropy_exponent=1.0, vocabulary_size=vocabulary_size)
    if not has_reference:
        score = saturate(score, float(score[signals.mask].quantile(0.8)) if bool(signals.mask.any()) else 0.0)
    return map_rows(score, signals.mask, lambda row, _: softmax_credit(row, temperature))


@torch.no_grad()
def signals_of(policy: Any, reference: Any, batch: dict[str, Any], *, temperature: float) -> TokenSignals:
    """Log-prob, entropy and, with a reference, the distance of each counted token. One sequence's logits at a time."""
    mask = batch["completion_mask"].bool()  # [B, T], True on the first tokens of a row
    names = ("logprobs", "entropy", "ref_logprobs", "hellinger")[: 2 if reference is None else 4]
    values = {name: torch.zeros(mask.shape, device=mask.device) for name in names}
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        if not length:
            continue
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        targets = batch["completion_ids"][row, :length]
        whole = torch.cat([prompt, targets])[None]
        logits, ref_logits = (
            None if model is None else model(input_ids=whole).logits[0, -length - 1 : -1].float()
            for model in (policy, reference)
        )
        stats = stats_from_logits(logits, targets, temperature=temperature, ref_logits=ref_logits)
        for name, table in values.items():
            table[row, :length] = getattr(stats, name)
    assert all(math.isfinite(float(table.sum())) for table in values.values())
    return TokenSignals(mask, **values)
