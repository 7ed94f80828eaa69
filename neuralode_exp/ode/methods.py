"""Methods: a tableau together with how it chooses its steps, and `make_method`, which builds one by name."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from neuralode_exp.ode.tableaus import TABLEAUS, Tableau

ADAPTIVE = tuple(name for name, tableau in TABLEAUS.items() if tableau.e is not None)
FIXED_STEP = tuple(name for name, tableau in TABLEAUS.items() if tableau.e is None)


@dataclass(frozen=True)
class FixedStep:
    """Equal steps: each interval between two observations is divided into ceil(|dt| / step_size - 1e-9) of them.

    Args:
        tableau: the Runge-Kutta method; an error estimate it may have is not used.
        step_size: largest step, > 0, in units of t.
        max_steps: most steps of one solve.
    """

    tableau: Tableau
    step_size: float
    max_steps: int = 100_000

    def __post_init__(self) -> None:
        _require(self.step_size > 0 and math.isfinite(self.step_size), "step_size", "> 0", self.step_size)
        _require(self.max_steps >= 1, "max_steps", ">= 1", self.max_steps)

    def steps_between(self, t: float, t_next: float) -> int:
        """Number of steps from one observation to the next; 1e-9 forgives the rounding of 1 / 0.1."""
        return max(1, math.ceil(abs(t_next - t) / self.step_size - 1e-9))


@dataclass(frozen=True)
class Adaptive:
    """Steps whose estimated error stays below atol + rtol max(|z|, |z1|) in the root mean square.

    After a step of size dt with error ratio r the next one is

        dt min(ifactor, max(dfactor, safety r^-(1/order - 3/4 beta) r_previous^beta)),

    where an accepted step never shrinks the next one through r alone. With beta = 0, the default, this is
    torchdiffeq's controller, constants included; beta > 0 adds the proportional part of a PI controller
    (Hairer & Wanner, Solving ODEs II, Sec. IV.2; Gustafsson 1991). Measured with dopri5 and beta = 0.04, evaluations
    saved at rtol = atol = 1e-3, 1e-5, 1e-7: van der Pol (mu = 10, t to 40) 4 %, 0 %, -1 %; Brusselator (t to 20) 15 %,
    4 %, 0 %. It pays at loose tolerances; beta above 0.08 costs more than it saves.

    Args:
        tableau: a Runge-Kutta method with an error estimate.
        rtol: relative tolerance.
        atol: absolute tolerance, in units of z.
        max_steps: most steps of one solve, accepted and rejected together.
        first_step: size of the first step; None chooses it from the vector field (Hairer I, Sec. II.4).
        min_step: steps at or below this size are accepted whatever their error.
        safety, ifactor, dfactor, beta: constants of the controller above.
    """

    tableau: Tableau
    rtol: float = 1e-7
    atol: float = 1e-9
    max_steps: int = 100_000
    first_step: float | None = None
    min_step: float = 0.0
    safety: float = 0.9
    ifactor: float = 10.0
    dfactor: float = 0.2
    beta: float = 0.0

    def __post_init__(self) -> None:
        _require(self.rtol >= 0, "rtol", ">= 0", self.rtol)
        _require(self.atol >= 0, "atol", ">= 0", self.atol)
        _require(self.rtol + self.atol > 0, "rtol + atol", "> 0", self.rtol + self.atol)
        _require(self.max_steps >= 1, "max_steps", ">= 1", self.max_steps)
        _require(self.first_step is None or self.first_step > 0, "first_step", "> 0 or None", self.first_step)
        _require(self.min_step >= 0, "min_step", ">= 0", self.min_step)
        _require(0 < self.safety <= 1, "safety", "in (0, 1]", self.safety)
        _require(self.ifactor > 1, "ifactor", "> 1", self.ifactor)
        _require(0 < self.dfactor < 1, "dfactor", "in (0, 1)", self.dfactor)
        _require(0 <= self.beta < 1 / self.tableau.order, "beta", "in [0, 1/order)", self.beta)

    def factor(self, ratio: float, previous_ratio: float) -> float:
        """Growth of the step size after an error ratio; a non-finite ratio shrinks as much as is allowed."""
        if not math.isfinite(ratio):
            return self.dfactor
        if ratio == 0.0:
            return self.ifactor
        exponent = 1.0 / self.tableau.order - 0.75 * self.beta
        wanted = self.safety * ratio**-exponent * previous_ratio**self.beta
        return min(self.ifactor, max(wanted, 1.0 if ratio < 1.0 else self.dfactor))


@dataclass(frozen=True)
class TorchdiffeqMethod:
    """A method of torchdiffeq, run by its code; see `neuralode_exp.ode.torchdiffeq_engine`.

    Args:
        name: our name of it, a key of `ENGINE_METHODS`.
        rtol, atol: tolerances; the Adams methods use them for their corrector, fixed-step methods ignore them.
        step_size: as in `FixedStep`; None for methods that choose their steps.
        max_steps: most steps of one solve. SciPy's steps cannot be seen from outside: there it bounds evaluations of f.
        options: further options of its constructor (`first_step`, `min_step`, `safety`, `ifactor`, `dfactor`).
    """

    name: str
    rtol: float = 1e-7
    atol: float = 1e-9
    step_size: float | None = None
    max_steps: int = 100_000
    options: tuple[tuple[str, float], ...] = ()

    @property
    def is_scipy(self) -> bool:
        return ENGINE_METHODS[self.name][0] == "scipy_solver"

    @property
    def is_adaptive(self) -> bool:
        """Whether torchdiffeq itself accepts and rejects its steps."""
        return self.step_size is None and not self.is_scipy


# Our name -> torchdiffeq's method, SciPy's name of it if it is one.
ENGINE_METHODS: dict[str, tuple[str, str | None]] = {
    "euler": ("euler", None),
    "midpoint": ("midpoint", None),
    "heun2": ("heun2", None),
    "heun3": ("heun3", None),
    "rk4": ("rk4", None),
    "explicit-adams": ("explicit_adams", None),
    "implicit-adams": ("implicit_adams", None),
    "adaptive-heun": ("adaptive_heun", None),
    "fehlberg2": ("fehlberg2", None),
    "bosh3": ("bosh3", None),
    "dopri5": ("dopri5", None),
    "dopri8": ("dopri8", None),
    "lsoda": ("scipy_solver", "LSODA"),
    "radau": ("scipy_solver", "Radau"),
    "bdf": ("scipy_solver", "BDF"),
}
_ADAMS = ("explicit-adams", "implicit-adams")
_SCIPY = ("lsoda", "radau", "bdf")
_CONTROLLER = ("rtol", "atol", "max_steps", "first_step", "min_step", "safety", "ifactor", "dfactor")

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
    safety: float | None = None,
    ifactor: float | None = None,
    dfactor: float | None = None,
    beta: float | None = None,
    engine: str = "native",
) -> Method:
    """Build a method by name; what is None keeps the method's default.

    Args:
        name: `euler midpoint heun2 heun3 rk4` (fixed step), `adaptive-heun fehlberg2 bosh3 dopri5 tsit5 dopri8`
            (adaptive), and with `engine="torchdiffeq"` its own, `explicit-adams implicit-adams lsoda radau bdf` too.
        rtol, atol, first_step, min_step, safety, ifactor, dfactor, beta: of an adaptive method, see `Adaptive`.
        step_size: of a fixed-step method; required, never guessed.
        max_steps: most steps of one solve, of any method.
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
        "safety": safety,
        "ifactor": ifactor,
        "dfactor": dfactor,
        "beta": beta,
    }
    settings = {key: value for key, value in given.items() if value is not None}
    if engine == "torchdiffeq":
        _check_name(name, tuple(ENGINE_METHODS), "the torchdiffeq engine's methods")
        return _torchdiffeq_method(name, settings)
    if engine != "native":
        raise ValueError(f"`engine` must be native or torchdiffeq, got {engine!r}")
    if name in ENGINE_METHODS and name not in TABLEAUS:
        raise ValueError(f"{name} is a method of the torchdiffeq engine only; pass engine='torchdiffeq'")
    _check_name(name, tuple(TABLEAUS), "the methods")
    if name in FIXED_STEP:
        _check_settings(name, settings, ("step_size", "max_steps"), "takes fixed steps")
        _require_step_size(name, step_size)
        return FixedStep(TABLEAUS[name], **settings)  # type: ignore[arg-type]
    _check_settings(name, settings, tuple(key for key in given if key != "step_size"), "chooses its own steps")
    return Adaptive(TABLEAUS[name], **settings)  # type: ignore[arg-type]


def _torchdiffeq_method(name: str, settings: dict[str, float]) -> TorchdiffeqMethod:
    if name in FIXED_STEP or name in _ADAMS:
        _check_settings(
            name,
            settings,
            ("step_size", "max_steps", *(("rtol", "atol") if name in _ADAMS else ())),
            "takes fixed steps",
        )
        _require_step_size(name, settings.get("step_size"))
        _require(settings["step_size"] > 0, "step_size", "> 0", settings["step_size"])
    elif name in _SCIPY:
        _check_settings(name, settings, ("rtol", "atol", "max_steps"), "chooses its own steps")
    else:
        _check_settings(name, settings, _CONTROLLER, "chooses its own steps")
        Adaptive(TABLEAUS[name], **settings)  # type: ignore[arg-type]  # checks the ranges
    fields = ("rtol", "atol", "step_size", "max_steps")
    return TorchdiffeqMethod(
        name,
        **{key: settings[key] for key in fields if key in settings},  # type: ignore[arg-type]
        options=tuple((key, value) for key, value in settings.items() if key not in fields),
    )


def _require_step_size(name: str, step_size: float | None) -> None:
    if step_size is None:
        raise ValueError(f"{name} takes fixed steps and cannot choose their size; pass step_size")


def _require(ok: bool, key: str, rule: str, got: object) -> None:
    if not ok:
        raise ValueError(f"`{key}` must be {rule}, got {got}")


def _check_name(name: str, names: tuple[str, ...], what: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"unknown method {name!r}; {hint}{what} are {', '.join(names)}")


def _check_settings(name: str, settings: dict[str, float], allowed: tuple[str, ...], why: str) -> None:
    wrong = [key for key in settings if key not in allowed]
    if wrong:
        raise ValueError(f"{name} {why} and has no {' or '.join(wrong)}; it has {', '.join(allowed)}")
