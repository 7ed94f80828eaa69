"""`solve`: the one entry point of the numerical core."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from neuralode_exp.ode.errors import SolverError
from neuralode_exp.ode.field import VectorField, time_like
from neuralode_exp.ode.gradients import GRADIENTS, Adjoint, SolveGradient
from neuralode_exp.ode.methods import Method, TorchdiffeqMethod
from neuralode_exp.ode.state import SingleState, State, TupleState
from neuralode_exp.ode.stats import Stats
from neuralode_exp.ode.walk import Walk

Gradient = Literal["backprop", "checkpoint", "adjoint"]


@dataclass(frozen=True)
class Solution:
    """The states at the observation times, and what they cost.

    Attributes:
        z: states, shape (len(t), *z0.shape), z[0] = z0; a tuple of such tensors if z0 is a tuple.
        stats: counts of the solve; `nfe_backward` is filled in by backward.
    """

    z: Any
    stats: Stats


def solve(
    f: Callable[[Tensor, Any], Any],
    z0: Tensor | tuple[Tensor, ...],
    t: Tensor | Sequence[float],
    method: Method,
    gradient: Gradient = "backprop",
    *,
    parameters: Iterable[Tensor] = (),
    stops: Sequence[float] = (),
    in_norm: Sequence[bool] | None = None,
    adjoint_method: Method | None = None,
    record: bool = False,
) -> Solution:
    """Solve dz/dt = f(t, z), z(t[0]) = z0, and give z at the times t.

    Gradients flow to z0, to t and to every tensor that f depends on: the parameters of a module, tensors that it
    holds, what another network has made. There are three ways:

    - `backprop`: autograd through the steps; keeps every stage.
    - `checkpoint`: the same gradient to round-off; keeps the state at each accepted step and the graph of
      the last one, until backward; there evaluates the stages of the others again, one step at a time.
    - `adjoint`: the continuous adjoint (arXiv 1806.07366, Algorithm 1), solved backwards; keeps the observations
      only. Its error is that of the backward solve, and it is large where f is not smooth: 8 to 22 % on a
      convolutional field with ReLUs at rtol=1e-3.

    The last two evaluate f again in backward. Its random draws are repeated (`checkpoint`) or refused (`adjoint`);
    buffers that f changes, as BatchNorm's running statistics, are changed again. A gradient that cannot be right is a
    ValueError: a tensor that f keeps from one call to the next, or one that only later calls use and that is neither
    a parameter of the module f nor in `parameters`.

    Args:
        f: vector field, called with a scalar t and a z of z0's shape; never outside [t[0], t[-1]]. It may call
            `torch.autograd.grad` itself, and return a lower precision under autocast.
        z0: initial state, any shape, float32 or float64; its memory format is kept. A tuple of tensors is a state of
            several parts, which f takes and returns as a tuple.
        t: observation times, shape (n,), strictly increasing or decreasing.
        method: from `make_method`.
        gradient: see above. Both `checkpoint` and `adjoint` can be differentiated once.
        parameters: tensors that f depends on, for those that its first evaluation does not use.
        stops: times at which f jumps, in any order. A step ends at each, and the next one evaluates f anew: f is
            called with the next number beside a stop, never with the stop itself.
        in_norm: for a tuple, whether each part counts in the error norm, which is the largest of the parts' root mean
            squares; None: all do.
        adjoint_method: method and tolerances of the adjoint's backward solve; None takes `method`.
        record: keep (t, dt, error ratio, accepted) of every trial step in `stats.records`.

    Returns:
        Solution with z of shape (n, *z0.shape).

    Raises:
        ValueError: for wrong arguments, an f that returns a wrong shape, a gradient that would be wrong.
        NonFiniteState, StepSizeUnderflow, MaxStepsExceeded: if the solve cannot be finished; in backward too.

    Example:
        >>> import torch
        >>> from neuralode_exp.ode import make_method, solve
        >>> method = make_method("dopri5", rtol=1e-8, atol=1e-10)
        >>> solution = solve(lambda t, z: -z, torch.ones(1, dtype=torch.float64), [0.0, 1.0], method)
        >>> f"{solution.z[-1].item():.6f}", solution.stats.accepted
        ('0.367879', 11)
    """
    way = _gradient(gradient, adjoint_method)
    times = _check_times(t)
    layout = _layout(z0, in_norm)
    _check_stops(stops)
    state = layout.pack(z0)
    stats = Stats(records=[] if record else None)
    field = VectorField(layout.field(f), state, of_module=f)
    t_grad = t if isinstance(t, Tensor) and t.requires_grad and torch.is_grad_enabled() else None

    start = state if t_grad is None else _move_start(field, state, t_grad, times)
    given = [p for p in parameters if p.requires_grad]
    if isinstance(adjoint_method, TorchdiffeqMethod) and not isinstance(method, TorchdiffeqMethod):
        raise ValueError(
            f"`adjoint_method` must be of the engine of `method`, native, got {adjoint_method.name} of torchdiffeq"
        )
    try:
        if isinstance(method, TorchdiffeqMethod):
            from neuralode_exp.ode.torchdiffeq_engine import solve_with_torchdiffeq

            if stops:
                raise ValueError(
                    f"`stops` need a method of ours, got {method.name} of torchdiffeq, which steps over them"
                )
            z = solve_with_torchdiffeq(field, start, times, method, gradient, given, adjoint_method, layout.norm, stats)
        else:
            z = way.observations(Walk(field, start, times, method, stats, layout.norm, stops), given)
    except SolverError as error:
        stats.nfe_forward, error.stats = field.nfe, stats
        raise
    if t_grad is not None:
        z = _move_observations(field, z, t_grad, times)
    stats.nfe_forward = field.nfe
    return Solution(layout.unpack(z), stats)


def _gradient(name: str, adjoint_method: Method | None) -> SolveGradient:
    if name not in GRADIENTS:
        *names, last = GRADIENTS
        raise ValueError(f"`gradient` must be {', '.join(names)} or {last}, got {name!r}")
    if adjoint_method is None:
        return GRADIENTS[name]()
    if name != "adjoint":
        raise ValueError(f"`adjoint_method` belongs to gradient='adjoint', got gradient={name!r}")
    return Adjoint(None if isinstance(adjoint_method, TorchdiffeqMethod) else adjoint_method)


def _move_start(f: VectorField, z0: Tensor, t: Tensor, times: Sequence[float]) -> Tensor:
    """z0 with dz/dt0 = -f(t0, z0): a later start leaves less time to move. The value is z0's."""
    with torch.no_grad():
        f0 = f(time_like(times[0], z0), z0)
    return z0 - (t[0] - t[0].detach()).to(z0) * f0


def _move_observations(f: VectorField, z: Tensor, t: Tensor, times: Sequence[float]) -> Tensor:
    """z with dz_i/dt_i = f(t_i, z_i). The values are z's."""
    with torch.no_grad():
        dz = torch.stack([f(time_like(t_i, z_i), z_i) for t_i, z_i in zip(times, z, strict=True)])
    shift = (t - t.detach()).to(z).reshape(-1, *[1] * (z.dim() - 1))
    return z + shift * dz


def _check_times(t: Tensor | Sequence[float]) -> list[float]:
    if isinstance(t, Tensor) and not t.is_floating_point():
        raise ValueError(f"`t` must be floating point, got {str(t.dtype).removeprefix('torch.')}; use t.double()")
    if isinstance(t, Tensor) and t.dim() != 1:
        raise ValueError(f"`t` must have one dimension, got shape {tuple(t.shape)}; use t.flatten()")
    times = [float(x) for x in (t.tolist() if isinstance(t, Tensor) else t)]
    if not times:
        raise ValueError("`t` must hold at least one time, got none")
    for i, x in enumerate(times):
        if not math.isfinite(x):
            raise ValueError(f"`t` must be finite, got t[{i}]={x}")
    increasing = len(times) < 2 or times[1] > times[0]
    for i, (x, y) in enumerate(zip(times, times[1:], strict=False), start=1):
        if x == y or (y > x) is not increasing:
            raise ValueError(
                f"`t` must be strictly increasing or decreasing, got t[{i}]={y:g} after {x:g}; "
                "sort the times and drop repeats"
            )
    return times


def _check_stops(stops: Sequence[float]) -> None:
    for i, stop in enumerate(stops):
        if not math.isfinite(stop):
            raise ValueError(f"`stops` must be finite, got stops[{i}]={stop}")


def _layout(z0: State, in_norm: Sequence[bool] | None) -> SingleState | TupleState:
    parts = z0 if isinstance(z0, tuple) else (z0,)
    if not parts:
        raise ValueError("`z0` must hold at least one tensor, got an empty tuple")
    for z in parts:
        if not isinstance(z, Tensor) or z.dtype not in (torch.float32, torch.float64):
            got = str(z.dtype).removeprefix("torch.") if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(f"`z0` must be a float32 or float64 tensor, or a tuple of them, got {got}")
        if (z.dtype, z.device) != (parts[0].dtype, parts[0].device):
            raise ValueError(
                f"the parts of `z0` must have one precision and device, got {parts[0].dtype} on {parts[0].device} and "
                f"{z.dtype} on {z.device}"
            )
    if in_norm is not None and (not isinstance(z0, tuple) or len(in_norm) != len(z0) or not any(in_norm)):
        raise ValueError(
            f"`in_norm` must be one bool for each part of a tuple z0, not all False, got {list(in_norm)} for "
            f"{len(z0) if isinstance(z0, tuple) else 'one tensor'}"
        )
    return TupleState(z0, in_norm) if isinstance(z0, tuple) else SingleState()
