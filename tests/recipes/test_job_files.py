"""The job files of recipes/skypilot and recipes/kubernetes: what they start, first and after a restart."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dgpo_cli.config.compose import compose

RECIPES = Path(__file__).parents[2] / "recipes"
FIRST = ["-m", "dgpo_cli", "train"]


def skypilot() -> tuple[str, dict[str, str]]:
    task = yaml.safe_load((RECIPES / "skypilot" / "train.yml").read_text())
    given = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1"}
    return task["run"].replace("/outputs/", "outputs/"), {
        **task["envs"],
        **given,
        "SKYPILOT_NUM_GPUS_PER_NODE": task["resources"]["accelerators"].partition(":")[2],
    }


def kubernetes() -> tuple[str, dict[str, str]]:
    job = kubernetes_job()
    container = job["spec"]["template"]["spec"]["containers"][0]
    env = {one["name"]: one["value"] for one in container["env"]}
    return container["command"][2], {**env, "RUN": "outputs/run", "JOB_COMPLETION_INDEX": "1"}


def kubernetes_job() -> dict[str, Any]:
    service, job = yaml.safe_load_all((RECIPES / "kubernetes" / "train.yml").read_text())
    pod = job["spec"]["template"]["spec"]
    assert service["metadata"]["name"] == pod["subdomain"], "the name under which node 0 is found"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert isinstance(job, dict)
    return job


def words(folder: Path, script: str, env: dict[str, str]) -> list[str]:
    """What the script hands to torchrun."""
    (folder / "torchrun").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (folder / "torchrun").chmod(0o755)
    environment = {**os.environ, **env, "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("job", [skypilot, kubernetes])
def test_each_node_starts_a_process_a_gpu_and_a_restart_goes_on(tmp_path: Path, job: Any) -> None:
    script, env = job()
    started = words(tmp_path, script, env)
    of_torchrun = dict(zip(started[0:10:2], started[1:10:2], strict=True))
    assert [of_torchrun[name] for name in ("--nnodes", "--node-rank", "--nproc-per-node")] == ["2", "1", "8"]
    assert of_torchrun["--master-addr"] == ("10.0.0.1" if job is skypilot else "dgpo-0.dgpo")
    assert started[10:13] == FIRST
    assert started[13:] == ["hydra.run.dir=outputs/run", "recipe=reproduce_dgpo_32b"]
    assert compose("train", started[14:]).model.name == "qwen32b", "the overrides compose"
    (tmp_path / "outputs" / "run").mkdir(parents=True)
    (tmp_path / "outputs" / "run" / "config.yaml").touch()
    assert words(tmp_path, script, env)[13:] == ["resume=outputs/run"]


def test_the_pods_of_the_job_are_as_many_as_torchrun_expects() -> None:
    spec = kubernetes_job()["spec"]
    container = spec["template"]["spec"]["containers"][0]
    nodes = next(one["value"] for one in container["env"] if one["name"] == "NODES")
    assert spec["completions"] == spec["parallelism"] == int(nodes)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
