"""`reward=[a,b]` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgpo_cli.config.compose import compose
from dgpo_cli.config.overrides import prepare
from dgpo_cli.errors import ConfigError


@pytest.mark.parametrize("command", ["train", "eval", "rollout"])
def test_a_list_of_rewards_is_a_path_of_several(command: str) -> None:
    config = compose(command, ["reward=[exact,my r.py:brief]", "reward.weights=[1,0.5]"])
    assert (config.reward.name, config.reward.path) == ("function", ["exact", "my r.py:brief"])
    assert config.reward.weights == [1.0, 0.5]


def test_a_path_that_is_a_list_chooses_the_function() -> None:
    config = compose("train", ["reward.path=[a.py:f,/b/c.py:g]"])
    assert (config.reward.name, config.reward.path) == ("function", ["a.py:f", "/b/c.py:g"])
    assert config.benchmark.reward == "function"


def test_an_option_of_ones_own_stands_for_its_function(tmp_path: Path) -> None:
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward" / "short.yaml").write_text("name: function\npath: s.py:short\n")
    request, problems = prepare("train", ["reward=[short,robust]"], [tmp_path])
    assert not problems
    assert request.overrides == ["reward=function", "reward.path=['s.py:short','robust']"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["reward=[robst,exact]"], "there is no reward 'robst'"),
        (["reward=[robust,function]"], "function names no function"),
        (["reward=[robust,exact]", "reward.path=a.py:f"], "both name the rewards"),
    ],
)
def test_what_names_no_reward_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose("train", overrides)
