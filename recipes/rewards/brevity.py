"""A length shaping: 0 up to TARGET tokens, then falling in a line to -1 at LIMIT.

    dgpo train data.path=recipes/rewards/problems.jsonl "reward=[robust,recipes/rewards/brevity.py:brevity]" \
        "reward.weights=[1,0.2]"

Beside a reward of right and wrong with a smaller weight, so that a short wrong answer never beats a long right one.
Set LIMIT to rollout.max_completion_tokens.
"""

TARGET, LIMIT = 256, 1024


def brevity(completion_tokens: int | None, completion: str) -> float:
    length = len(completion.split()) if completion_tokens is None else completion_tokens  # a server may not count
    return -min(1.0, max(0, length - TARGET) / (LIMIT - TARGET))
