"""What tests of whole runs share: a config from command-line words, and tiny runs that need no download."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from neuralode_exp.commands.train import command_line
from neuralode_exp.config import Config, Mistake
from neuralode_exp.config.compose import Composer
from neuralode_exp.config.hydra_internals import make_loader

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "tests" / "assets" / "mnist-sample"
# A digit classifier on the 512-image sample: 10 batches an epoch, milliseconds a step.
TINY_IMAGES = (
    "dataset=mnist",
    f"dataset.root={SAMPLE}",
    "dataset.validation=64",
    "trainer.batch_size=32",
    "trainer.epochs=2",
    "threads=1",
)


@pytest.fixture(scope="session")
def compose() -> Callable[..., Config]:
    """compose("model=mlp", ...) -> the checked config, as train.py would have it."""
    composer = Composer(make_loader(ROOT / "conf"))

    def compose(*words: str) -> Config:
        mistakes: list[Mistake] = []
        overrides = composer.parse(words, mistakes)
        assert not mistakes
        return composer.config(overrides)

    return compose


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """A shell's background job ignores Ctrl-C, and so would every process that the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def train(*words: str, cwd: Path | None = None, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    """`python train.py words` as a user starts it."""
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=cwd or ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def train_here(patch: pytest.MonkeyPatch, *words: str) -> int:
    """Exit status of `python train.py words` in this process, which saves the seconds of its imports."""
    patch.setattr(sys, "argv", ["train.py", *words])
    root = logging.getLogger()  # Hydra sets its level and handlers, and a later test would see them
    level, handlers = root.level, root.handlers[:]
    try:
        return int(command_line())
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
