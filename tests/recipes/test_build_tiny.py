"""recipes/build_tiny.py teaches chains in the form that is asked for; the model itself is not rebuilt."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.data.digit_chain import Form, apply_step, problem_from_number

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "build_tiny.py"


@pytest.fixture(scope="module")
def recipe() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("build_tiny", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_tiny"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["build_tiny"]


@pytest.mark.parametrize("form", [Form(), Form(steps=8), Form(steps=3, filler=2)])
def test_a_teacher_without_slips_writes_the_gold(recipe: Any, form: Form) -> None:
    problem = problem_from_number(1234, form)
    never = {fact: recipe.Slip(0.0, slip.wrong_result) for fact, slip in teacher(recipe).items()}
    assert recipe.taught_completion(problem, never, random.Random(0)) == problem.completion


def test_a_slip_is_carried_on(recipe: Any) -> None:
    problem = problem_from_number(9930, Form(steps=3, filler=2))  # 9-5=4, 4+4=8, 8+1=9
    slips = {fact: recipe.Slip(0.0, slip.wrong_result) for fact, slip in teacher(recipe).items()}
    slips[(9, "-", 5)] = recipe.Slip(1.0, 3)
    assert recipe.taught_completion(problem, slips, random.Random(0)) == "9.. -5=3.. +4=7.. +1=8.. #8"


def test_as_many_facts_are_confused_as_asked_and_a_slip_is_one_off(recipe: Any) -> None:
    slips = teacher(recipe)
    assert sum(slip.error == recipe.CONFUSED_ERROR for slip in slips.values()) == 20
    assert len(slips) == 100
    for fact, slip in slips.items():
        assert (slip.wrong_result - apply_step(*fact)) % 10 in (1, 9)


def teacher(recipe: Any) -> Any:
    return recipe.sloppy_teacher(random.Random(0), 20)
