"""The axes of grids and searches: those in files, one at a time in a search, and keys of Hydra that are fixed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from neuralode_exp.config import ConfigError
from neuralode_exp.config.axes import expand, in_files
from neuralode_exp.config.compose import CONF, Composer
from neuralode_exp.config.hydra_internals import make_loader
from neuralode_exp.config.preflight import preflight
from neuralode_exp.sweep.plugins import GridSweeper


def mistakes(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        preflight(list(words))
    return str(caught.value)


def test_a_sweep_over_files_with_axes_is_refused() -> None:
    line = "experiment cannot be swept over a file that has axes, got {}; start it in a command of its own"
    got = mistakes("-m", "experiment=hidden-dynamics,debug,nonlinear").splitlines()
    assert got == [line.format("hidden-dynamics"), line.format("nonlinear")]
    assert str(preflight(["-m", "experiment=hidden-dynamics", "check=true"]).answer).startswith("ok: 60 cells")


def test_one_run_of_an_experiment_with_axes_is_told_that_it_uses_none() -> None:
    note = "the axes dataset, model, seed of the experiment are used with -m alone: this is one run"
    assert preflight(["experiment=hidden-dynamics"]).note == note
    assert preflight(["experiment=hidden-dynamics", "trainer.momentum=0.5"]).note == (
        f"trainer.momentum will have no effect: this run does not read it\n{note}"
    )
    assert preflight(["experiment=debug"]).note is None
    assert preflight(["-m", "experiment=hidden-dynamics"]).note is None


def test_axes_in_a_file_are_spelled_alike_in_the_check_and_in_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    params = {
        "trainer.clip": None,
        "figures": False,
        "seed": "0,1",
        "dataset.low": [-1, None],
        "model.options": {"a": 1},
    }
    words = ["trainer.clip=null", "figures=false", "seed=0,1", "dataset.low=[-1, null]", "model.options={a: 1}"]
    assert in_files(params) == words
    ran: list[str] = []
    work: Callable[..., None] = lambda config, loader, launcher, axes: ran.extend(axes)  # noqa: E731
    monkeypatch.setattr(GridSweeper, "work", staticmethod(lambda: work))
    sweeper = GridSweeper(params)
    sweeper.config = sweeper.hydra_context = sweeper.launcher = type("Any", (), {"config_loader": None})()
    sweeper.sweep(["seed=3"])
    assert ran == [*words, "seed=3"]


def test_a_search_is_checked_one_axis_at_a_time() -> None:
    axes = Composer(make_loader(CONF)).parse([f"{key}=range(20)" for key in ("seed", "dataset.seed", "log_every")], [])
    assert len(list(expand(axes))) == 20**3
    assert len(list(expand(axes, whole=False))) == 1 + 3 * 19


def test_an_axis_without_values_is_named_beside_an_interval() -> None:
    lines = mistakes("-m", "trainer.lr=interval(0.001,0.1)", "seed=range(0,0)").splitlines()
    assert lines[0] == "seed must have a value, got range(0,0); range(0,3) is 0, 1 and 2"
    assert lines[1].startswith("trainer.lr must have listed values in a grid, got interval(0.001,0.1); ")


@pytest.mark.skipif(find_spec("optuna") is not None, reason="the extra is installed")
@pytest.mark.parametrize("word", ["hydra.sweeper.pruner=median", "hydra/sweeper/sampler=random"])
def test_settings_of_an_extra_that_is_missing_do_not_hide_it(word: str) -> None:
    line = "hydra/sweeper=optuna needs an optional dependency; pip install -e '.[search]' brings it"
    assert mistakes("-m", "hydra/sweeper=optuna", word, "seed=0,1") == line


@pytest.mark.parametrize("word", ["hydra.output_subdir=null", "hydra.output_subdir=other"])
@pytest.mark.parametrize("seeds", [("seed=0",), ("-m", "seed=0,1")])
def test_a_run_stores_its_config_where_it_is_read(word: str, seeds: tuple[str, ...]) -> None:
    got = mistakes(*seeds, word)
    assert got.startswith(f"hydra.output_subdir cannot be changed, got {word.partition('=')[2]}; leave it out: ")


def test_the_folders_of_cells_cannot_be_changed_by_a_whole_section() -> None:
    assert mistakes("-m", "hydra.sweep={subdir: x}", "seed=0,1") == (
        "hydra.sweep.subdir cannot be changed, got x; leave it out: the folder of a cell is named after its config"
    )
    assert preflight(["-m", "hydra.sweep={dir: out}", "seed=0,1"]).argv


def test_a_resumed_run_is_no_grid_by_hydras_mode(tmp_path: Path) -> None:
    got = mistakes(f"resume={tmp_path}", "hydra.mode=MULTIRUN")
    assert got.startswith(f"resume is for one run, not a grid, got {tmp_path}; leave out -m")


def test_a_mistake_without_a_fix_is_counted_too(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("t,z1\n0,x\n1,2\n")
    first, second = mistakes("-m", "dataset=csv", "seed=0,1", f"dataset.path={tmp_path}/table.csv,nowhere").splitlines()
    assert first.endswith('has "t", "z1"; in 2 of 4 cells')
    assert second == "dataset.path must name a file, got nowhere, which does not exist; in 2 of 4 cells"
