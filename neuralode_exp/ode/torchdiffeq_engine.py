"""The only module that calls torchdiffeq: its methods with our `Solution`, statistics and errors.

Some of torchdiffeq's defaults would change the problem, and they are replaced. Adaptive methods stop at the last time
instead of stepping past it (`step_t`). Fixed-step methods get our grid: steps end at observations, and nothing is
interpolated linearly. The adjoint leaves the parameters out of its norm. `max_steps` counts steps per solve, not per
observation. The interpolation is torchdiffeq's own: bosh3 and dopri8 are less accurate at observations inside a step
than at its ends.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchdiffeq
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from neuralode_exp.ode.control import Norm
from neuralode_exp.ode.errors import MaxStepsExceeded, NonFiniteState, StepSizeUnderflow, all_finite
from neuralode_exp.ode.field import Stage, VectorField, time_like
from neuralode_exp.ode.gradients import Adjoint, Backprop, SolveGradient
from neuralode_exp.ode.gradients.gradient import refuse_again
from neuralode_exp.ode.methods import FixedStep, Method, TorchdiffeqMethod
from neuralode_exp.ode.solvers import SOLVERS
from neuralode_exp.ode.stats import Stats
from neuralode_exp.ode.steppers import ExplicitRungeKutta
from neuralode_exp.ode.tableaus import TABLEAUS


def solve_with_torchdiffeq(
    f: VectorField,
    z0: Tensor,
    times: Sequence[float],
    method: TorchdiffeqMethod,
    gradient: SolveGradient,
    parameters: Sequence[Tensor],
    adjoint_method: Method | None,
    norm: Norm,
    stats: Stats,
) -> Tensor:
    """Return the states, shape (len(times), *z0.shape), by `odeint`, or for the adjoint by `odeint_adjoint`."""
    _check(gradient, adjoint_method)
    if len(times) == 1 or z0.numel() == 0:  # SciPy and torchdiffeq's adjoint need a state that is not empty
        return torch.stack([z0] * len(times))
    t = torch.tensor(times, dtype=torch.float64, device=z0.device)
    first = None
    if torch.is_grad_enabled() and (isinstance(gradient, Adjoint) or method.is_scipy):
        first = f.find_dependencies(time_like(times[0], z0), z0.detach(), parameters)
        _check_dependencies(f, z0, method, gradient)
    t0, t1 = times[0], times[-1]
    floor = 4e-16 * max(abs(t0), abs(t1), abs(t1 - t0))  # in float64 t + dt equals t for a smaller dt
    backwards = adjoint_method if isinstance(adjoint_method, TorchdiffeqMethod) else method
    if z0.dim() == 0:  # torchdiffeq's steps would give a scalar the precision of its times, float64
        z0 = z0[None]
    watched = _WatchedField(f, method, backwards, stats, z0, floor, first)
    name, options = _options(method, t[-1:])
    if method.is_adaptive:
        options["norm"] = norm
    arguments: dict[str, Any] = {"rtol": method.rtol, "atol": method.absolute_tolerance}
    arguments |= {"method": name, "options": options}
    solver = torchdiffeq.odeint
    if isinstance(gradient, Adjoint):
        solver = torchdiffeq.odeint_adjoint
        # Backward solves each interval by itself. torchdiffeq negates decreasing times.
        arguments |= _adjoint_arguments(f, backwards, (t if times[-1] > times[0] else -t)[:-1])
    if method.is_scipy or backwards.is_scipy:
        # torchdiffeq passes min_step to every SciPy method, forward and backward, and methods without min_step warn.
        warnings.filterwarnings(
            "ignore", message="The following arguments have no effect for a chosen solver: `min_step`"
        )
    try:
        z: Tensor = solver(watched, z0, t, **arguments)
    except AssertionError as error:  # `_WatchedField` raises before each known assertion; others become typed here
        raise StepSizeUnderflow(t=watched.t, dt=watched.dt, steps=watched.steps, z=z0) from error
    if len(z) < len(times):  # torchdiffeq ignores that SciPy failed and returns fewer rows
        reached, last = (times[len(z) - 1], z[-1]) if len(z) else (times[0], z0)
        raise StepSizeUnderflow(t=reached, dt=0.0, steps=f.nfe, z=last)
    if not all_finite(z.detach()):
        raise NonFiniteState(t=watched.t, dt=watched.dt, steps=watched.steps, z=z0, state=z)
    watched.turn_backwards()
    once: Tensor = z if isinstance(gradient, Backprop) else _Once.apply(z)
    return once.reshape(len(times), *f.shape)


class _Once(torch.autograd.Function):
    """Return z. Its gradient cannot be differentiated again: torchdiffeq's adjoint would leave out a part."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, adj: Tensor) -> Tensor:
        refuse_again("adjoint")
        return adj


def _check(gradient: SolveGradient, adjoint_method: Method | None) -> None:
    if not isinstance(gradient, Backprop | Adjoint):
        name = type(gradient).__name__.lower()
        raise ValueError(f"torchdiffeq has no gradient={name!r}; use engine='native', or gradient='adjoint'")
    if adjoint_method is not None and not isinstance(adjoint_method, TorchdiffeqMethod):
        raise ValueError("`adjoint_method` must be of the engine of `method`, torchdiffeq, got a native one")


def _check_dependencies(f: VectorField, z0: Tensor, method: TorchdiffeqMethod, gradient: SolveGradient) -> None:
    """Refuse an f, whose dependencies are known, if its gradient would be wrong."""
    if isinstance(gradient, Backprop):
        if z0.requires_grad or f.depends_on:
            raise ValueError(
                f"{method.name} runs outside autograd; use gradient='adjoint', or call it under torch.no_grad()"
            )
        return
    f.generators.refuse_draws()
    if f.dependencies.made_from_each_other:
        raise ValueError(
            "torchdiffeq's adjoint must have an f that depends on no tensor together with what that was made from, got "
            "one whose gradient would count twice; use engine='native'"
        )


def _adjoint_arguments(f: VectorField, method: TorchdiffeqMethod, starts: Tensor) -> dict[str, Any]:
    """Return the arguments of `odeint_adjoint` for its backward solve, whose intervals end at `starts`."""
    name, options = _options(method, starts)
    return {
        "adjoint_params": f.depends_on,
        "adjoint_method": name,
        "adjoint_rtol": method.rtol,
        "adjoint_atol": method.absolute_tolerance,
        "adjoint_options": {**options, "norm": "seminorm"},
    }


class _WatchedField:
    """f with callbacks that torchdiffeq calls. They count steps, and raise our errors before its assertions fail."""

    def __init__(
        self,
        f: VectorField,
        method: TorchdiffeqMethod,
        backwards: TorchdiffeqMethod,
        stats: Stats,
        z0: Tensor,
        floor: float,
        first: Stage | None,
    ) -> None:
        self.floor, self.first = floor, first
        self.f, self.method, self.backwards, self.stats = f, method, backwards, stats
        self.forward_done = False
        self.t, self.dt, self.steps, self.nfe = math.nan, 0.0, 0, 0
        self.last_dz = z0
        # torchdiffeq warns about callbacks that a method does not have, so only those that it has are set.
        if not method.is_scipy:
            self.callback_step = self._step
        if method.is_adaptive:
            self.callback_accept_step = self._accept
            self.callback_reject_step = self._reject
        if not backwards.is_scipy:
            self.callback_step_adjoint = self._step_backwards

    def turn_backwards(self) -> None:
        """The forward solve is done: what comes now is the adjoint's, with its own method and counts."""
        self.forward_done, self.method = True, self.backwards
        self.steps, self.nfe = 0, 0

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        if self.method.is_scipy and self.nfe >= self.method.max_steps:
            raise MaxStepsExceeded(t=float(t.detach()), dt=0.0, steps=self.nfe, z=z)
        self.nfe += 1
        self.stats.nfe_backward += self.forward_done
        first, self.first = self.first, None  # every method evaluates f at the start first
        if first is not None:
            dz = first.value
        elif self.forward_done and z.requires_grad:
            dz = self._differentiated(t, z)
        else:
            dz = self.f(t, z.reshape(self.f.shape))
        dz = dz.reshape(z.shape)
        self.last_dz = dz.detach()
        if self.method.is_scipy and not all_finite(self.last_dz):  # SciPy would fail in LAPACK, or go on with NaN
            raise NonFiniteState(t=float(t.detach()), dt=0.0, steps=self.nfe, z=z, state=self.last_dz)
        return dz

    def _differentiated(self, t: Tensor, z: Tensor) -> Tensor:
        """Evaluate f in backward, and refuse a tensor that the first evaluation did not use."""
        start = z.view_as(z)
        dz = self.f(t.detach(), start.reshape(self.f.shape))  # the gradient of the times is ours
        if dz.requires_grad:
            self.f.dependencies.check(get_gradient_edge(dz), start.grad_fn, t)
        return dz

    def _step(self, t: Tensor, z: Tensor, dt: Tensor) -> None:
        self._check(float(t.detach()), z.detach(), float(dt.detach()))
        if not self.method.is_adaptive:
            self.stats.accepted += 1

    def _step_backwards(self, t: Tensor, state: tuple[Tensor, ...], dt: Tensor) -> None:
        _, z, adj_z, *_ = state
        self._check(float(t.detach()), torch.stack([z, adj_z]), float(dt.detach()))

    def _check(self, t: float, z: Tensor, dt: float) -> None:
        """Raise the typed error if this step must fail."""
        self.t, self.dt = t, dt
        if self.steps >= self.method.max_steps:
            raise MaxStepsExceeded(t=t, dt=dt, steps=self.steps, z=z)
        self.steps += 1
        if not self.method.is_adaptive:
            return  # the result is checked once, after the solve
        if not all_finite(z):
            raise NonFiniteState(t=t, dt=dt, steps=self.steps, z=z)
        if dt <= self.floor:
            # torchdiffeq's own test, t + dt > t, would fail at a slightly smaller dt. A NaN error ratio makes its dt
            # NaN and then 0, which it would report as an underflow.
            if not all_finite(self.last_dz):
                raise NonFiniteState(t=t, dt=dt, steps=self.steps, z=z, state=self.last_dz)
            raise StepSizeUnderflow(t=t, dt=dt, steps=self.steps, z=z)

    def _accept(self, t: Tensor, z: Tensor, dt: Tensor) -> None:
        self.stats.record(float(t.detach()), float(dt.detach()), math.nan, True)

    def _reject(self, t: Tensor, z: Tensor, dt: Tensor) -> None:
        self.stats.record(float(t.detach()), float(dt.detach()), math.nan, False)


def _options(method: TorchdiffeqMethod, stops: Tensor) -> tuple[str, dict[str, Any]]:
    """Return torchdiffeq's name of the method, and its options for solves that end at one of `stops`."""
    solver = SOLVERS[method.name]
    assert solver.torchdiffeq is not None
    name = solver.torchdiffeq
    if solver.scipy is not None:
        return name, {"solver": solver.scipy}
    if method.step_size is not None:
        return name, {"grid_constructor": _grid(method.step_size)}
    given = {"first_step": method.first_step, "min_step": method.min_step}
    return name, {key: value for key, value in given.items() if value is not None} | {"step_t": stops}


def _grid(step_size: float) -> Callable[[object, Tensor, Tensor], Tensor]:
    """Return a function that makes a grid of equal steps between observations, as `FixedStep` does."""
    like_ours = FixedStep(ExplicitRungeKutta(TABLEAUS["euler"]), step_size)

    def grid(_f: object, _z0: Tensor, t: Tensor) -> Tensor:
        points = [t[:1]]
        for t0, t1 in zip(t[:-1], t[1:], strict=True):
            n = like_ours.steps_between(float(t0), float(t1))
            points.append(t0 + (t1 - t0) * torch.arange(1, n + 1, dtype=t.dtype, device=t.device) / n)
            points[-1][-1] = t1
        return torch.cat(points)

    return grid
