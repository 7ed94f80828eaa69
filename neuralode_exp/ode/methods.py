"""Methods: a stepper and the way its step sizes are chosen; `make_method` builds one by name."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuralode_exp.ode.solvers import SOLVERS, Solver
from neuralode_exp.ode.steppers import ExplicitRungeKutta, Stepper


def slack(t: float, t1: float, step: float) -> float:
    """Return by how much the interval from t to t1 may be longer than a step, or than several, and end with it.

    Users give times in float32, as multiples of 0.1. Their rounding, 2^-23 of the larger time, must not cost a further
    step. Twice as much is allowed, and at most a thousandth of a step.
    """
    return min(2.0**-22 * max(abs(t), abs(t1)), 1e-3 * abs(step))


class _Tolerances:
    rtol: float
    atol: float | None

    @property
    def absolute_tolerance(self) -> float:
        """atol; rtol if atol is None."""
        return self.rtol if self.atol is None else self.atol


@dataclass(frozen=True)
class FixedStep:
    """Equal steps: each interval between observations and stops is divided into ceil(|dt| / step_size) of them.

    An interval that is too long by no more than the rounding of its times to float32, as between multiples of 0.1,
    gets no further step (`slack`).

    Args:
        stepper: one step of the method; its error estimate, if it has one, is not used.
        step_size: largest step, > 0, in units of t.
        max_steps: most steps of one solve.
        compile: whether `torch.compile` compiles the steps; a string names a backend other than the default.
    """

    stepper: Stepper
    step_size: float
    max_steps: int = 100_000
    compile: bool | str = False

    def __post_init__(self) -> None:
        _check_ranges(vars(self))

    def steps_between(self, t: float, t_next: float) -> int:
        """Return the number of steps from one observation to the next."""
        length = abs(t_next - t) - slack(t, t_next, self.step_size)
        return max(1, math.ceil(length / self.step_size - 1e-9))


@dataclass(frozen=True)
class Adaptive(_Tolerances):
    """Steps with an estimated error below atol + rtol max(|z|, |z1|), in the root mean square over all entries.

    `neuralode_exp.ode.control` computes the next step size from the error.

    Args:
        stepper: one step of a method with an error estimate.
        rtol: relative tolerance.
        atol: absolute tolerance, in units of z; None equals rtol.
        max_steps: most steps of one solve, accepted and rejected together.
        first_step: size of the first step; None chooses it from the vector field (Hairer I, Sec. II.4).
        min_step: a step of at most this size is accepted whatever its error.
        max_step: largest step; None: no limit. An event that is shorter than a step may be stepped over.
        compile: as in `FixedStep`.
    """

    stepper: Stepper
    rtol: float = 1e-7
    atol: float | None = None
    max_steps: int = 100_000
    first_step: float | None = None
    min_step: float = 0.0
    max_step: float | None = None
    compile: bool | str = False

    def __post_init__(self) -> None:
        _check_ranges(vars(self))
        largest_is_above = self.max_step is None or self.max_step > self.min_step
        _require(largest_is_above, "max_step", f"> min_step={self.min_step:g} or None", self.max_step)


@dataclass(frozen=True)
class TorchdiffeqMethod(_Tolerances):
    """A method of torchdiffeq, run by its code; see `neuralode_exp.ode.torchdiffeq_engine`.

    Args:
        name: our name of the method, a key of `SOLVERS`.
        rtol, atol: tolerances; atol=None equals rtol. Fixed-step methods except implicit-adams ignore them.
        step_size: as in `FixedStep`; None for methods that choose their steps.
        max_steps: most steps of one solve. For SciPy's methods, whose steps cannot be seen, most evaluations of f.
        first_step, min_step: as in `Adaptive`.
    """

    name: str
    rtol: float = 1e-7
    atol: float | None = None
    step_size: float | None = None
    max_steps: int = 100_000
    first_step: float | None = None
    min_step: float | None = None

    def __post_init__(self) -> None:
        _check_ranges(vars(self))

    @property
    def is_scipy(self) -> bool:
        return SOLVERS[self.name].scipy is not None

    @property
    def is_adaptive(self) -> bool:
        """Whether torchdiffeq itself accepts and rejects its steps."""
        return self.step_size is None and not self.is_scipy


Method = FixedStep | Adaptive | TorchdiffeqMethod


def make_method(
    name: str,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    step_size: float | None = None,
    max_steps: int | None = None,
    first_step: float | None = None,
    min_step: float | None = None,
    max_step: float | None = None,
    compile: bool | str = False,
    engine: str = "native",
) -> Method:
    """Build a method by name; a setting that is None keeps the default of the method.

    Args:
        name: `euler midpoint heun2 heun3 rk4` (fixed step), `adaptive-heun fehlberg2 bosh3 dopri5 tsit5 dopri8 dop853`
            (adaptive). With `engine="torchdiffeq"` also `explicit-adams implicit-adams lsoda radau bdf`, while tsit5
            and dop853 are not there.
        rtol, atol, first_step, min_step, max_step: for adaptive methods, see `Adaptive`.
        step_size: for fixed-step methods, which require it.
        max_steps: most steps of one solve, for every method.
        compile: whether to compile the steps of a method of ours, see `neuralode_exp.ode.compiled`.
        engine: `native` or `torchdiffeq`.

    Returns:
        An immutable method for `solve`.

    Raises:
        ValueError: for an unknown name, a setting that the method does not have, or a value out of range.
    """
    given = {
        "rtol": rtol,
        "atol": atol,
        "step_size": step_size,
        "max_steps": max_steps,
        "first_step": first_step,
        "min_step": min_step,
        "max_step": max_step,
        "compile": compile or None,
    }
    settings = {key: value for key, value in given.items() if value is not None}
    if engine not in ("native", "torchdiffeq"):
        raise ValueError(f"`engine` must be native or torchdiffeq, got {engine!r}")
    solver = _look_up(name, engine)
    _check_settings(name, solver, engine, settings)
    if engine == "torchdiffeq":
        return TorchdiffeqMethod(name, **settings)  # type: ignore[arg-type]
    assert solver.tableau is not None
    if solver.adaptive:
        return Adaptive(ExplicitRungeKutta(solver.tableau), **settings)  # type: ignore[arg-type]
    return FixedStep(ExplicitRungeKutta(solver.tableau, estimate=False), **settings)  # type: ignore[arg-type]


def _look_up(name: str, engine: str) -> Solver:
    names = [known for known, solver in SOLVERS.items() if engine in solver.engines]
    if name in names:
        return SOLVERS[name]
    if name in SOLVERS and engine == "native":
        raise ValueError(f"{name} is a method of the torchdiffeq engine only; pass engine='torchdiffeq'")
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    what = "the methods" if engine == "native" else "the torchdiffeq engine's methods"
    raise ValueError(f"unknown method {name!r}; {hint}{what} are {', '.join(names)}")


def _check_settings(name: str, solver: Solver, engine: str, settings: Mapping[str, object]) -> None:
    allowed = solver.keys_in(engine)
    wrong = [key for key in settings if key not in allowed]
    if wrong == ["compile"]:
        raise ValueError(f"compile=True compiles methods of ours, got {name} of torchdiffeq; use engine='native'")
    if wrong:
        why = "chooses its own steps" if solver.adaptive else "takes fixed steps"
        if wrong == ["max_step"] and solver.adaptive:
            why = "is run by code that does not bound its steps" if engine == "torchdiffeq" else why
        raise ValueError(f"{name} {why} and has no {' or '.join(wrong)}; it has {', '.join(allowed)}")
    if not solver.adaptive and "step_size" not in settings:
        raise ValueError(f"{name} takes fixed steps and cannot choose their size; pass step_size")


def _check_ranges(settings: Mapping[str, Any]) -> None:
    """Check the ranges of the numbers that a method has; None stands for its default."""
    rtol = settings.get("rtol")
    if rtol is not None:
        atol = rtol if settings["atol"] is None else settings["atol"]
        _require(rtol >= 0, "rtol", ">= 0", rtol)
        _require(atol >= 0, "atol", ">= 0", atol)
        _require(rtol + atol > 0, "rtol + atol", "> 0", rtol + atol)
    max_steps, min_step = settings["max_steps"], settings.get("min_step") or 0.0
    _require(max_steps >= 1 and max_steps % 1 == 0, "max_steps", "a whole number >= 1", max_steps)
    step_size, first_step = settings.get("step_size"), settings.get("first_step")
    _require(step_size is None or (step_size > 0 and math.isfinite(step_size)), "step_size", "> 0", step_size)
    _require(first_step is None or 0 < first_step < math.inf, "first_step", "a finite number > 0 or None", first_step)
    _require(0 <= min_step < math.inf, "min_step", "a finite number >= 0", min_step)


def _require(ok: bool, key: str, rule: str, got: object) -> None:
    if not ok:
        raise ValueError(f"`{key}` must be {rule}, got {got}")
