"""What a study is refused beside, in one line each."""

from __future__ import annotations

import pytest

from dgpo_cli.cli import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["study=localisation", "benchmark=gsm8k"], "the first wrong token of benchmark=gsm8k is not known"),
        (["study=localisation", "swap.path=bundled:tiny"], "study=localisation and swap.path: two studies"),
        (["study=localisation", "dry_run=true"], "dry_run: study=localisation is not planned"),
        (["study=localisation", "reference=initial"], "reference=initial"),
        (["study=localisation", "benchmark.pass_at=[1]"], "benchmark.pass_at=[1] changes nothing"),
        (["reference=tiny"], "reference=tiny changes nothing: study=localisation is not asked for"),
        (["gatings=[paper]"], "gatings=[paper] changes nothing: study=localisation is not asked for"),
        (["swap.fraction=0.1"], "swap.fraction=0.1 changes nothing: there is no other model to swap with"),
        (["swap.path=nowhere"], "swap.path: no folder 'nowhere'"),
        (["swap.path=bundled:tiny", "swap.fraction=0"], "swap.fraction: expected more than 0 and at most 1"),
        (["swap.path=bundled:tiny", "swap.curve=[0.1,1.5]"], "swap.curve: expected numbers above 0 and below 1"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *words]) == 2
    assert said in capsys.readouterr().err
