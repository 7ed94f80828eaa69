"""train.py: the exit status of every end, and what reaches the run."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import neuralode_exp.run
import train
from neuralode_exp.commands import main
from neuralode_exp.config import folder_name, label, stored_config
from neuralode_exp.outcome import Interrupted, RunFailed


@pytest.fixture
def start(tmp_path: Path, monkeypatch) -> Callable[..., tuple[int, list]]:
    """start(run, words) -> exit status of `train.py words` in an empty folder, and the calls that `run` got."""
    monkeypatch.chdir(tmp_path)

    def start(run: Callable, *words: str) -> tuple[int, list]:
        calls = []

        def recorded(*arguments, **further):
            calls.append(arguments)
            return run(*arguments)

        monkeypatch.setattr(neuralode_exp.run, "run", recorded)
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        try:
            return train.command_line(), calls
        except SystemExit as end:
            return end.code, calls

    return start


def fails(config, folder, values) -> float:
    if config.seed == 1:
        raise RunFailed("it diverged; a lower trainer.lr usually helps")
    return 0.5


def is_interrupted(config, folder, values) -> float:
    raise Interrupted("go on with: python train.py resume=...", signal.SIGTERM)


def test_a_run_gets_its_config_in_a_folder_of_its_own(start, compose) -> None:
    folders = []
    for _ in range(2):
        status, [(config, folder, values)] = start(lambda *_: 0.5, "seed=3", "dataset=circle")
        assert status == 0
        assert config == compose("seed=3", "dataset=circle") == stored_config(folder)
        assert values["seed"] == 3
        assert (folder / "train.log").exists()
        assert folder.name.endswith(f"-{label(config)}")
        folders.append(folder)
    assert folders[0] != folders[1]


def test_a_failed_run_ends_with_1_and_one_line(start, capsys) -> None:
    status, _ = start(fails, "seed=1")
    assert status == 1
    assert capsys.readouterr().err == "it diverged; a lower trainer.lr usually helps\n"


def test_an_interrupted_run_ends_with_the_number_of_its_signal(start, capsys) -> None:
    status, _ = start(is_interrupted)
    assert status == 143
    assert capsys.readouterr().err == "go on with: python train.py resume=...\n"


def test_the_folder_of_a_grids_cell_is_named_by_what_it_holds(start, compose) -> None:
    status, calls = start(lambda *_: 0.5, "-m", "seed=0,1", "hydra.sweep.dir=grid")
    assert status == 0
    assert [folder.name for _, folder, _ in calls] == [folder_name(compose(f"seed={seed}")) for seed in (0, 1)]


def test_an_interrupted_grid_starts_no_other_job(start) -> None:
    status, calls = start(is_interrupted, "-m", "seed=0,1")
    assert status == 143
    assert len(calls) == 1


def test_a_resumed_run_has_the_stored_config_and_leaves_it_as_it_was(start) -> None:
    _, [(config, folder, _)] = start(lambda *_: 0.5, "seed=3", "dataset=van-der-pol", "dataset.mu=3")
    files = {path: path.read_bytes() for path in (folder / ".hydra").iterdir()}
    status, [(resumed, again, _)] = start(lambda *_: 0.5, f"resume={folder.relative_to(Path.cwd())}", "threads=1")
    assert status == 0
    assert again == folder
    assert resumed.model_copy(update={"resume": None, "threads": None}) == config
    assert files == {path: path.read_bytes() for path in (folder / ".hydra").iterdir()}


def test_resume_without_a_folder_starts_nothing(start, capsys) -> None:
    assert main(["resume"]) == 2
    assert capsys.readouterr().err == "resume must name the folder of a run; write neuralode resume FOLDER\n"


def test_help_lists_groups_and_keys(start, capsys) -> None:
    status, _ = start(fails, "--help")
    out = capsys.readouterr().out
    assert status == 0
    for word in ("van-der-pol", "odenet", "tsit5", "debug", "trainer.lr", "solver.rtol", "check=true"):
        assert word in out
