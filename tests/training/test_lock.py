"""The lock on a run's folder: it ends with its process, and a second one is told who holds it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from dgpo_cli.errors import ConfigError
from dgpo_cli.training.lock import NAME, Holder, _take_over, locked

HOLD = (
    "import sys, time; from pathlib import Path; from dgpo_cli.training.lock import locked\n"
    "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def holding(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_holds_the_folder_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    with holding(tmp_path) as process:
        with pytest.raises(ConfigError) as caught, locked(tmp_path):
            pass
        assert f"process {process.pid} on " in caught.value.problems[0].message
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / NAME).exists()
    with locked(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / NAME).exists()


def test_a_record_of_a_living_process_does_not_hold_where_the_kernel_keeps_locks(tmp_path: Path) -> None:
    """Its pid may be another process's by now."""
    (tmp_path / NAME).write_text(json.dumps(asdict(Holder.this_process())))
    with locked(tmp_path):
        pass


def test_the_last_holder_on_another_host_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / NAME).write_text(json.dumps({"pid": 7, "host": "node17", "started": 1e9}))
    with locked(tmp_path):
        pass
    assert "last held by process 7 on node17" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "half a rec", "[]", '{"pid": "x"}'])
def test_a_file_without_a_record_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    with locked(tmp_path):
        pass


def test_without_locks_a_living_process_of_this_host_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / NAME
    living = Holder.this_process()
    reused = Holder(living.pid, living.host, living.started - 3600)  # another process had that pid an hour ago
    for holder, is_held in ((living, True), (reused, False)):
        path.write_text(json.dumps(asdict(holder)))
        descriptor = os.open(path, os.O_RDWR)
        if is_held:
            with pytest.raises(ConfigError, match="another dgpo train is at work"):
                _take_over(path, descriptor, has_locks=False)
        else:
            _take_over(path, descriptor, has_locks=False)
            assert "keeps no locks" in capsys.readouterr().err
            os.close(descriptor)
