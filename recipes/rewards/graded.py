"""Partial credit: 1 for the right number, up to 0.5 for a near one, and 0.2 more for a line `Answer: 42`.

    dgpo train data.path=recipes/rewards/problems.jsonl reward.path=recipes/rewards/graded.py:score

`accuracy` counts what is right; `reward/near` and `reward/format` show where the rest of the reward comes from.
"""

import re

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
LINE = re.compile(r"^Answer:\s*(-?\d[\d,]*(?:\.\d+)?)\s*$", re.MULTILINE)


def score(completion: str, answer: str) -> dict[str, float | bool]:
    gold, line = number(answer), LINE.findall(completion)
    found = line or NUMBER.findall(completion)
    right = bool(found) and number(found[-1]) == gold
    distance = abs(number(found[-1]) - gold) / max(1.0, abs(gold)) if found else 1.0
    near = 1.0 if right else 0.5 * max(0.0, 1.0 - distance)
    return {"score": near + 0.2 * bool(line), "correct": right, "near": near, "format": bool(line)}


def number(text: str) -> float:
    return float(text.replace(",", ""))
