"""Verdicts as a person would say them: one sentence for each, and one for several pairs of which the same is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dgpo_cli.reporting.comparison import Pair
from dgpo_cli.reporting.tables import confidence, interval, p_text, points

NONE_SEEN = "no difference seen"


@dataclass(frozen=True)
class Sentence:
    """`parts` are words and names in turn, a word first: names are shown as such."""

    verdict: str
    parts: tuple[str, ...]
    figures: str  # interval and p-value
    pairs: tuple[int, ...]  # the places of the pairs that it is about


def gap_text(difference: float) -> str:
    """A difference without its sign: `3.1 points`; of none at all that none is seen."""
    return NONE_SEEN if difference == 0 else f"{points(difference).lstrip('+-')} points"


def sentences(pairs: Sequence[Pair], alpha: float) -> list[Sentence]:
    """Of all pairs, in the order in which each verdict comes first.

    What is better or worse is said of each b with all that it is held against, and anything else of all pairs at once.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for place, pair in enumerate(pairs):
        about = pair.b.label if pair.verdict in ("better", "worse") else ""
        groups.setdefault((pair.verdict, about), []).append(place)
    return [
        _alone(pairs[own[0]], own[0], len(pairs), alpha) if len(own) == 1 else _several(pairs, own, alpha)
        for own in groups.values()
    ]


def _alone(pair: Pair, place: int, count: int, alpha: float) -> Sentence:
    before, after = _said(pair)
    decision, result = pair.decision, pair.result
    at = f"{confidence(decision.level)} {interval(decision.interval, signed=True)} · " if decision.interval else ""
    holm = f", after Holm {p_text(decision.p_holm, alpha)}" if count > 1 else ""
    figures = f"{at}p {p_text(result.p_value, decision.level)}{holm}"
    return Sentence(pair.verdict, ("", pair.b.label, f" {before} ", pair.a.label, after), figures, (place,))


def _said(pair: Pair) -> tuple[str, str]:
    """What stands before the name of a, and what after it."""
    gap = gap_text(pair.result.difference)
    if pair.verdict in ("better", "worse"):
        return f"is {pair.verdict} than", f" by {gap}"
    if pair.seeds_needed is not None:
        needed = f"so few seeds cannot show anything: {pair.seeds_needed} a side are needed"
        return ("and", f": {gap}, and {needed}") if gap == NONE_SEEN else ("differs from", f" by {gap}, but {needed}")
    detectable = pair.result.minimum_detectable
    missed = f"; a true one of less than about {100 * detectable:.1f} would often be missed" if detectable else ""
    shown = gap if gap == NONE_SEEN else f"a difference of {gap}"
    return "cannot be told from", f" ({shown}{missed})"


def _several(pairs: Sequence[Pair], places: list[int], alpha: float) -> Sentence:
    own = [pairs[place] for place in places]
    smallest = min(pair.p_holm for pair in own)
    figures = f"smallest p after Holm {p_text(smallest, alpha)}"
    verdict = own[0].verdict
    if verdict in ("better", "worse"):
        parts = ["", own[0].b.label, f" is {verdict} than "]
        for number, pair in enumerate(own):
            joint = "" if number == len(own) - 1 else " and than " if number == len(own) - 2 else ", than "
            parts += [pair.a.label, f" by {gap_text(pair.result.difference)}{joint}"]
        return Sentence(
            verdict, tuple(parts), f"largest p after Holm {p_text(max(p.p_holm for p in own), alpha)}", tuple(places)
        )
    found = [pair.result.difference for pair in own]
    spread = NONE_SEEN if not any(found) else f"differences from {points(min(found))} to {points(max(found))} points"
    names = list(dict.fromkeys(label for pair in own for label in (pair.a.label, pair.b.label)))
    among = f"{_all(len(own), len(names))} pairs of"
    if own[0].seeds_needed is not None:
        end = f": {spread}, but so few seeds cannot show anything: {own[0].seeds_needed} a side are needed"
        return Sentence(verdict, (f"In {among} ", *_listed(names), end), figures, tuple(places))
    detectable = [pair.result.minimum_detectable for pair in own]
    known = [one for one in detectable if one]
    missed = f"; a true one of less than about {100 * max(known):.1f} would often be missed" if known else ""
    end = f" one cannot be told from the other ({spread}{missed})"
    return Sentence(verdict, (f"In {among} ", *_listed(names), end), figures, tuple(places))


def _all(pairs: int, names: int) -> str:
    return f"all {pairs}" if pairs == names * (names - 1) // 2 else str(pairs)


def _listed(names: Sequence[str]) -> list[str]:
    """Names and what stands between them, a name first and last."""
    parts: list[str] = []
    for number, name in enumerate(names):
        parts += ([", " if number < len(names) - 1 else " and "] if number else []) + [name]
    return parts
