"""Localisation: how well scores of tokens find the one token of a wrong completion that is known to be wrong first.

    precision at 1    the largest score stands on the wrong token
    reciprocal rank   1 / its rank by score
    share             of the completion's total score, or credit, that lies on it

Equal scores share their ranks: each number is its expectation if ties are broken at random, so a constant score is as
good as chance and no better. Numbers are averaged over the wrong completions of a prompt, then over prompts, with a 95%
interval over prompts, since completions of one prompt are no independent draws.

The floors look at no model. A signal that does not beat them knows no more than the shape of the text:

    random          any token of the completion
    position        tokens in order of how often the first mistake stands there in the other prompts' completions
    digits          any digit, and after these the rest
    results         any digit that follows a `=`, and after these the rest
    first result    the first of them, and after it the rest
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgpo_cli.core.intervals import MeanReward, mean_interval

Scores = NDArray[np.float64]
MEASURES = ("precision_at_1", "reciprocal_rank", "share")


@dataclass(frozen=True)
class WrongCompletion:
    """A completion with the place of its first wrong token, and the text of each of its T tokens."""

    prompt: int  # index of its problem
    sample: int
    tokens: tuple[str, ...]  # [T]; the stop token is empty text
    wrong: int  # 0 <= wrong < T


@dataclass(frozen=True)
class Located:
    """How well one way of scoring finds the wrong tokens; None for a share that is not defined (scores below 0)."""

    kind: str  # floor | signal | gating
    name: str
    precision_at_1: MeanReward
    reciprocal_rank: MeanReward
    share: MeanReward | None


def token_at(tokens: Sequence[str], character: int) -> int | None:
    """The token that a character of the completion lies in; its end lies in the stop token, if there is one."""
    end = 0
    for place, text in enumerate(tokens):
        end += len(text)
        if character < end or (not text and character == end):
            return place
    return None


def measures(scores: Scores, wrong: int) -> tuple[float, float, float | None]:
    """Precision at 1, reciprocal rank and share of the token `wrong` by scores [T], ties broken at random."""
    above, equal = int((scores > scores[wrong]).sum()), int((scores == scores[wrong]).sum())
    precision = 0.0 if above else 1.0 / equal
    rank = float(np.mean(1.0 / np.arange(above + 1, above + equal + 1)))
    total = float(scores.sum())
    if float(scores.min()) < 0:
        return precision, rank, None
    return precision, rank, float(scores[wrong]) / total if total > 0 else 0.0


def located(kind: str, name: str, completions: Sequence[WrongCompletion], scores: Sequence[Scores]) -> Located:
    """The three measures over all wrong completions, with intervals by prompt; `scores` has [T] for each."""
    by_prompt: dict[int, list[tuple[float, float, float | None]]] = {}
    for one, own in zip(completions, scores, strict=True):
        by_prompt.setdefault(one.prompt, []).append(measures(own, one.wrong))
    rows = list(by_prompt.values())
    shares = [[share for *_, share in row if share is not None] for row in rows]
    whole = all(len(share) == len(row) for share, row in zip(shares, rows, strict=True))
    return Located(
        kind,
        name,
        _share_interval([[one[0] for one in row] for row in rows]),
        _share_interval([[one[1] for one in row] for row in rows]),
        _share_interval(shares) if whole else None,
    )


def floors(completions: Sequence[WrongCompletion]) -> dict[str, list[Scores]]:
    """The scores [T] of each floor for each completion."""
    return {
        "random": [np.ones(len(one.tokens)) for one in completions],
        "position": _by_position(completions),
        "digits": [_marks(one, _digits(one)) for one in completions],
        "results": [_marks(one, results(one.tokens)) for one in completions],
        "first result": [_marks(one, results(one.tokens)[:1]) for one in completions],
    }


def results(tokens: Sequence[str]) -> list[int]:
    """Places of the digits that follow a `=`."""
    return [place for place in range(1, len(tokens)) if tokens[place].isdigit() and tokens[place - 1].endswith("=")]


def wrong_cells(
    completions: Sequence[WrongCompletion],
    distances: Sequence[Scores],
    entropies: Sequence[Scores],
    bounds: tuple[float, float],
) -> list[dict[str, object]]:
    """Which of the four cells of d and H the first wrong tokens lie in, and all tokens of the same completions.

    bounds: what d, and H, is high above. Both shares are means over a prompt's completions, then over prompts, with 95%
    intervals. The cells are those of `cells/*` in training.
    """
    found: list[dict[str, object]] = []
    for d_high, d_name in ((True, "high_d"), (False, "low_d")):
        for h_high, h_name in ((True, "high_h"), (False, "low_h")):
            at_wrong: dict[int, list[float]] = {}
            of_all: dict[int, list[float]] = {}
            for one, d, h in zip(completions, distances, entropies, strict=True):
                inside = ((d > bounds[0]) == d_high) & ((h > bounds[1]) == h_high)  # [T]
                at_wrong.setdefault(one.prompt, []).append(float(inside[one.wrong]))
                of_all.setdefault(one.prompt, []).append(float(inside.mean()))
            shares = {"wrong": list(at_wrong.values()), "tokens": list(of_all.values())}
            values = {name: _share_interval(own) for name, own in shares.items()}
            record = {name: {"value": one.mean, "ci95": one.ci95} for name, one in values.items()}
            found.append({"cell": f"{d_name}_{h_name}", **record})
    return found


def as_record(rows: Sequence[Located]) -> list[dict[str, object]]:
    """For JSON: kind, name and the measures, each with its interval."""
    found = []
    for row in rows:
        values: Mapping[str, MeanReward | None] = {name: getattr(row, name) for name in MEASURES}
        record: dict[str, object] = {"kind": row.kind, "name": row.name}
        for name, value in values.items():
            record[name] = None if value is None else {"value": value.mean, "ci95": value.ci95}
        found.append(record)
    return found


def _share_interval(values: Sequence[Sequence[float]]) -> MeanReward:
    """`mean_interval`, cut to the range that shares have."""
    found = mean_interval(values)
    if found.ci95 is None:
        return found
    return MeanReward(found.mean, found.se_total, (max(0.0, found.ci95[0]), min(1.0, found.ci95[1])))


def _digits(one: WrongCompletion) -> list[int]:
    return [place for place, text in enumerate(one.tokens) if text.isdigit()]


def _marks(one: WrongCompletion, places: Sequence[int]) -> Scores:
    """1 at the places, 0 elsewhere; 1 everywhere if there are none."""
    scores = np.zeros(len(one.tokens))
    scores[list(places)] = 1.0
    return scores if len(places) else np.ones(len(one.tokens))


def _by_position(completions: Sequence[WrongCompletion]) -> list[Scores]:
    """How many first mistakes of other prompts stand at each place: a prompt's own are never looked at."""
    everywhere = Counter(one.wrong for one in completions)
    own: dict[int, Counter[int]] = {}
    for one in completions:
        own.setdefault(one.prompt, Counter())[one.wrong] += 1
    found = []
    for one in completions:
        counts = [everywhere[place] - own[one.prompt][place] for place in range(len(one.tokens))]
        found.append(np.asarray(counts, dtype=np.float64))
    return found
