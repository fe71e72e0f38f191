"""Run by test_trl_token_credit.py where TRL is: the loss of recipes/trl_token_credit.py beside that of dgpo, as JSON.

Two steps of training with two iterations each, so that the ratios of the second are not 1. For every loss that TRL
computes: TRL's number, dgpo's for the same log-probs, weights and advantages, the relative distance of the gradients,
and loss and distance without credit.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from model_factory import save_random_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig  # type: ignore[import-not-found]
from trl_token_credit import CreditTrainer, credit_of, signals_of  # type: ignore[import-not-found]

from dgpo_cli.core.policy_loss import policy_loss, token_weights


class Watched(CreditTrainer):
    """Computes each loss twice: by TRL, and by dgpo."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.seen: list[dict[str, float]] = []
        super().__init__(*args, **kwargs)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        loss = super()._compute_loss(model, inputs)
        mask = inputs["completion_mask"].bool()
        counts = mask.sum(dim=1)
        shared = inputs["advantages"]  # [B, T]
        advantages = shared.sum(dim=1) / counts  # credit has mean 1
        factors = torch.where(advantages[:, None].abs() > 1e-6, shared / advantages[:, None], 1.0)
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        logprobs = self._get_per_token_logps_and_entropies(model, ids, attention, mask.shape[1])[0]
        old = inputs.get("old_per_token_logps")
        old = logprobs.detach() if old is None else old
        weights = token_weights(counts, aggregation="rollout_mean", max_tokens=1)[:, None]
        ours, plain = (
            (policy_loss(logprobs, old, advantages, w, mask, clip_low=0.2, clip_high=0.2).token_loss * weights).sum()
            for w in (factors, torch.ones_like(factors))
        )
        parameters = [one for one in model.parameters() if one.requires_grad]
        theirs_grad, ours_grad, plain_grad = (
            torch.cat([grad.flatten() for grad in torch.autograd.grad(value, parameters, retain_graph=True)])
            for value in (loss, ours, plain)
        )
        self.seen.append(
            {
                "trl": float(loss.detach()),
                "dgpo": float(ours.detach()),
                "without_credit": float(plain.detach()),
                "gradient_distance": float((theirs_grad - ours_grad).norm() / ours_grad.norm()),
                "gradient_distance_without_credit": float((plain_grad - ours_grad).norm() / ours_grad.norm()),
                "largest_ratio": float((logprobs - old).detach().exp()[mask].max()),
                "largest_weight": float(factors[mask].max()),
                "from_signals": self._distance_of_credit(inputs, factors, mask) if not len(self.seen) else 0.0,
            }
        )
        return loss

    def _distance_of_credit(self, inputs: dict[str, Any], factors: Any, mask: Any) -> float:
        """Before the first update the model is the one that drew: credit comes out again."""
        signals = signals_of(self.model, self.reference, inputs, temperature=self.temperature)
        credit = credit_of(signals, self.model.config.vocab_size)
        rows = (inputs["advantages"].abs().sum(dim=1) > 1e-6)[:, None] & mask
        return float((factors - credit)[rows].abs().max())


def main(folder: Path) -> dict[str, Any]:
    paths = [save_random_model(folder / str(seed), seed=seed, scale=1.0) for seed in (1, 2)]
    tokenizer = AutoTokenizer.from_pretrained(paths[0], padding_side="left")
    found = {}
    for name in ("surprisal", "hellinger"):
        arguments = GRPOConfig(
            output_dir=str(folder / "out"),
            per_device_train_batch_size=8,
            num_generations=4,
            num_iterations=2,
            max_steps=4,
            max_completion_length=12,
            learning_rate=1e-2,
            max_grad_norm=0.0,
            loss_type="grpo",
            beta=0.0,
            temperature=0.9,
            use_cpu=True,
            bf16=False,
            report_to=[],
            log_completions=True,
            logging_steps=2,
            seed=3,
        )
        trainer = Watched(
            AutoModelForCausalLM.from_pretrained(paths[0]),
            reward_funcs=[lambda completions, **_: [float(len(set(text)) % 5) for text in completions]],
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": f"{number} + 1 ="} for number in range(8)]),
            processing_class=tokenizer,
            reference=AutoModelForCausalLM.from_pretrained(paths[1]) if name == "hellinger" else None,
        )
        trainer.train()
        found[name] = trainer.seen
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        result = main(Path(made))
        completions = sorted(Path(made).glob("out/completions/*.parquet"))
        if len(sys.argv) > 1:
            Path(sys.argv[1]).write_bytes(completions[-1].read_bytes())
    print("RESULT", json.dumps(result))
