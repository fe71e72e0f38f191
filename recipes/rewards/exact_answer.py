"""Right or wrong: the last number of a completion against the gold answer.

    dgpo train data.path=recipes/rewards/problems.jsonl reward.path=recipes/rewards/exact_answer.py:score

`reward=robust`, the default for a file of your own, reads mathematics far better; this is the form to begin with.
"""

import re

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def score(completion: str, answer: str) -> bool:
    found = NUMBER.findall(completion)
    return bool(found) and number(found[-1]) == number(answer)


def number(text: str) -> float:
    return float(text.replace(",", ""))
