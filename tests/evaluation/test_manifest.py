"""A folder's samples are continued only by the evaluation that drew them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.errors import ConfigError
from dgpo_cli.evaluation.manifest import claim, files_sha256, prompt_hashes, versions
from dgpo_cli.types import Problem, Prompt

MANIFEST: dict[str, Any] = {
    "model": {"path": "a", "weights_sha256": "123"},
    "sampling": {"temperature": 1.0, "seed": 0},
    "versions": {"torch": "2.0"},
}


def folder_with_samples(folder: Path) -> Path:
    claim(folder, MANIFEST)
    (folder / "samples.jsonl").write_text("{}\n")
    return folder


def test_the_same_evaluation_may_go_on_with_other_versions_or_another_path_of_the_same_weights(tmp_path: Path) -> None:
    folder = folder_with_samples(tmp_path)
    claim(folder, {**MANIFEST, "versions": {"torch": "2.1"}})
    claim(folder, {**MANIFEST, "model": {"path": "b", "weights_sha256": "123"}})
    assert json.loads((folder / "manifest.json").read_text())["model"]["path"] == "b"


def test_every_difference_is_named(tmp_path: Path) -> None:
    other = {"model": {"path": "b", "weights_sha256": "456"}, "sampling": {"temperature": 0.6, "seed": 0}, "extra": 1}
    with pytest.raises(ConfigError) as caught:
        claim(folder_with_samples(tmp_path), other)
    messages = [problem.message for problem in caught.value.problems]
    assert len(messages) == 3
    assert "extra is None there and 1 here" in messages[0]
    assert "model.weights_sha256 is 123 there and 456 here" in messages[1]
    assert "sampling.temperature is 1.0 there and 0.6 here" in messages[2]
    assert "overwrite=true" in caught.value.problems[-1].hint


def test_without_a_hash_the_path_decides(tmp_path: Path) -> None:
    claim(tmp_path, {"model": {"path": "a", "weights_sha256": None}})
    (tmp_path / "samples.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"model\.path"):
        claim(tmp_path, {"model": {"path": "b", "weights_sha256": None}})


def test_samples_of_unknown_origin_are_refused_and_an_empty_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text("")
    claim(tmp_path, MANIFEST)
    (tmp_path / "samples.jsonl").write_text("{}\n")
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=r"no readable manifest.json"):
        claim(tmp_path, MANIFEST)


def prompts(gold: str = "4", text: str = "2+2=") -> list[Prompt]:
    return [Prompt(Problem(0, "a", (("user", "2+2"),), gold), text, (1, 2))]


def test_data_and_template_have_hashes_of_their_own() -> None:
    base = prompt_hashes(prompts())
    other_gold, other_text = prompt_hashes(prompts(gold="5")), prompt_hashes(prompts(text="2+2 = ?"))
    assert base == prompt_hashes(prompts())
    assert base["data_sha256"] == other_text["data_sha256"] != other_gold["data_sha256"]
    assert base["prompts_sha256"] == other_gold["prompts_sha256"] != other_text["prompts_sha256"]
    assert prompt_hashes(prompts(gold="\ud800"))  # half a surrogate pair has a hash too


def test_the_hash_of_files_covers_names_and_contents(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.write_bytes(b"1")
    assert files_sha256([a]) == files_sha256([a]) != files_sha256([b])
    assert files_sha256([a, b]) != files_sha256([b, a])
    assert files_sha256([]) is None


def test_versions_are_those_installed() -> None:
    import torch

    found = versions()
    assert set(found) == {"dgpo", "torch", "transformers", "python"}
    assert found["torch"] == torch.__version__
