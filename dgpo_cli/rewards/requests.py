"""From a completion to a `GradeRequest`, the record that a grader is shown. It is made here alone.

Training, evaluation, `dgpo rollout`, stored completions and a grader's trial all come here, so that a grader sees the
same of a completion whoever asks.
"""

from __future__ import annotations

from dgpo_cli.types import GradeRequest, Prompt, Rollout


def of_rollout(rollout: Rollout) -> GradeRequest:
    """The request for a completion that was just drawn."""
    return of_completion(
        rollout.request.prompt,
        rollout.text,
        truncated=rollout.truncated,
        completion_tokens=rollout.completion_tokens,
        token_ids=rollout.token_ids,
    )


def of_completion(
    prompt: Prompt,
    completion: str,
    *,
    truncated: bool = False,
    completion_tokens: int | None = None,
    token_ids: tuple[int, ...] = (),
) -> GradeRequest:
    """The request for a completion from wherever it came. completion_tokens: None if nobody has counted them."""
    problem = prompt.problem
    return GradeRequest(
        prompt=prompt.text,
        completion=completion,
        gold=problem.gold,
        truncated=truncated,
        completion_tokens=completion_tokens,
        messages=problem.messages,
        columns=problem.columns,
        token_ids=token_ids,
        chat=problem.chat,
    )
