"""The words and the environment of a server, and the devices of each."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.engines.vllm.launching import PLUGIN, Launch, command, devices_of_servers, environment, free_port
from dgpo_cli.errors import ConfigError

GIVEN = {
    "PATH": "/bin",
    "WANDB_API_KEY": "a",
    "HF_TOKEN": "b",
    "AWS_SECRET_ACCESS_KEY": "c",
    "AZURE_STORAGE_KEY": "d",
    "PGPASSWORD": "e",
    "GITHUB_PAT": "f",
    "TOKENIZERS_PARALLELISM": "false",
    "PATTERNS": "*",
    "KEYBOARD": "de",
    "RANK": "3",
    "PYTHONPATH": "/mine",
}


def launch(python: str = "/v/bin/python", gpus: tuple[str, ...] = ()) -> Launch:
    return Launch(python, Path("/m"), "bfloat16", 512, gpus, trust_remote_code=False)


def test_a_server_is_told_no_secret_and_no_place_in_the_run() -> None:
    told = environment(EngineConfig(name="vllm"), launch(), GIVEN)
    assert set(told) >= {"PATH", "TOKENIZERS_PARALLELISM", "PATTERNS", "KEYBOARD"}
    assert not set(told) & {"WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "RANK"}
    assert not set(told) & {"AZURE_STORAGE_KEY", "PGPASSWORD", "GITHUB_PAT"}


def test_a_port_that_a_server_will_listen_on_is_not_given_again() -> None:
    low = range(1024, 45_000)  # four in ten of those that Linux gives
    assert not [port for port in (free_port(low) for _ in range(20)) if port in low]


def test_modules_of_this_interpreter_are_for_it_alone() -> None:
    assert environment(EngineConfig(name="vllm"), launch(), GIVEN)["PYTHONPATH"] == str(PLUGIN)
    same = environment(EngineConfig(name="vllm"), launch(sys.executable), GIVEN)
    assert same["PYTHONPATH"] == f"{PLUGIN}:/mine"


def test_the_plugin_is_a_folder_with_the_package_alone() -> None:
    assert [path.name for path in PLUGIN.iterdir() if path.name != "__pycache__"] == ["dgpo_vllm"]


def test_a_server_listens_to_this_machine_alone_and_takes_nothing_from_the_models_defaults() -> None:
    settings = EngineConfig(name="vllm", tensor_parallel=2, extra_args=["--max-num-seqs", "8"])
    words = command(settings, launch(), 8123, 77)
    assert words[:4] == ["/v/bin/python", "-m", "dgpo_vllm.serve", "77"]
    said = dict(pairwise(words))
    assert (said["--host"], said["--port"], said["--dtype"], said["--max-model-len"]) == (
        *("127.0.0.1", "8123", "bfloat16", "512"),
    )
    assert (said["--generation-config"], said["--logprobs-mode"]) == ("vllm", "processed_logprobs")
    assert said["--tensor-parallel-size"] == "2"
    assert words[-2:] == ["--max-num-seqs", "8"]
    assert "--enforce-eager" in words
    assert "--no-enable-chunked-prefill" in words
    assert "--gpu-memory-utilization" not in words


def test_on_gpus_a_server_sees_its_own_and_takes_its_share() -> None:
    settings = EngineConfig(name="vllm", gpu_memory_fraction=0.5)
    words = command(settings, launch(gpus=("4", "5")), 8123, 77)
    assert dict(pairwise(words))["--gpu-memory-utilization"] == "0.5"
    assert "--enforce-eager" not in words
    assert "--enable-sleep-mode" not in words
    assert "--enable-sleep-mode" in command(replace(settings, colocated=True), launch(gpus=("4", "5")), 8123, 77)
    assert environment(settings, launch(gpus=("4", "5")), GIVEN)["CUDA_VISIBLE_DEVICES"] == "4,5"


@pytest.mark.parametrize(
    ("settings", "seen", "trainers", "devices"),
    [
        ({}, 0, 0, [()]),
        ({"replicas": 2, "tensor_parallel": 2}, 0, 0, [(), ()]),
        ({"replicas": 2, "tensor_parallel": 2}, 8, 4, [("4", "5"), ("6", "7")]),
        ({"replicas": 2, "devices": ["0", "3"]}, 8, 4, [("0",), ("3",)]),
    ],
)
def test_servers_take_the_gpus_after_the_trainers(
    settings: dict[str, Any], seen: int, trainers: int, devices: list[tuple[str, ...]]
) -> None:
    assert devices_of_servers(EngineConfig(name="vllm", **settings), seen=seen, trainers=trainers) == devices


@pytest.mark.parametrize(
    ("settings", "visible", "devices"),
    [
        ({"replicas": 2, "tensor_parallel": 2}, None, [("0", "1"), ("2", "3")]),
        ({"replicas": 3}, None, [("0",), ("1",), ("2",)]),
        ({"replicas": 2}, "7, 3,5,1,GPU-a,GPU-b,GPU-c,GPU-d", [("7",), ("3",)]),
    ],
)
def test_colocated_servers_take_the_trainers_own_gpus(
    settings: dict[str, Any], visible: str | None, devices: list[tuple[str, ...]]
) -> None:
    asked = EngineConfig(name="vllm", colocated=True, **settings)
    assert devices_of_servers(asked, seen=8, trainers=4, visible=visible) == devices


def test_gpus_after_the_trainers_are_those_that_this_process_sees() -> None:
    asked = EngineConfig(name="vllm", replicas=2)
    assert devices_of_servers(asked, seen=3, trainers=1, visible="6,2,4") == [("2",), ("4",)]


def test_more_servers_than_the_trainer_has_gpus_are_an_error() -> None:
    asked = EngineConfig(name="vllm", colocated=True, replicas=2, tensor_parallel=2)
    with pytest.raises(ConfigError, match="need 4, and the trainer has 2 on this machine"):
        devices_of_servers(asked, seen=8, trainers=2)


def test_too_few_gpus_are_an_error() -> None:
    with pytest.raises(ConfigError, match="2 servers on 2 GPUs each need 4 beside the trainer's 6"):
        devices_of_servers(EngineConfig(name="vllm", replicas=2, tensor_parallel=2), seen=8, trainers=6)


def test_a_server_on_a_cpu_computes_with_the_models_threads_which_do_not_spin() -> None:
    given = GIVEN | {"OMP_NUM_THREADS": "7"}  # of the trainer
    settings = EngineConfig(name="vllm")
    one, any_number = (replace(launch(), threads=number) for number in (1, None))
    assert environment(settings, one, given)["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in environment(settings, any_number, given)
    assert environment(settings, any_number, given)["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment(settings, one, given | {"OMP_WAIT_POLICY": "ACTIVE"})["OMP_WAIT_POLICY"] == "ACTIVE"
    assert not {"OMP_NUM_THREADS", "OMP_WAIT_POLICY"} & set(environment(settings, replace(one, gpus=("0",)), given))
