"""A mixed grid, TensorBoard on it, and Debian's chromium to look at it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from neuralode_exp.config import Config
from neuralode_exp.outcome import RunFailed
from neuralode_exp.run import run
from tests.conftest import TINY_IMAGES

TWO_STEPS = ("trainer.epochs=null", "trainer.max_steps=2", "log_every=1", "trainer.evaluate_every=1")
IMAGES = (*TINY_IMAGES, *TWO_STEPS, "model.channels=8", "solver=rk4", "solver.step_size=1")
POINTS = ("dataset=two-moons", *TWO_STEPS, "dataset.validation=100", "dataset.test=100", "model.width=8")
GRID = {
    **{name: (*IMAGES, f"model={name}") for name in ("mlp", "stem", "resnet", "rknet", "odenet")},
    "flow": (*POINTS, "model=odenet", "solver=rk4", "solver.step_size=0.5"),
    "failed": (*IMAGES, "model=odenet", "solver=dopri5", "solver.max_steps=1", "trainer.max_failures=1"),
}
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=6000,2400",  # tables draw only the cells that are seen
)


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory, compose: Callable[..., Config]) -> Path:
    """A run of each model, a density, and one that fails."""
    folder = tmp_path_factory.mktemp("grid")
    for name, words in GRID.items():
        config = compose(*words)
        values = config.model_dump(mode="json")
        (folder / name / ".hydra").mkdir(parents=True)
        (folder / name / ".hydra" / "config.yaml").write_text(yaml.safe_dump(values))
        try:
            run(config, folder / name, values)
        except RunFailed:
            assert name == "failed"
    return folder


@pytest.fixture(scope="session")
def tensorboard(grid: Path) -> Iterator[str]:
    """Address of TensorBoard, which this machine alone can reach."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "tensorboard.main", "--logdir", str(grid), "--host", "127.0.0.1", "--port", str(port)]
    log = open(grid.parent / "tensorboard.log", "w")  # noqa: SIM115 - open as long as the process
    process = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: set(GRID) <= set(ask(f"{address}/data/runs")), "TensorBoard to read the runs")
        yield address
    finally:
        process.terminate()
        process.wait()
        log.close()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the extra browser")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


def ask(address: str) -> list[str]:

    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return []


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 120.0) -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.5)
    return answer
