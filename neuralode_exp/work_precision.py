"""Work and precision of trained runs, each solved by several methods with several tolerances or step sizes.

Two errors are compared with two costs, evaluations and seconds. The error against the truth, or the data, cannot fall
below that of the trained field. The error against a tight solve of the same field falls further (Hairer, Nørsett &
Wanner, Solving ODEs I, Sec. II.10).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from neuralode_exp.aligned import aligned
from neuralode_exp.config import Config, ConfigError, Mistake, solver_arguments
from neuralode_exp.config.axes import expand
from neuralode_exp.config.compose import CONF, Composer
from neuralode_exp.config.hydra_internals import make_loader
from neuralode_exp.evaluate import changed_config, extensions_of, task_with_weights
from neuralode_exp.load import Weights, completed_run
from neuralode_exp.ode import SOLVERS, SolverError
from neuralode_exp.trainers.consistency import REFERENCE, TIGHTER, TIGHTEST, relative_change
from neuralode_exp.trainers.task import Solved

SETTINGS = ("rtol", "step_size")  # keys of a solver, of which each reads at most one
PASSES = 3  # passes over the test data; the fastest counts
ENOUGH = 2.0  # after this many seconds no further pass is made


@dataclass(frozen=True)
class Row:
    """One run under one solver.

    Args:
        run: folder of the run.
        model, dataset: model and dataset of the run.
        solver, setting: name of the solver, and its tolerance or step size; empty for a network without an ODE.
        changes: the other words in which the rows of a run differ, such as `dataset.noise=0.5`.
        tag: tag of the error, against the truth if that is known, else against the data.
        error: the error; infinite if the solve failed.
        difference: ||z - z'|| / ||z'|| with the states z' of a tight solve of the same field; NaN without an ODE.
        nfe: evaluations of a solve.
        seconds: time of the solves of all test data.
        failure: why there is no result; empty if there is one.
    """

    run: str
    model: str
    dataset: str
    solver: str
    setting: str
    changes: str
    tag: str
    error: float
    difference: float
    nfe: float
    seconds: float
    failure: str = ""


def work_precision(folders: Sequence[Path], words: Sequence[str], weights: Weights = "last") -> list[Row]:
    """Evaluate each run under each solver of `words`, with each tolerance or step size that the solver reads.

    Args:
        folders: folders of completed runs.
        words: the changes, such as `solver=rk4,dopri5`, `solver.rtol=1e-2,1e-4`, `solver.step_size=1,0.5`. A tolerance
            is both `solver.rtol` and `solver.atol` unless the second is given.
        weights: `last`, those at the end of training, or `best`, those best on held-out data.

    Raises:
        NotLoadable: there is no completed run, or the weights do not fit the data.
        ConfigError: with all mistakes in `words`, or if no data are held out.
    """
    return [row for folder in folders for row in _of_run(folder, list(combinations(words)), weights)]


def combinations(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield each combination of the values in `words`, with atol equal to rtol if it is not given."""
    mistakes: list[Mistake] = []
    overrides = Composer(make_loader(CONF)).parse(words, mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    for combination in expand(overrides):
        given = dict(word.partition("=")[::2] for word in combination)
        if "solver.rtol" in given and "solver.atol" not in given:
            combination.append(f"solver.atol={given['solver.rtol']}")
        yield combination


def _of_run(folder: Path, combinations: Sequence[Sequence[str]], weights: Weights) -> Iterator[Row]:
    stored, _ = completed_run(folder, extensions_of(combinations[0]))
    has_ode = stored.solves_ode
    shared = set.intersection(*map(set, combinations))
    found: dict[str, tuple[Config, str]] = {}
    for words in combinations:
        kept = words if has_ode else [word for word in words if not word.startswith("solver")]
        config = changed_config(folder, stored, kept)
        read = solver_arguments(config.solver) if has_ode else {}
        key = repr((read, config.dataset, config.precision, config.device, config.threads))
        found.setdefault(key, (config, " ".join(word for word in kept if word not in shared and _is_further(word))))
    configs = [config for config, _ in found.values()]
    tolerance = min([math.inf, *(c.solver.rtol for c in configs if "rtol" in SOLVERS[c.solver.name].keys)])
    tight: dict[str, Solved | None] = {}
    for config, changes in found.values():
        reference = None
        if has_ode:
            if (key := repr(config.dataset)) not in tight:
                tight[key] = _solve(folder, _tight(config, tolerance / TIGHTER), weights)
            reference = tight[key]
        about = {"run": str(folder), "model": stored.model.name, "dataset": config.dataset.name}
        about |= {"solver": config.solver.name if has_ode else "", "setting": setting(config) if has_ode else ""}
        about |= {"changes": changes}
        yield _row(folder, config, about, reference, weights)


def _is_further(word: str) -> bool:
    """Return whether an argument is neither the name nor the setting of a solver, which have columns of their own."""
    return word.partition("=")[0] not in ("solver", *(f"solver.{key}" for key in (*SETTINGS, "atol")))


def _tight(config: Config, tolerance: float) -> Config:
    """Return the same run in float64 with dopri5 and a tolerance between 1e-9 and 1e-6."""
    tolerance = min(max(tolerance, TIGHTEST), REFERENCE)
    solver = {"name": "dopri5", "engine": "native", "rtol": tolerance, "atol": tolerance, "max_steps": 1_000_000}
    return config.model_copy(update={"solver": config.solver.model_copy(update=solver), "precision": "float64"})


def _row(folder: Path, config: Config, about: dict[str, Any], reference: Solved | None, weights: Weights) -> Row:
    try:
        found = _solve(folder, config, weights, PASSES)
    except SolverError as error:
        about |= {"tag": reference.tag if reference else "", "failure": f"{type(error).__name__}: {error}"}
        return Row(**about, error=math.inf, difference=math.inf, nfe=math.nan, seconds=math.nan)
    difference = math.nan if reference is None else relative_change(found.states.double(), reference.states)
    return Row(**about, tag=found.tag, error=found.error, difference=difference, nfe=found.nfe, seconds=found.seconds)


def _solve(folder: Path, config: Config, weights: Weights, passes: int = 1) -> Solved:
    """Solve the test data several times, and return the fastest solve."""
    task = task_with_weights(folder, config, weights)
    found: list[Solved] = []
    with torch.no_grad():
        while len(found) < passes and sum(one.seconds for one in found) < ENOUGH:
            solved = task.solved()
            if solved is None:
                fix = "evaluate it on other data, or train with dataset.validation"
                raise ConfigError([Mistake("RUN", "must have held-out data", str(folder), fix)])
            found.append(solved)
    return min(found, key=lambda one: one.seconds)


def setting(config: Config) -> str:
    """Return the tolerance or the step size, whichever the solver reads."""
    keys = [key for key in SETTINGS if key in SOLVERS[config.solver.name].keys]
    return " ".join(f"{key}={getattr(config.solver, key):g}" for key in keys)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned text."""
    several, changed = len({row.run for row in rows}) > 1, any(row.changes for row in rows)
    heads = ["run"] * several + ["solver", ""] + ["changes"] * changed + [_only({row.tag for row in rows})]
    heads += ["against a tight solve", "evaluations", "seconds"]
    lines = [heads]
    for row in rows:
        name = [f"{row.model} {Path(row.run).name}"] * several
        error = f"{row.error:.4g}" + (f" {row.tag}" if len({r.tag for r in rows}) > 1 else "")
        numbers = (f"{row.difference:.3g}", f"{row.nfe:g}", f"{row.seconds:.3g}")
        lines.append([*name, row.solver or row.model, row.setting, *[row.changes] * changed, error, *numbers])
    words = {row: " ".join(filter(None, (row.solver, row.setting, row.changes))) for row in rows}
    failures = [f"{words[row]}: {row.failure}" for row in rows if row.failure]
    return "\n".join([aligned(lines), *failures])


def write(rows: Sequence[Row], folder: Path) -> tuple[Path, Path]:
    """Write work-precision.csv and work-precision.png to a folder, and return their paths."""
    from neuralode_exp.tracking.figures.work_precision import draw

    folder.mkdir(parents=True, exist_ok=True)
    table, picture = folder / "work-precision.csv", folder / "work-precision.png"
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    draw(curves(rows), _only({row.tag for row in rows})).savefig(picture)
    return table, picture


def curves(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    """Return the rows without failures, grouped by the lines of the picture: a run under a solver, with its changes."""
    several = len({row.run for row in rows}) > 1
    found: dict[str, list[Row]] = {}
    for row in rows:
        name = " ".join(filter(None, (row.solver or row.model, row.changes)))
        found.setdefault(f"{Path(row.run).name}: {name}" if several else name, []).extend([row] * (not row.failure))
    return {name: of_name for name, of_name in found.items() if of_name}


def _only(tags: set[str]) -> str:
    return tags.pop() if len(tags) == 1 else "error"
