"""One row for each solver: which keys it reads, and what it can do."""

from __future__ import annotations

from dataclasses import dataclass

FIXED_STEP = ("step_size", "max_steps")
ADAPTIVE = ("rtol", "atol", "max_steps", "first_step", "min_step", "max_step")
TOLERANCES = ("rtol", "atol", "max_steps")
NATIVE, TORCHDIFFEQ = ("native",), ("torchdiffeq",)


@dataclass(frozen=True)
class Solves:
    """What a solver reads of `solver`, the engines that have it, whether its steps can be differentiated."""

    keys: tuple[str, ...]
    engines: tuple[str, ...]
    differentiable: bool


SOLVERS: dict[str, Solves] = {}


def add_solver(
    name: str,
    keys: tuple[str, ...],
    engines: tuple[str, ...] = (*NATIVE, *TORCHDIFFEQ),
    *,
    differentiable: bool = True,
) -> None:
    """Add the row of a solver; its file in `conf/solver/` bears the same name.

    Args:
        name: as the command line has it.
        keys: those of `solver` that it reads, beside name and engine.
        engines: those that have it.
        differentiable: whether autograd reaches through its steps; without that only the adjoint gives gradients.
    """
    SOLVERS[name] = Solves(keys, engines, differentiable)


for name in ("euler", "midpoint", "heun2", "heun3", "rk4"):
    add_solver(name, FIXED_STEP)
for name in ("bosh3", "fehlberg2", "adaptive-heun", "dopri5", "dopri8"):
    add_solver(name, ADAPTIVE)
add_solver("tsit5", ADAPTIVE, NATIVE)
add_solver("explicit-adams", FIXED_STEP, TORCHDIFFEQ)
add_solver("implicit-adams", ("rtol", "atol", *FIXED_STEP), TORCHDIFFEQ)
for name in ("lsoda", "radau", "bdf"):
    add_solver(name, TOLERANCES, TORCHDIFFEQ, differentiable=False)

# SciPy's, which estimate a Jacobian by differences: they take stiff systems, and no large state.
SCIPY = tuple(name for name, solves in SOLVERS.items() if not solves.differentiable)
