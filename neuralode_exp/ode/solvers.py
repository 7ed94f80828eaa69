"""The table of solvers: their names, settings and engines. It needs no torch, so that a config can read it."""

from __future__ import annotations

from dataclasses import dataclass

from neuralode_exp.ode.tableau import Tableau
from neuralode_exp.ode.tableaus import TABLEAUS

FIXED_STEP = ("step_size", "max_steps", "compile")
ADAPTIVE = ("rtol", "atol", "max_steps", "first_step", "min_step", "max_step", "compile")
SCIPY = ("rtol", "atol", "max_steps")


@dataclass(frozen=True)
class Solver:
    """One solver.

    Args:
        keys: the settings of `make_method` that it reads.
        tableau: its tableau, if it is an explicit Runge-Kutta method of ours; None: only torchdiffeq has it.
        torchdiffeq: its name in torchdiffeq; None: torchdiffeq does not have it.
        scipy: its name in SciPy, if torchdiffeq calls SciPy for it; then its steps cannot be differentiated.
    """

    keys: tuple[str, ...]
    tableau: Tableau | None = None
    torchdiffeq: str | None = None
    scipy: str | None = None

    @property
    def adaptive(self) -> bool:
        """Whether it chooses its own steps."""
        return "step_size" not in self.keys

    @property
    def differentiable(self) -> bool:
        """Whether its steps can be differentiated; if not, only the adjoint gives gradients."""
        return self.scipy is None

    @property
    def engines(self) -> tuple[str, ...]:
        has = {"native": self.tableau is not None, "torchdiffeq": self.torchdiffeq is not None}
        return tuple(engine for engine, there in has.items() if there)

    def keys_in(self, engine: str) -> tuple[str, ...]:
        """Return the settings that it reads in an engine; torchdiffeq's has no largest step and no compilation."""
        return tuple(key for key in self.keys if engine == "native" or key not in ("max_step", "compile"))


def _native(name: str, torchdiffeq: str | None) -> Solver:
    tableau = TABLEAUS[name]
    return Solver(FIXED_STEP if tableau.e is None else ADAPTIVE, tableau, torchdiffeq)


SOLVERS: dict[str, Solver] = {
    **{name: _native(name, None if name in ("tsit5", "dop853") else name.replace("-", "_")) for name in TABLEAUS},
    "explicit-adams": Solver(FIXED_STEP, torchdiffeq="explicit_adams"),
    "implicit-adams": Solver(("rtol", "atol", *FIXED_STEP), torchdiffeq="implicit_adams"),
    "lsoda": Solver(SCIPY, torchdiffeq="scipy_solver", scipy="LSODA"),
    "radau": Solver(SCIPY, torchdiffeq="scipy_solver", scipy="Radau"),
    "bdf": Solver(SCIPY, torchdiffeq="scipy_solver", scipy="BDF"),
}
