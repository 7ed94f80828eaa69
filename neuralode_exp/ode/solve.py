"""`solve`: the one entry point of the numerical core."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from neuralode_exp.ode.adjoint import Adjoint
from neuralode_exp.ode.checkpoint import Checkpoint, KeptStages
from neuralode_exp.ode.methods import Adaptive, FixedStep, Method, TorchdiffeqMethod
from neuralode_exp.ode.output import Output
from neuralode_exp.ode.stats import Stats
from neuralode_exp.ode.steps import time_like, walk
from neuralode_exp.ode.vector_field import CountedField, trainable_parameters

Gradient = Literal["backprop", "checkpoint", "adjoint"]


@dataclass(frozen=True)
class Solution:
    """The states at the observation times, and what they cost.

    Attributes:
        z: states, shape (len(t), *z0.shape), z[0] = z0.
        stats: counts of the solve; `nfe_backward` is filled in by backward.
    """

    z: Tensor
    stats: Stats


def solve(
    f: Callable[[Tensor, Tensor], Tensor],
    z0: Tensor,
    t: Tensor | Sequence[float],
    method: Method,
    gradient: Gradient = "backprop",
    *,
    parameters: Iterable[Tensor] | None = None,
    adjoint_method: Method | None = None,
    record: bool = False,
) -> Solution:
    """Solve dz/dt = f(t, z), z(t[0]) = z0, and give z at the times t.

    Gradients flow to z0, to the parameters of f and to t, in one of three ways:

    - `backprop`: autograd through the steps; keeps every stage.
    - `checkpoint`: the same gradient to round-off; keeps the state at each accepted step and the graph of
      the last one, until backward; there evaluates the stages of the others again, one step at a time.
    - `adjoint`: the continuous adjoint (arXiv 1806.07366, Algorithm 1), solved backwards; keeps the observations
      only, and its error is that of the backward solve.

    Args:
        f: vector field, called with a scalar t and a z of z0's shape; never outside [t[0], t[-1]]. For `checkpoint`
            and `adjoint` it must not keep tensors from one call to the next (as `parametrize.cached` around the solve
            would): some calls have a graph and some have none.
        z0: initial state, any shape, float32 or float64; its memory format is kept.
        t: observation times, shape (n,), strictly increasing or decreasing.
        method: from `make_method`.
        gradient: see above. Both `checkpoint` and `adjoint` can be differentiated once.
        parameters: tensors that f depends on, for `checkpoint` and `adjoint` if f is no Module.
        adjoint_method: method and tolerances of the adjoint's backward solve; None takes `method`.
        record: keep (t, dt, error ratio, accepted) of every trial step in `stats.records`.

    Returns:
        Solution with z of shape (n, *z0.shape).

    Raises:
        ValueError: for wrong arguments, or an f that returns a wrong shape.
        NonFiniteState, StepSizeUnderflow, MaxStepsExceeded: if the solve cannot be finished; in backward too.

    Example:
        >>> import torch
        >>> from neuralode_exp.ode import make_method, solve
        >>> method = make_method("dopri5", rtol=1e-8, atol=1e-10)
        >>> solution = solve(lambda t, z: -z, torch.ones(1, dtype=torch.float64), [0.0, 1.0], method)
        >>> f"{solution.z[-1].item():.6f}", solution.stats.accepted
        ('0.367879', 11)
    """
    if gradient not in get_args(Gradient):
        raise ValueError(f"`gradient` must be backprop, checkpoint or adjoint, got {gradient!r}")
    if adjoint_method is not None and gradient != "adjoint":
        raise ValueError(f"`adjoint_method` belongs to gradient='adjoint', got gradient={gradient!r}")
    times = _check_times(t)
    _check_state(z0)
    given = None if parameters is None else tuple(parameters)
    trainable = () if gradient == "backprop" else trainable_parameters(f, given, gradient)
    stats = Stats(records=[] if record else None)
    field = CountedField(f)
    t_grad = t if isinstance(t, Tensor) and t.requires_grad and torch.is_grad_enabled() else None

    start = z0 if t_grad is None else _move_start(field, z0, t_grad, times)
    if isinstance(method, TorchdiffeqMethod):
        from neuralode_exp.ode.torchdiffeq_engine import solve_with_torchdiffeq

        z = solve_with_torchdiffeq(field, start, times, method, gradient, trainable, adjoint_method, stats)
    else:
        z = _solve_native(field, start, times, method, gradient, trainable, adjoint_method, stats)
    if t_grad is not None:
        z = _move_observations(field, z, t_grad, times)
    stats.nfe_forward = field.nfe
    return Solution(z, stats)


def _solve_native(
    f: CountedField,
    z0: Tensor,
    times: Sequence[float],
    method: FixedStep | Adaptive,
    gradient: Gradient,
    parameters: tuple[Tensor, ...],
    adjoint_method: Method | None,
    stats: Stats,
) -> Tensor:
    if isinstance(adjoint_method, TorchdiffeqMethod):
        raise ValueError(
            f"`adjoint_method` must be of the engine of `method`, native, got {adjoint_method.name} of torchdiffeq"
        )
    tableau = method.tableau
    output = Output(z0, len(times))
    differentiable = torch.is_grad_enabled() and (z0.requires_grad or len(parameters) > 0) and len(times) > 1
    z: Tensor
    if gradient == "checkpoint" and differentiable:
        last = KeptStages(f)
        steps = walk(f, z0, times, method, stats, f_last=last)
        z = Checkpoint.apply(f, steps, last, output, tableau, stats, z0, *parameters)
        return z
    steps = walk(f, z0, times, method, stats)
    if gradient == "backprop" or not differentiable:
        for step in steps:
            output.observe(step, tableau)
        z = output.stack()
    else:
        z = Adjoint.apply(f, steps, output, tableau, times, adjoint_method or method, stats, z0, *parameters)
    return z


def _move_start(f: CountedField, z0: Tensor, t: Tensor, times: Sequence[float]) -> Tensor:
    """z0 with dz/dt0 = -f(t0, z0): a later start leaves less time to move. The value is z0's."""
    with torch.no_grad():
        f0 = f(time_like(times[0], z0), z0)
    return z0 - (t[0] - t[0].detach()).to(z0) * f0


def _move_observations(f: CountedField, z: Tensor, t: Tensor, times: Sequence[float]) -> Tensor:
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


def _check_state(z0: Tensor) -> None:
    if not isinstance(z0, Tensor) or z0.dtype not in (torch.float32, torch.float64):
        got = str(z0.dtype).removeprefix("torch.") if isinstance(z0, Tensor) else type(z0).__name__
        raise ValueError(f"`z0` must be a float32 or float64 tensor, got {got}")
