"""A search with Optuna: trials are cells like a grid's, and a trial that fails is recorded as failed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from optuna import Study, create_study
from optuna.trial import FrozenTrial, TrialState

from neuralode_exp.outcome import RunFailed
from neuralode_exp.sweep.cells import Cell, Outcome, Planner, outcome
from neuralode_exp.sweep.grid import open_sweep, outcomes, show, stopping
from neuralode_exp.sweep.launching import Jobs

if TYPE_CHECKING:
    from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

# A trial that an interrupted call has left: it failed for Optuna, and its parameters are tried again.
LEFT = "left"


class Trials:
    """Stands in for the launcher of Optuna's sweeper, which dies of a lost job: here each job ends in a value or fails.

    Args:
        jobs: run the cells.
        planner: makes a cell of a trial.
    """

    def __init__(self, jobs: Jobs, planner: Planner) -> None:
        self._jobs, self._planner = jobs, planner

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        cells = [self._planner.cell(initial_job_idx + i, words) for i, words in enumerate(job_overrides)]
        runs = {cell.folder: cell for cell in cells if cell.gap is None and outcome(cell).status != "completed"}
        self._jobs.run(list(runs.values()))
        return [_returned(cell, end) for cell, end in zip(cells, outcomes(cells, self._jobs), strict=True)]


def _returned(cell: Cell, end: Outcome) -> JobReturn:
    returned = JobReturn(overrides=cell.overrides)
    returned.status = JobStatus.COMPLETED if end.status == "completed" else JobStatus.FAILED
    returned.return_value = end.objective if end.status == "completed" else RunFailed(f"{end.status}: {end.reason}")
    return returned


def run_search(sweeper: OptunaSweeperImpl, loader: ConfigLoader, arguments: list[str]) -> None:
    """Run trials until the study has `n_trials`, print all of them and the best one with its folder.

    Args:
        sweeper: Optuna's, set up.
        loader: Hydra's, of the config files.
        arguments: the search space and what is fixed, as `trainer.lr=tag(log,interval(0.001,0.1))`.

    Raises:
        SystemExit: with 1, if no trial was completed.
        Interrupted: on Ctrl-C, with the command that goes on.
    """
    folder = open_sweep(sweeper.config)
    planner = Planner(loader, sweeper.config.hydra.overrides.hydra, folder)
    jobs = Jobs(sweeper.launcher)
    sweeper.launcher = Trials(jobs, planner)
    study = create_study(
        study_name=sweeper.study_name,
        storage=sweeper.storage,
        directions=sweeper._get_directions(),
        load_if_exists=True,
    )
    _try_again(study)
    done = [trial for trial in study.trials if trial.state.is_finished() and LEFT not in trial.user_attrs]
    sweeper.n_trials = max(0, sweeper.n_trials - len(done))
    sweeper.job_idx = len(study.trials)
    with stopping(folder, lambda: _show(study, planner, jobs)):
        try:
            # Of two values of a key the later counts, as in a grid.
            sweeper.sweep(list({word.partition("=")[0]: word for word in arguments}.values()))
        except ValueError:
            if _completed(study):
                raise
            # Optuna's sweeper asks for the best trial at its end, and there is none.
    if not _completed(study):
        sys.exit(1)
    best = study.best_trial
    words = " ".join(f"{key}={value}" for key, value in best.params.items())
    print(f"best: trial {best.number} with {best.value:.5g}, {words}: {planner.cell(0, _words(best)).folder}")


def _try_again(study: Study) -> None:
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study._storage.set_trial_user_attr(trial._trial_id, LEFT, True)
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def _completed(study: Study) -> bool:
    return any(trial.state == TrialState.COMPLETE for trial in study.trials)


def _show(study: Study, planner: Planner, jobs: Jobs) -> None:
    trials = [t for t in study.trials if t.params and t.state != TrialState.WAITING and LEFT not in t.user_attrs]
    cells = [planner.cell(trial.number, _words(trial)) for trial in trials]
    if cells:
        show(cells[0].folder.parent, cells, outcomes(cells, jobs))


def _words(trial: FrozenTrial) -> list[str]:
    """The arguments that the trial's job got."""
    fixed = {key: value for key, value in trial.user_attrs.items() if key != LEFT}
    return [f"{key}={value}" for key, value in (trial.params | fixed).items()]
