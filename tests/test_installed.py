"""The package as somebody has it who installs the wheel alone and works in a folder of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from neuralode_exp.tracking.metrics import read_metrics
from tests.conftest import ROOT, train

SHORT = ("dataset=circle", "trainer.max_steps=4", "log_every=1", "trainer.evaluate_every=2", "figures=false")
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: building writes beside what it builds."""
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in ("neuralode_exp", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "conf" / "local").mkdir(exist_ok=True)
    (source / "conf" / "local" / "default.yaml").write_text("# @package _global_\nseed: 7\n")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(wheels), "."], cwd=source, check=True)
    [path] = wheels.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is installed, without what it depends on."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], check=True)
    return target


@pytest.fixture
def neuralode(installed: Path, tmp_path: Path) -> Command:
    """neuralode("seed=1") runs the command in an empty folder, with the installed package alone."""

    def neuralode(*words: str, program: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *(program or (str(installed / "bin" / "neuralode"),)), *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return neuralode


def done(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_wheel_holds_conf_types_and_files_but_nothing_of_this_machine(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    of_conf = {name.removeprefix("neuralode_exp/conf/") for name in names if name.startswith("neuralode_exp/conf/")}
    here = {path.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert of_conf == {name for name in here if not name.startswith("local/")}
    further = {"py.typed", "report/page.css", "report/page.js", "data/assets/lynx-hare.csv", "commands/train.py"}
    assert {f"neuralode_exp/{name}" for name in further} <= set(names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"neuralode_exp"}


def test_a_run_is_that_of_train_py_and_can_be_loaded_and_evaluated(
    neuralode: Command, installed: Path, tmp_path: Path
) -> None:
    done(neuralode(*SHORT, "seed=3"))
    [run] = (tmp_path / "outputs").glob("*/*-odenet-circle-dopri5+evaluate_every-2+trainer.max_steps-4+seed-3")
    checkout = tmp_path / "checkout"
    assert train(*SHORT, "seed=3", f"hydra.run.dir={checkout}", cwd=tmp_path).returncode == 0
    one, other = read_metrics(run), read_metrics(checkout)
    timed = {tag for tag in one if "time/" in tag or "rss" in tag}
    assert one.keys() == other.keys()
    assert {tag: values for tag, values in one.items() if tag not in timed} == {
        tag: values for tag, values in other.items() if tag not in timed
    }
    where = "import sys, neuralode_exp; print(neuralode_exp.__file__); neuralode_exp.load_run(sys.argv[1])"
    assert done(neuralode(str(run), program=("-c", where))).startswith(str(installed))
    assert "dynamics/field_error" in done(neuralode("evaluate", str(run), "solver=rk4"))


def test_a_grid_with_processes_runs_and_is_reported(neuralode: Command, tmp_path: Path) -> None:
    out = done(neuralode("-m", *SHORT, "seed=0,1", "hydra/launcher=joblib", "hydra.sweep.dir=grid"))
    assert "2 completed" in out
    done(neuralode("report", "grid"))
    assert "2 completed" in (tmp_path / "grid" / "report.html").read_text(encoding="utf-8")


def test_an_interrupted_run_goes_on(neuralode: Command, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "old_runs" / "dynamics" / "interrupted", tmp_path / "a run, 'old'")
    done(neuralode("resume", "a run, 'old'"))
    assert "resumed after step 5" in (tmp_path / "a run, 'old'" / "train.log").read_text()
    again = neuralode("resume", "a run, 'old'")
    assert again.returncode == 2
    assert "which is completed" in again.stderr


def test_own_files_stand_beside_those_of_the_package(neuralode: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    lines = ["# @package _global_", "defaults: [{override /dataset: circle}]", "seed: 5", "trainer: {max_steps: 3}"]
    (tmp_path / "mine" / "experiment" / "short.yaml").write_text("\n".join(lines))
    out = done(neuralode("--config-dir", "mine", "experiment=short", "figures=false"))
    assert "odenet-circle-dopri5+trainer.max_steps-3+seed-5\n" in out


def test_a_wrong_request_names_the_command_and_writes_nothing(neuralode: Command, tmp_path: Path) -> None:
    ended = neuralode("seed=0,1")
    assert ended.returncode == 2
    assert "; neuralode -m seed=0,1 runs them all" in ended.stderr
    assert list(tmp_path.iterdir()) == []
