"""What a study is refused beside, in one line each."""

from __future__ import annotations

import pytest

from dgpo_cli.cli import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["study=localisation", "benchmark=gsm8k"], "the first wrong token of benchmark=gsm8k is not known"),
        (["study=localisation", "dry_run=true"], "dry_run: study=localisation is not planned"),
        (["study=localisation", "reference=initial"], "reference=initial"),
        (["study=localisation", "benchmark.pass_at=[1]"], "benchmark.pass_at=[1] changes nothing"),
        (["reference=tiny"], "reference=tiny changes nothing: study=localisation is not asked for"),
        (["gatings=[paper]"], "gatings=[paper] changes nothing: study=localisation is not asked for"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *words]) == 2
    assert said in capsys.readouterr().err
