"""Keys, prompts, golds and duplicates; each row that cannot be used is named."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.data.digit_chain import Form, held_out_problems, training_problems
from dgpo_cli.data.problems import load_problem_set, load_problems
from dgpo_cli.errors import DataError

KEYS: dict[str, Any] = {"prompt_key": "problem|question", "answer_key": "answer|final_answer|reward_model.ground_truth"}


def file_of(tmp_path: Path, rows: list[dict[str, Any]]) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def error_of(path: str, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        load_problems(path, **{**KEYS, **options})
    return caught.value


def test_keys_reach_nested_fields_and_try_one_another(tmp_path: Path) -> None:
    path = file_of(
        tmp_path,
        [
            {"problem": "a", "answer": "1"},
            {"question": "b", "answer": None, "reward_model": {"ground_truth": "2"}},
            {"problem": "", "question": "c", "final_answer": ["3"]},
        ],
    )
    problems = load_problems(path, **KEYS)
    assert [(one.messages, one.gold) for one in problems] == [
        ((("user", "a"),), "1"),
        ((("user", "b"),), "2"),
        ((("user", "c"),), "3"),
    ]


@pytest.mark.parametrize(
    ("gold", "expected"),
    [
        (7, "7"),
        (27.0, "27"),
        (0.5, "0.5"),
        ("070", "70"),
        (["$\\frac{1}{2}$"], "$\\frac{1}{2}$"),
        (["1", "2"], "1, 2"),
        ("long\n#### 1,234", "1234"),
    ],
)
def test_golds_come_as_numbers_strings_and_lists(tmp_path: Path, gold: Any, expected: str) -> None:
    assert load_problems(file_of(tmp_path, [{"problem": "a", "answer": gold}]), **KEYS)[0].gold == expected


def test_golds_stay_as_they_are_where_they_are_compared_as_text(tmp_path: Path) -> None:
    path = file_of(tmp_path, [{"problem": "a", "answer": "070"}, {"problem": "b", "answer": 27.0}])
    assert [one.gold for one in load_problems(path, **KEYS, reduce_golds=False)] == ["070", "27.0"]


def test_chat_messages_keep_their_roles(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "u"}]}]
    problem = load_problems(file_of(tmp_path, [{"problem": turns, "answer": 1}]), **KEYS)[0]
    assert problem.messages == (("system", "s"), ("user", "u"))


def test_every_row_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"problem": "a", "answer": "1"},
        {"problem": "  ", "answer": "1"},
        {"problem": "b", "answer": ""},
        {"problem": "c"},
        {"problem": [{"role": "user"}], "answer": 1},
        {"problem": [{"role": "assistant", "content": "x"}], "answer": 1},
        {"problem": "d", "answer": {"value": 1}},
        {"problem": "e", "answer": float("nan")},
        {"problem": "f \ud800", "answer": "1"},
        {"problem": 3, "answer": "1"},
        {"problem": "g", "answer": "text\n####"},
    ]
    path = file_of(tmp_path, rows)
    messages = [problem.message for problem in error_of(path).problems]
    assert [message.split(":")[0] for message in messages] == [f"{path} line {line}" for line in range(2, 12)]
    for message, said in zip(
        messages,
        [
            "the prompt is empty",
            "gold answer is missing",
            "no such column in this row; it has problem",
            "expected a message {role, content}",
            "last message of role user, found assistant",
            "reach a nested field with a dot",
            "found nan",
            "surrogate",
            "found 3",
            "gold answer is empty",
        ],
        strict=True,
    ):
        assert said in message
    assert "data.prompt_key=problem|question" in messages[0]


def test_a_bad_row_beyond_the_limit_is_still_named(tmp_path: Path) -> None:
    path = file_of(tmp_path, [{"problem": "a", "answer": 1}, {"problem": "", "answer": 1}])
    assert "line 2" in str(error_of(path, limit=1))


def test_a_missing_column_is_one_problem_and_names_the_nearest(tmp_path: Path) -> None:
    path = file_of(tmp_path, [{"problem": "a", "anwser": 1, "meta": {"id": 3}}] * 5)
    error = error_of(path, answer_key="answer", group="benchmark")
    assert len(error.problems) == 1
    assert "benchmark.answer_key=answer: no such column; the columns are anwser, meta, meta.id, problem" in str(error)
    assert error.problems[0].hint == "benchmark.answer_key=anwser"


def test_duplicates_of_a_prompt_go_only_where_asked_and_are_counted(tmp_path: Path) -> None:
    rows = [{"problem": "a", "answer": 1}, {"problem": "b", "answer": 2}] * 3 + [{"problem": "a", "answer": 9}]
    path = file_of(tmp_path, rows)
    assert len(load_problems(path, **KEYS)) == 7
    loaded = load_problem_set(path, **KEYS, deduplicate=True)
    assert (loaded.rows, loaded.duplicates, loaded.conflicts) == (7, 5, 1)
    assert [(one.index, one.gold) for one in loaded.problems] == [(0, "1"), (1, "2")]


def test_ids_are_the_rows_own_where_they_name_each_row_once(tmp_path: Path) -> None:
    own = [{"problem": "a", "answer": 1, "id": 60}, {"problem": "b", "answer": 1, "id": 61}]
    assert [one.problem_id for one in load_problems(file_of(tmp_path, own), **KEYS)] == ["60", "61"]
    shared = [{**row, "id": "same"} for row in own]
    assert [one.problem_id for one in load_problems(file_of(tmp_path, shared), **KEYS)] == ["0", "1"]


def test_the_hash_follows_problems_and_golds(tmp_path: Path) -> None:
    def digest(rows: list[dict[str, Any]]) -> str:
        return load_problem_set(file_of(tmp_path, rows), **KEYS).sha256

    assert digest([{"problem": "a", "answer": "070"}]) == digest([{"question": "a", "answer": 70, "id": 3}])
    assert digest([{"problem": "a", "answer": 70}]) != digest([{"problem": "a", "answer": 71}])


def test_the_bundled_task_gives_training_or_held_out_problems() -> None:
    keys = {"prompt_key": "prompt", "answer_key": "completion"}
    training = load_problems("bundled:digit_chain", **keys, seed=3, size=8)
    assert [one.gold for one in training] == [one.completion for one in training_problems(3, 8)]
    held_out = load_problems("bundled:digit_chain", **keys, held_out=True)
    assert [one.messages[0][1] for one in held_out] == [one.prompt for one in held_out_problems()]
    form = Form(steps=8, filler=2)
    [longer] = load_problems("bundled:digit_chain", **keys, seed=3, size=1, form=form)
    assert longer.gold == training_problems(3, 1, form)[0].completion
    held_out = load_problems("bundled:digit_chain", **keys, held_out=True, form=form)
    assert [one.gold for one in held_out] == [one.completion for one in held_out_problems(form)]


@pytest.mark.parametrize(
    ("path", "options", "expected"),
    [
        ("bundled:nothing", {}, "expected bundled:digit_chain"),
        ("bundled:digit_chain", {"size": 0}, "training problems, got 0"),
        ("nowhere.jsonl", {}, "there is no such file"),
        ("nowhere", {}, "expected a file that ends in"),
        ("rows.jsonl", {"limit": 0}, "expected at least 1, got 0"),
    ],
)
def test_paths_and_sizes_that_cannot_be_used(path: str, options: dict[str, Any], expected: str) -> None:
    assert expected in str(error_of(path, **options))


@pytest.mark.parametrize(
    "gold", ["b'2'", 'b"2"', "np.int64(2)", "tensor(2)", "array(['2'], dtype=object)", "Decimal('2')"]
)
def test_a_gold_that_shows_an_object_of_python_is_refused(tmp_path: Path, gold: str) -> None:
    path = file_of(tmp_path, [{"problem": "a", "answer": "1"}, {"problem": "b", "answer": gold}])
    [problem] = error_of(path).problems
    assert f"{path} line 2: data.answer_key=" in problem.message
    assert "how Python shows an object" in problem.message
    assert "how Python shows" in error_of(file_of(tmp_path, [{"problem": gold, "answer": 2}])).problems[0].message


@pytest.mark.parametrize("gold", ["b", "b'", "f'(2)", "array", "[1, 2]", "[0, 1)", "\\text{b'2'}"])
def test_a_gold_that_only_looks_like_python_stays(tmp_path: Path, gold: str) -> None:
    assert load_problems(file_of(tmp_path, [{"problem": "a", "answer": gold}]), **KEYS)[0].gold == gold


@pytest.mark.parametrize(("gold", "expected"), [("['18']", "18"), ('["1", "2"]', "1, 2")])
def test_a_gold_that_is_the_text_of_a_list_is_read_as_it_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gold: str, expected: str
) -> None:
    assert load_problems(file_of(tmp_path, [{"problem": "a", "answer": gold}]), **KEYS)[0].gold == expected
    assert "1 golds are the text of a list" in capsys.readouterr().err


TURNS = [{"role": "system", "content": "short"}, {"role": "user", "content": "it's 1+1?"}]


@pytest.mark.parametrize("text", [json.dumps(TURNS), json.dumps(TURNS, indent=1), repr(TURNS), f" {TURNS} "])
def test_a_prompt_that_is_the_text_of_messages_is_read_as_messages_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    path = file_of(tmp_path, [{"problem": text, "answer": 2}, {"problem": "[1, 2]?", "answer": 2}])
    first, second = load_problems(path, **KEYS)
    assert first.messages == (("system", "short"), ("user", "it's 1+1?"))
    assert second.messages == (("user", "[1, 2]?"),)
    assert f"{path}: 1 prompts are the text of a list of messages" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"role": "user", "content": "a"', "begins as a list of messages"),
        ("[{'role': 'user', 'content': 'a'}\n {'role': 'user', 'content': 'b'}]", "begins as a list of messages"),
        ("array([{'role': 'user', 'content': 'a'}], dtype=object)", "how Python shows an object"),
        ('[{"from": "human", "value": "a"}]', "expected a message {role, content}"),
        ('[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]', "last message of role user"),
    ],
)
def test_the_text_of_messages_that_are_none_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in error_of(file_of(tmp_path, [{"problem": text, "answer": 2}])).problems[0].message


def test_a_column_with_dots_and_a_nested_field_of_one_name_are_refused_where_they_differ(tmp_path: Path) -> None:
    keys = {"prompt_key": "problem", "answer_key": "a.b.c"}
    rows: list[dict[str, Any]] = [{"problem": "x", "a.b": {"c": 1}}, {"problem": "y", "a": {"b.c": 2}, "a.b.c": 2}]
    assert [one.gold for one in load_problems(file_of(tmp_path, rows), **keys)] == ["1", "2"]
    twice = file_of(tmp_path, [{"problem": "x", "a.b.c": 1, "a": {"b": {"c": 2}}}])
    assert "found a column 'a.b.c' and a nested field" in error_of(twice, **keys).problems[0].message


def test_a_key_in_other_letters_is_answered_with_the_column(tmp_path: Path) -> None:
    path = file_of(tmp_path, [{"PROBLEM": "x", "answer": 1}])
    assert error_of(path, prompt_key="problem").problems[0].hint == "data.prompt_key=PROBLEM"


def test_a_gold_of_a_type_that_is_no_answer_is_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    for value, expected in ((b"\xff", "found bytes"), (datetime(2024, 1, 1), "found datetime")):
        parquet.write_table(pyarrow.table({"problem": ["x"], "answer": [value]}), path)
        assert expected in error_of(str(path)).problems[0].message
