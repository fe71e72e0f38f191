"""sweep.json: written and read back; a file that is none is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgpo_cli.config.sweep_groups import SWEEP_FILE
from dgpo_cli.errors import DataError
from dgpo_cli.sweeps.sweep_record import DONE, Job, SweepRecord
from dgpo_cli.training.lock import Holder


def test_a_record_is_read_back_as_it_was(tmp_path: Path) -> None:
    jobs = [
        Job(0, "0_seed-0", ["seed=0"], True, DONE, 0, 1, 0.5, 2.5, Holder(7, "here", 1.5)),
        Job(1, "1_seed-1", ["seed=1"]),
    ]
    record = SweepRecord("train", ["seed=0,1"], None, ["/options"], jobs)
    record.save(tmp_path)
    assert SweepRecord.read(tmp_path) == record


def test_a_job_is_known_by_its_overrides_in_any_order() -> None:
    record = SweepRecord("train", [], jobs=[Job(0, "0", ["algo=grpo", "seed=1"])])
    assert record.job_of(["seed=1", "algo=grpo"]) is record.jobs[0]
    assert record.job_of(["seed=1"]) is None


@pytest.mark.parametrize("text", ["", "[]", '{"version": 99, "jobs": []}', '{"version": 1, "jobs": [{}]}'])
def test_a_file_that_is_no_record_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / SWEEP_FILE).write_text(text)
    with pytest.raises(DataError, match="not the record of a sweep"):
        SweepRecord.read(tmp_path)
