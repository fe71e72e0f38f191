"""Fixtures that several tests share: random models on disk, prompts, and real files where they are at hand."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import Opener, launch, opener

if TYPE_CHECKING:
    from dgpo_cli.models.language_model import LanguageModel

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("OMP_NUM_THREADS", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a suite started in the background, and inherited


@pytest.fixture(autouse=True)
def handlers_end_with_their_test() -> Iterator[None]:
    """Hydra hangs log handlers on the stderr it finds; one captured by an ended test is closed for the next."""
    before = list(logging.root.handlers)
    yield
    for handler in set(logging.root.handlers) - set(before):
        logging.root.removeHandler(handler)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Qwen2 with a byte-level tokenizer."""
    from model_factory import save_random_model

    return save_random_model(tmp_path_factory.mktemp("model") / "random")


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture
def vllm_url(run_folder: Path) -> Iterator[str]:
    """The address of the run's vLLM server, which holds the bundled model, for this test alone as long as it runs."""
    from shared_vllm import locked, shared_server

    url = shared_server(run_folder)
    with locked(run_folder / "vllm.used"):
        yield url


@pytest.fixture(scope="module")
def policy(random_model: Path) -> LanguageModel:
    """The random model, loaded. Tests that train take a copy."""
    from dgpo_cli.models.loading import load_model

    return load_model(str(random_model))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A model like `policy` with other weights."""
    from model_factory import save_random_model

    from dgpo_cli.models.loading import load_model

    return load_model(str(save_random_model(tmp_path_factory.mktemp("m") / "reference", seed=3)))


@pytest.fixture
def halved_folder(tmp_path: Path) -> Path:
    """A random model whose logits are not what its head makes of its hidden states."""
    from model_factory import save_halved_model

    return save_halved_model(tmp_path / "halved")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real benchmark files: the folder named by DGPO_DATA, else ../shared/data beside the checkout."""
    named = os.environ.get("DGPO_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real benchmark files here: set DGPO_DATA to their folder")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium. One a module: while it runs, its event loop would break another test's asyncio.run."""
    yield from launch()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Opener]:
    """open_page(file, theme="dark") opens an HTML file and records what it logs and asks for."""
    yield from opener(browser)
