"""The real plug-ins of other launchers, with stand-ins for training; Slurm's own programs are small stand-ins, too."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from sweep_program import Start, ended, starts, table, wait_for

from dgpo_cli.cli import main

SBATCH = """#!/bin/bash
script=${@: -1}
cp "$script" submitted.sh
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
for task in $(seq 0 ${last:-0}); do
    export SLURM_JOB_ID=$((8 + task)) SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task SLURM_JOB_NUM_NODES=1
    export SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NODELIST=here
    setsid bash "$script" > /dev/null 2>&1 < /dev/null &
done
echo "Submitted batch job 7"
"""
SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do [[ $1 == *=* || $2 == -* || $1 == --unbuffered ]] && shift || shift 2; done
exec "$@"
"""
SACCT = '#!/bin/bash\nprintf "JobID|State|NodeList\\n7_0|RUNNING|here\\n7_1|RUNNING|here\\n"\n'
SQUEUE = "#!/bin/bash\n"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "squeue": SQUEUE, "scontrol": SQUEUE}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


LAUNCHERS = [
    pytest.param("joblib", "joblib", ["hydra.launcher.n_jobs=2"], id="joblib"),
    pytest.param("submitit", "submitit_local", [], id="submitit_local", marks=pytest.mark.slow),
    pytest.param("submitit", "submitit_slurm", [], id="submitit_slurm", marks=pytest.mark.slow),
    pytest.param("ray", "ray", ["+hydra.launcher.ray.init.num_cpus=2"], id="ray", marks=pytest.mark.slow),
]


@pytest.mark.usefixtures("slurm")
@pytest.mark.parametrize(("plugin", "launcher", "more"), LAUNCHERS)
def test_a_launcher_runs_the_jobs_and_a_table_ends_them(
    start: Start, plugin: str, launcher: str, more: list[str]
) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher")
    code, err = ended(start(f"hydra/launcher={launcher}", *more, "seed=1,13", "hydra.sweep.dir=sweep"))
    assert code == 1, err
    assert table(err) == [["0", "done", "0", "1.0%", "seed=1"], ["1", "failed", "1", "-", "seed=13"]]
    assert "error: 1 of 2 jobs failed: 1" in err
    assert Path("sweep", "1_seed-13", "job.log").read_text().count("error: seed 13 is unlucky") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_slurm_gets_the_script_that_the_plan_shows(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    sweep = ["hydra/launcher=submitit_slurm", "hydra.launcher.mem_gb=64", "seed=1,2", "hydra.sweep.dir=sweep"]
    assert ended(start(*sweep))[0] == 0
    assert main(["train", "-m", *sweep, "dry_run=true"]) == 0
    assert Path("submitted.sh").read_text().strip() in capsys.readouterr().err


@pytest.mark.slow
def test_jobs_of_ray_are_saved_if_their_sweep_is_interrupted(start: Start) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    sweep = start("hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", "seed=20,21", "hydra.sweep.dir=sweep")
    wait_for(sweep, "0_seed-20/waits", "1_seed-21/waits")
    sweep.send_signal(signal.SIGINT)
    assert ended(sweep)[0] == 130
    saved = [Path("sweep", job, "saved") for job in ("0_seed-20", "1_seed-21")]
    deadline = time.monotonic() + 30
    while not all(file.exists() for file in saved):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    Path("go").touch()
    code, err = ended(start("resume=sweep"))
    assert code == 0, err
    assert sorted(row[1:4] for row in table(err)) == [["done", "0", "20.0%"], ["done", "0", "21.0%"]]


@pytest.mark.slow
def test_a_sweep_of_another_launcher_goes_on(start: Start) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    ended(start("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=1,17", "hydra.sweep.dir=sweep"))
    code, err = ended(start("resume=sweep", "seed=5,1,17"))
    assert code == 0, err
    assert sorted(row[1:4] for row in table(err)) == [
        ["done", "0", "1.0%"],
        ["done", "0", "17.0%"],
        ["done", "0", "5.0%"],
    ]
    assert [len(starts(name)) for name in ("0_seed-1", "1_seed-17")] == [1, 2]


def test_keys_that_only_dgpos_own_scheduling_knows_are_refused_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", "hydra/launcher=joblib", "seed=1,2", "sweep.retries=1", "hydra.sweep.dir=s"]) == 2
    assert "error: sweep.retries=1 changes nothing: another launcher or sweeper" in capsys.readouterr().err
