"""A search with Optuna. Trials are cells as those of a grid, and the study is told how each of them ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig
from optuna import Study
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from neuralode_exp.config.compose import Composer
from neuralode_exp.config.errors import ConfigError, Mistake
from neuralode_exp.sweep import TRIAL, telling
from neuralode_exp.sweep.cells import Cell, Outcome, Planner
from neuralode_exp.sweep.grid import open_sweep, show, stopping
from neuralode_exp.sweep.launching import Jobs
from neuralode_exp.sweep.processes import jobs_at_once
from neuralode_exp.sweep.space import require_same, split, words
from neuralode_exp.sweep.study import open_study, seeded
from neuralode_exp.tracking.lock import Held, lock

ARGUMENTS = "arguments"  # attribute of a trial: the arguments of its job
DONE = ("completed", "pruned")


def run_search(
    config: DictConfig,
    loader: ConfigLoader,
    launcher: Launcher,
    arguments: Sequence[str],
    *,
    sampler: partial[BaseSampler],
    pruner: str,
    n_trials: int,
    n_jobs: int,
) -> None:
    """Run trials until the study has `n_trials`, print all of them and the best one with its folder.

    Args:
        config: the composed config, of which Hydra's part is read.
        loader: Hydra's loader of the config files.
        launcher: Hydra's launcher, after its setup.
        arguments: the search space and fixed arguments, such as `trainer.lr=tag(log,interval(0.001,0.1))`.
        sampler: makes Optuna's sampler from a seed.
        pruner: `none`, `median` or `hyperband`.
        n_trials: number of trials in all; those of earlier calls, failed and pruned ones count.
        n_jobs: number of trials at a time.

    Raises:
        SystemExit: with 1, if no trial was completed; with 2, if the request is wrong.
        Interrupted: on Ctrl-C, with the command that goes on.
    """
    folder = open_sweep(config)
    with _refusals(), lock(folder):
        study = _study(folder, pruner)
        space, fixed = split(Composer(loader).parse(arguments, []))
        require_same(study, space)
        search = Search(study, Planner(loader, config.hydra.overrides.hydra, folder), launcher)
        with stopping(folder, lambda: search.show(folder)):
            while trials := search.running()[:n_jobs]:
                search.run(trials)
            while (n_left := n_trials - len(study.get_trials(deepcopy=False))) > 0:
                for _ in range(min(n_jobs, n_left)):
                    study.sampler = seeded(sampler, len(study.get_trials(deepcopy=False)))
                    trial = study.ask(space)
                    trial.set_user_attr(ARGUMENTS, [*fixed, *words(trial.params)])
                search.run(search.running())
    completed = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if not completed:
        sys.exit(1)
    best = search.cell(study.best_trial)
    print(f"best: trial {best.number} with {study.best_value:.5g}, {' '.join(words(study.best_params))}: {best.folder}")


class Search:
    """The trials of a study as cells, and their jobs.

    Args:
        study: Optuna's study.
        planner: makes a cell of a trial.
        launcher: Hydra's launcher, after its setup.
    """

    def __init__(self, study: Study, planner: Planner, launcher: Launcher) -> None:
        self.study, self._planner = study, planner
        self._jobs = Jobs(launcher, jobs_at_once(launcher))

    def running(self) -> list[FrozenTrial]:
        """Return the trials whose end the study has not been told, also those that a killed search left."""
        return [
            t for t in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]) if ARGUMENTS in t.user_attrs
        ]

    def cell(self, trial: FrozenTrial) -> Cell:
        return self._planner.cell(trial.number, trial.user_attrs[ARGUMENTS], (telling(TRIAL, trial.number),))

    def run(self, trials: Sequence[FrozenTrial]) -> None:
        """Run the trials that are not done, each distinct run once, and tell the study how they ended."""
        cells = [self.cell(trial) for trial in trials]
        runs = {
            cell.folder: cell
            for cell in reversed(cells)
            if cell.gap is None and self._jobs.outcome(cell).status not in DONE
        }
        self._jobs.run_all(list(runs.values()))
        for trial, end in zip(trials, self._jobs.outcomes(cells), strict=True):
            _tell(self.study, trial, end)

    def show(self, folder: Path) -> None:
        trials = [trial for trial in self.study.get_trials(deepcopy=False) if ARGUMENTS in trial.user_attrs]
        if trials:
            cells = [self.cell(trial) for trial in trials]
            show(folder, cells, self._jobs.outcomes(cells))


def _tell(study: Study, trial: FrozenTrial, end: Outcome) -> None:
    if end.status == "completed" and end.objective is not None:
        study.tell(trial.number, end.objective, skip_if_finished=True)
    else:
        study.tell(trial.number, state=TrialState.PRUNED if end.status == "pruned" else TrialState.FAIL)


def _study(folder: Path, pruner: str) -> Study:
    if (folder / "study.db").exists():
        got, fix = f"{folder}/study.db of Optuna 2", "search in another folder; the runs in this one are kept"
        raise ConfigError([Mistake("hydra.sweep.dir", "must not hold a search of an earlier version", got, fix)])
    study = open_study(folder, pruner)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if ARGUMENTS not in trial.user_attrs:  # the search was killed before it stored the arguments: no run
            study.tell(trial.number, state=TrialState.FAIL)
    return study


@contextmanager
def _refusals() -> Iterator[None]:
    """End with one line if the request is wrong; Hydra would show a traceback."""
    try:
        yield
    except (ConfigError, Held) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
