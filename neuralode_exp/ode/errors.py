"""Typed failures of a solve. A grid can record them, a trainer can skip the batch, and a user reads what to try."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuralode_exp.ode.stats import Stats


class SolverError(RuntimeError):
    """A solve that could not be finished.

    Attributes:
        t: time at which the solve stopped.
        dt: signed size of the step that failed.
        steps: steps tried so far, accepted and rejected.
        max_abs_z: max |z| of the state at t.
        stats: counts of the solve until it gave up; None if it failed in backward, where the solution has them. Fixed
            steps are checked after the last one, so they all count, while `steps` ends with the one that failed.
        state: the offending state, detached, in the form of z0; its non-finite entries say which samples diverged.
    """

    what = "the solve failed"
    advice = ""
    stats: Stats | None = None

    def __init__(
        self, *, t: float, dt: float, steps: int, z: Tensor, state: Tensor | None = None, where: str = ""
    ) -> None:
        self.t, self.dt, self.steps = t, dt, steps
        self.state: Any = (z if state is None else state).detach()
        self.max_abs_z = float(z.detach().abs().amax()) if z.numel() else 0.0
        seen = f"dt={dt:.3g}, {steps} steps so far, max|z|={self.max_abs_z:.3g}"
        super().__init__(f"{self.what}{where} at t={t:.6g} ({seen}); {self.advice}")

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.args, self.__dict__)  # the workers of a launcher return it pickled


class NonFiniteState(SolverError):
    """The state or the vector field is NaN or infinite, and a smaller step does not help."""

    what = "the state became NaN or infinite"
    advice = "a lower learning rate, gradient clipping, a shorter time span or float64 usually helps"


class StepSizeUnderflow(SolverError):
    """Every value is finite, but the error test needs steps below the resolution of t: f is stiff or singular."""

    what = "the step size collapsed"
    advice = "the problem is stiff or singular there: try looser tolerances, or an implicit method (radau, bdf, lsoda)"


class MaxStepsExceeded(SolverError):
    """The solve needs more than `max_steps` steps, accepted and rejected together."""

    what = "max_steps was reached"
    advice = "raise max_steps, loosen the tolerances (or enlarge step_size), or use an implicit method if it is stiff"


class StatesApart(SolverError):
    """The two states of `gradient="reversible"` drifted apart by far more than the tolerance allows."""

    what = "the two states of gradient='reversible' drifted apart"
    advice = (
        "f contracts faster than the coupling of the two states draws them together: use smaller steps, or "
        "gradient='checkpoint'"
    )


def _restore(kind: type[SolverError], args: tuple[object, ...], attributes: dict[str, object]) -> SolverError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


def all_finite(z: Tensor) -> bool:
    """Return whether every entry of z is finite, by one reduction and one copy to the host."""
    return bool(torch.isfinite(z).all())
