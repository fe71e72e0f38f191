"""What `dgpo help reward.path` says beyond the key's own line: the contract, and a function to copy."""

from __future__ import annotations

CONTRACT = """
Called once for each completion, in a process of its own (reward.workers), with a deadline (reward.timeout_seconds).

  prompt, completion, answer   by place, whatever they are called: text as the model saw it, what it wrote, the gold
  messages                     further parameters by name: the row's turns before any template
  truncated                    whether the completion was cut off at its limit
  completion_tokens            its length, the stop token included
  row                          the whole row of the data
  any other name               that column of the data; its default, or None, in a row without it

It returns a number; or True or False, for right or wrong; or (number, correct); or a dict with score, correct and parts
by name, which are logged as reward/NAME. It may be async. What raises, or returns anything else, ends the run.

A function that names prompts or completions gets lists, for all completions of a prompt, and returns a list with a
reward or None for each: TRL's reward functions run unchanged. If a row's prompt is a list of messages, completions are
messages too.

Several: reward.path=[robust,my_reward.py:brief] reward.weights=[1,0.2] is a weighted sum, each logged as reward/NAME.

To copy, as my_reward.py:

  def score(prompt, completion, answer):
      right = completion.strip().endswith(answer)
      short = len(completion) < 400
      return {"score": right + 0.1 * short, "correct": right, "short": short}

  dgpo rollout grade=completions.jsonl reward.path=my_reward.py:score     tries it without a model
  dgpo train data.path=my.jsonl reward.path=my_reward.py:score

recipes/rewards has more: exact, graded, code that is run, a judge, length; docs/rewards.md explains them.
"""
MORE = {"reward.path": CONTRACT}
