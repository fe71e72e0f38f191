"""Completions on a terminal, each token shaded by its credit."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

STRONGEST = 3
# Blue below 1, orange above: readable by the colour-blind, and 1 itself stays plain.
BELOW = ((0.5, "white on #1f4e9e"), (0.8, "white on #4f7fc4"), (0.98, "black on #b8cdea"))
ABOVE = ((2.0, "black on #e66101"), (1.25, "black on #f4a259"), (1.02, "black on #fbe0c3"))


def print_rollouts(records: list[dict[str, Any]], console: Console) -> None:
    """Every rollout with its prompt, verdict and tokens. Without colours the strongest tokens are named instead."""
    last_prompt = None
    for record in records:
        if record["prompt_id"] != last_prompt:
            last_prompt = record["prompt_id"]
            console.print(Text(f"\nprompt {last_prompt}", style="bold"))
            console.print(Text(visible(record["prompt"])))
        console.print(_headline(record))
        console.print(_completion(record))
        if record.get("credit") is not None:
            console.print(Text(f"  {_strongest(record)}", style="dim"))


def visible(text: str) -> str:
    """Text as it is, with what a terminal would act on made visible."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def _headline(record: dict[str, Any]) -> Text:
    if record["reward"] is None:
        verdict = "not graded"
    else:
        mark = {True: "right", False: "wrong", None: "scored"}[record["correct"]]
        verdict = f"{mark}, reward {record['reward']:.3g}, advantage {record['advantage']:+.3f}"
    cause = f" ({record['error']})" if record["error"] else ""
    ending = "" if record["finish_reason"] == "stop" else ", cut at the limit"
    style = {True: "green", False: "red", None: "bold"}[record["correct"]]
    return Text(f"  sample {record['sample']}: {verdict}{cause}{ending}", style=style)


def _completion(record: dict[str, Any]) -> Text:
    text = Text("  ")
    credit = record.get("credit")
    for place, token in enumerate(record["tokens"]):
        weight = 1.0 if credit is None or place >= len(credit) else credit[place]
        text.append(visible(token), style=shade(weight))
    return text


def shade(weight: float) -> str:
    """The style of a credit: plain near 1, stronger with the distance from it."""
    for bound, style in BELOW:
        if weight < bound:
            return style
    for bound, style in ABOVE:
        if weight > bound:
            return style
    return ""


def _strongest(record: dict[str, Any]) -> str:
    credit = record["credit"]
    order = sorted(range(len(credit)), key=lambda place: (-credit[place], place))[:STRONGEST]
    named = ", ".join(f"{visible(record['tokens'][place])!r} at {place} ({credit[place]:.3f})" for place in order)
    return f"credit {min(credit):.3f} to {max(credit):.3f}; most on {named}"
