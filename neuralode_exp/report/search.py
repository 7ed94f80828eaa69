"""A search in a report: the objective of each trial, the importance of the parameters, and the table of trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from neuralode_exp.report.chart import Series, history
from neuralode_exp.report.columns import number
from neuralode_exp.report.tables import Table
from neuralode_exp.sweep import STUDY

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

COMPLETED, PRUNED, BEST = 0, 4, 1  # numbers of their colours in the history
NEEDED = 3  # completed trials that importances need


@dataclass(frozen=True)
class Search:
    """A search, as a report shows it.

    Args:
        folder: folder of the search.
        history: SVG text; empty if no trial was completed.
        importances: importances of the parameters; without rows if too few trials were completed.
        trials: all trials.
    """

    folder: Path
    history: str
    importances: Table
    trials: Table


def find_searches(folders: Sequence[Path]) -> Iterator[Search]:
    """Yield the searches in and under folders; none if Optuna is not installed."""
    for path in sorted({path for folder in folders for path in folder.absolute().rglob(STUDY)}):
        if find_spec("optuna") is None:
            print(f"{path} is not shown, because Optuna is not installed: pip install -e '.[search]'")
            continue
        from neuralode_exp.sweep.study import open_study

        study = open_study(path.parent)
        trials = study.get_trials(deepcopy=False)
        yield Search(path.parent, _history(trials), _importances(study), _table(trials))


def _history(trials: Sequence[FrozenTrial]) -> str:
    """Draw each trial's objective, and the best of the completed trials so far."""
    valued = [(trial, trial.value) for trial in trials if trial.value is not None]
    completed = [(float(trial.number), value) for trial, value in valued if trial.state.name == "COMPLETE"]
    dots = [
        Series(
            COMPLETED if trial.state.name == "COMPLETE" else PRUNED,
            f"trial {trial.number}, {trial.state.name.lower()}: {value:.5g}",
            [(float(trial.number), value)],
        )
        for trial, value in valued
    ]
    if not completed:
        return ""
    numbers, values = zip(*completed, strict=True)
    best = Series(BEST, "the best until then", list(zip(numbers, accumulate(values, min), strict=True)))
    return history("objective of completed (blue) and pruned trials, and the best until then", "trial", dots, best)


def _importances(study: Study) -> Table:
    """Return each parameter's importance for good objectives, in [0, 1] with sum 1 (PED-ANOVA, arXiv:2304.10255)."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    completed = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    found = {}
    if len(completed) >= NEEDED and len({trial.value for trial in completed}) > 1:
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    rows = tuple((key, f"{value:.2f}") for key, value in found.items())
    return Table(("parameter", "importance"), rows, tuple((None, value) for value in found.values()))


def _table(trials: Sequence[FrozenTrial]) -> Table:
    keys = tuple(dict.fromkeys(key for trial in trials for key in trial.params))
    rows, numbers = [], []
    for trial in trials:
        drawn = [trial.params.get(key, "") for key in keys]
        shown = [number(value) if isinstance(value, float) else str(value) for value in drawn]
        seconds = trial.duration.total_seconds() if trial.duration else None
        values = (trial.value, seconds)
        rows.append(
            (str(trial.number), trial.state.name.lower(), *("" if v is None else number(v) for v in values), *shown)
        )
        ordered = (float(value) if isinstance(value, (int, float)) else None for value in drawn)
        numbers.append((float(trial.number), None, *values, *ordered))
    return Table(("trial", "state", "objective", "seconds", *keys), tuple(rows), tuple(numbers))
