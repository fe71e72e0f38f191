"""Servers that run already: they are asked what they are, and used if they fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared_vllm import LONGEST

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.config.groups import Dtype
from dgpo_cli.config.model_groups import ModelConfig
from dgpo_cli.engines.vllm.attached import AttachedServers
from dgpo_cli.engines.vllm.facts import refuse_other_settings
from dgpo_cli.engines.vllm.launching import free_port
from dgpo_cli.engines.vllm.served import Served
from dgpo_cli.errors import DgpoError, RunError


def attached(
    *urls: str, path: str = "bundled:tiny", dtype: Dtype = Dtype.float32, trained: bool = True
) -> AttachedServers:
    served = Served(ModelConfig(path=path), dtype, trained=trained, trainers=0)
    return AttachedServers(EngineConfig(name="vllm", urls=list(urls)), served)


def test_a_server_that_fits_says_what_it_is(vllm_url: str) -> None:
    servers = attached(f"{vllm_url}/")
    told = servers.start(LONGEST)
    assert servers.urls == [vllm_url]
    assert (told["vllm"], told["max_model_len"]) == ("0.32.0", LONGEST)
    servers.close()
    assert attached(vllm_url).start(LONGEST) == told, "they run on"


def test_a_server_of_shorter_sequences_is_refused(vllm_url: str) -> None:
    with pytest.raises(
        RunError, match=f"sequences need up to {LONGEST + 1} tokens here, and the server takes {LONGEST}"
    ):
        attached(vllm_url).start(LONGEST + 1)


def test_a_server_of_another_dtype_is_refused(vllm_url: str) -> None:
    with pytest.raises(RunError, match="started with --dtype float32, and bfloat16 is needed here") as raised:
        attached(vllm_url, dtype=Dtype.bfloat16).start(LONGEST)
    assert raised.value.problems[0].hint.startswith("start it with --dtype bfloat16")


def test_a_server_of_another_model_is_refused_unless_its_weights_are_replaced(vllm_url: str, tmp_path: Path) -> None:
    other = str(tmp_path)
    with pytest.raises(RunError, match=rf"started with --model .*/tiny, and {other} is needed here"):
        refuse_other_settings(vllm_url, attached(vllm_url, path=other, trained=False)._wanted(), timeout_seconds=60.0)
    assert attached(vllm_url, path=other).start(LONGEST)["vllm"] == "0.32.0"


def test_a_server_without_the_plugin_cannot_be_trained_with(vllm_url: str) -> None:
    with pytest.raises(RunError, match=r"started with --worker-extension-cls dgpo_vllm\.worker\.Weights, and Other"):
        refuse_other_settings(vllm_url, {("parallel_config", "worker_extension_cls"): ("Other",)}, timeout_seconds=60.0)


def test_an_address_where_nobody_answers_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(DgpoError, match=url):
        attached(url).start(LONGEST)


def test_servers_of_others_are_not_started_anew() -> None:
    with pytest.raises(RunError, match="are gone, and are not dgpo's to start"):
        attached("http://127.0.0.1:1").restart([0])
