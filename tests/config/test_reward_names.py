"""What several rewards are called."""

from __future__ import annotations

from dgpo_cli.config.reward_names import names_of, paths_of, unfit


def test_a_reward_is_called_like_its_function_or_grader() -> None:
    assert names_of(["robust", "a/my.py:brief", "C:\\x\\other.py:style"]) == ["robust", "brief", "style"]


def test_functions_of_one_name_have_that_of_their_file() -> None:
    assert names_of(["a.py:score", "b/c.py:score"]) == ["a_score", "c_score"]


def test_a_name_that_is_taken_is_unfit() -> None:
    assert unfit(["mean", "brief", "brief", "my-x_score", "style"]) == ["mean", "brief", "brief", "my-x_score"]


def test_one_path_is_a_list_of_one() -> None:
    assert [paths_of(None), paths_of("a.py:f"), paths_of(["a.py:f", "robust"])] == [
        [],
        ["a.py:f"],
        ["a.py:f", "robust"],
    ]
