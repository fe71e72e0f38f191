"""The bundled task: grammar, generator, and the exact place of the first mistake."""

import re

import pytest

from dgpo_cli.data.digit_chain import (
    HELD_OUT_COUNT,
    Form,
    Problem,
    apply_step,
    first_wrong_index,
    held_out_problems,
    problem_from_number,
    training_problems,
)

GOLD = "9 -5=4 +4=8 +1=9 +1=0 -4=6 #6"


def test_problem_is_the_hand_worked_example() -> None:
    # Start 9, then codes 9 (-5), 3 (+4), 0 (+1), 0 (+1), 8 (-4): 9-5=4, 4+4=8, 8+1=9, 9+1=10 -> 0, 0-4=-4 -> 6.
    assert problem_from_number(993008) == Problem("9 -5=? +4=? +1=? +1=? -4=?", GOLD, "6")


def test_first_and_last_numbers_are_problems_and_their_neighbours_are_not() -> None:
    assert problem_from_number(0) == Problem("0 +1=? +1=? +1=? +1=? +1=?", "0 +1=1 +1=2 +1=3 +1=4 +1=5 #5", "5")
    assert problem_from_number(999_999).prompt == "9 -5=? -5=? -5=? -5=? -5=?"
    for number in (-1, Form().problem_count):
        with pytest.raises(ValueError, match="from 0 to 999999"):
            problem_from_number(number)


@pytest.mark.parametrize(("fact", "result"), [((9, "+", 1), 0), ((7, "+", 5), 2), ((0, "-", 1), 9), ((2, "-", 4), 8)])
def test_steps_wrap_mod_10(fact: tuple[int, str, int], result: int) -> None:
    assert apply_step(*fact) == result


def test_every_problem_follows_the_grammar_with_slots_of_equal_width() -> None:
    for problem in held_out_problems():
        assert re.fullmatch(r"\d( [+-][1-5]=\?){5}", problem.prompt)
        assert re.fullmatch(r"\d( [+-][1-5]=\d){5} #\d", problem.completion)
        # The completion is the prompt with each ? answered, then # and the last result.
        assert re.sub(r"=\d", "=?", problem.completion[:-3]) == problem.prompt
        assert problem.completion[-4] == problem.completion[-1] == problem.answer
        assert (len(problem.prompt), len(problem.completion)) == (26, 29)


def test_held_out_problems_are_512_distinct_and_always_the_same() -> None:
    prompts = [problem.prompt for problem in held_out_problems()]
    assert len(set(prompts)) == len(prompts) == HELD_OUT_COUNT == 512
    assert held_out_problems() == held_out_problems()
    assert prompts[0] == "1 +2=? +1=? +4=? -1=? +2=?"  # a change here breaks every accuracy published for the task


def test_training_problems_depend_on_the_seed_alone() -> None:
    assert training_problems(0, 50) == training_problems(0, 50)
    assert training_problems(0, 50) != training_problems(1, 50)
    assert training_problems(0, 50) == training_problems(0, 500)[:50]
    assert training_problems(0, 1)[0].prompt == "0 +2=? +5=? -5=? -1=? -5=?"


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, -7, 10**12])
def test_training_problems_are_distinct_and_never_held_out(seed: int) -> None:
    prompts = {problem.prompt for problem in training_problems(seed, 20_000)}
    assert len(prompts) == 20_000
    assert prompts.isdisjoint(problem.prompt for problem in held_out_problems())


def test_more_training_problems_than_exist_are_refused() -> None:
    assert Form().training_count == 1_000_000 - 512
    assert training_problems(0, 0) == []
    for count in (Form().training_count + 1, -1):
        with pytest.raises(ValueError, match="999488 training problems"):
            training_problems(0, count)


@pytest.mark.parametrize(
    ("completion", "index"),
    [
        (GOLD, None),
        ("9 -5=4 +4=7 +1=8 +1=9 -4=5 #5", 10),  # 4+4=7: what follows is consistent with it, and the 7 is the mistake
        ("8" + GOLD[1:], 0),
        (GOLD[:-1] + "5", 28),
        (GOLD[:6], 6),  # stopped early: wrong where the stop token stands
        ("", 0),
        (GOLD + " ", 29),  # went on too long: wrong after the gold
        ("9 -5=3", 5),
    ],
)
def test_first_wrong_index_names_the_first_character_that_differs(completion: str, index: int | None) -> None:
    assert first_wrong_index(completion, GOLD) == index


def test_a_form_says_how_many_steps_and_what_stands_between_them() -> None:
    # Number 9930: start 9, then codes 9 (-5), 3 (+4), 0 (+1); 9-5=4, 4+4=8, 8+1=9.
    written = Problem("9.. -5=?.. +4=?.. +1=?", "9.. -5=4.. +4=8.. +1=9.. #9", "9")
    assert problem_from_number(9930, Form(steps=3, filler=2)) == written
    assert problem_from_number(9930, Form(steps=3)) == Problem("9 -5=? +4=? +1=?", "9 -5=4 +4=8 +1=9 #9", "9")
    with pytest.raises(ValueError, match="from 0 to 9999, got 10000"):
        problem_from_number(10_000, Form(steps=3))


def test_filler_changes_the_text_and_not_the_problems() -> None:
    plain, filled = held_out_problems(), held_out_problems(Form(filler=4))
    assert [problem.completion.replace(".", "") for problem in filled] == [problem.completion for problem in plain]
    # A digit; a step each of 4 dots, a space, sign, operand, = and result; 4 dots, a space, # and the answer.
    assert {len(problem.completion) for problem in filled} == {1 + 5 * 9 + 7}
    assert training_problems(3, 1, Form(filler=4))[0].answer == training_problems(3, 1)[0].answer


@pytest.mark.parametrize("form", [Form(steps=3), Form(steps=8), Form(steps=8, filler=1)])
def test_chains_of_other_lengths_have_training_and_held_out_problems_apart(form: Form) -> None:
    training, held_out = training_problems(0, 2_000, form), held_out_problems(form)
    assert {problem.prompt.count("?") for problem in (*training, *held_out)} == {form.steps}
    prompts = {problem.prompt for problem in training}
    assert len(prompts) == 2_000
    assert prompts.isdisjoint(problem.prompt for problem in held_out)


@pytest.mark.parametrize(
    ("completion", "index"),
    [
        ("9.. -5=3.. +4=7.. +1=8.. #8", 7),  # 9-5=3: the first result is at 1 + 2 + len(" -5=")
        ("9.. -5=4.. +4=7.. +1=8.. #8", 14),  # seven characters a step: two dots and five of its own
        ("9.. -5=4. +4=8.. +1=9.. #9", 9),  # a dot is missing: wrong at the dot that should be there
        ("9.. -5=4... +4=8.. +1=9.. #9", 10),  # one too many: wrong at the space that should be there
        ("9 -5=4 +4=8 +1=9 #9", 1),
        ("9.. -5=4.. +4=8.. +1=9.. #8", 26),
    ],
)
def test_first_wrong_index_counts_the_filler(completion: str, index: int) -> None:
    assert first_wrong_index(completion, problem_from_number(9930, Form(steps=3, filler=2)).completion) == index
