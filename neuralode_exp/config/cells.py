"""Which combinations (cells) of model, dataset and solver have a meaning, and the arguments of a cell's solver."""

from __future__ import annotations

import itertools
from typing import Any

from neuralode_exp.config.errors import Mistake
from neuralode_exp.config.gaps import of_every_kind
from neuralode_exp.config.kinds import KINDS, unfit
from neuralode_exp.config.schema import Config, Solver
from neuralode_exp.ode.solvers import SOLVERS


def read_by_solver(solver: Solver, gradient: str | None = None) -> dict[str, Any]:
    """Return the solver's name, its engine and the keys that it reads. An atol of null is replaced by rtol.

    With `gradient`, the keys that this way to differentiate reads are included.
    """
    of_gradient = ("coupling", "stored_states") if gradient == "reversible" else ()
    read = solver.model_dump(include={"name", "engine", *SOLVERS[solver.name].keys, *of_gradient})
    return read | {"atol": solver.atol or solver.rtol} if "atol" in read else read


def solver_arguments(solver: Solver) -> dict[str, Any]:
    """Return the arguments of `neuralode_exp.ode.make_method` from the keys that the solver reads.

    `first_step=previous` is left out, because it is not a number: the model itself keeps the step size of its last
    solve.
    """
    return {key: value for key, value in read_by_solver(solver).items() if value != "previous"}


def without_meaning(config: Config) -> Mistake | None:
    """Return why a cell of model, dataset and solver has no meaning and what to pick instead, or None if it has one."""
    gaps = itertools.chain(KINDS[config.dataset.kind].gaps(config), of_every_kind(config))
    return unfit(config) or next(gaps, None)
