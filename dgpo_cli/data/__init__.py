"""Prompts: from the bundled task, from files and from the hub; templates and tokenisation."""

from dgpo_cli.data.problems import ProblemSet, load_problem_set, load_problems
from dgpo_cli.data.prompts import make_prompts

__all__ = ["ProblemSet", "load_problem_set", "load_problems", "make_prompts"]
