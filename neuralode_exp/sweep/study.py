"""The study of a search: a journal file in the sweep's folder, which jobs on any machine can open."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from neuralode_exp.sweep import STUDY

STUDY_NAME = "search"
PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "none": NopPruner,
    "median": MedianPruner,
    "hyperband": HyperbandPruner,
}


def open_study(folder: Path, pruner: str = "none") -> optuna.Study:
    """Return the study in a sweep's folder; a new one if there is none."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name=STUDY_NAME,
        storage=JournalStorage(JournalFileBackend(str(folder / STUDY))),
        sampler=RandomSampler(),  # never used: a search sets its own sampler
        pruner=PRUNERS[pruner](),
        load_if_exists=True,
    )


def seeded(sampler: partial[BaseSampler], number: int) -> BaseSampler:
    """Return the sampler of a trial; its seed depends on the trial's number alone.

    So a search that goes on draws the same points as one that never stopped, and does not repeat its first points.
    """
    seed = sampler.keywords.get("seed")
    if seed is None:
        return sampler()
    return sampler(seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))


class Pruning:
    """Tells the run of a trial whether to stop; the run asks at each evaluation.

    Args:
        number: of the trial.
        pruner: `median` or `hyperband`.
        folder: the sweep's folder.
    """

    def __init__(self, number: int, pruner: str, folder: Path) -> None:
        study = open_study(folder, pruner)
        self._trial = optuna.trial.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)

    def __call__(self, evaluation: int, value: float) -> bool:
        """Report the objective after a number of evaluations, and return whether the run is hopeless."""
        self._trial.report(value, evaluation)
        return self._trial.should_prune()
