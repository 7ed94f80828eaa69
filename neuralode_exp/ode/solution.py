"""`solve`, the entry point of the numerical core."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

from neuralode_exp.ode.along_times import AlongTimes
from neuralode_exp.ode.errors import NonFiniteState, SolverError, all_finite
from neuralode_exp.ode.field import VectorField
from neuralode_exp.ode.gradients import GRADIENTS, Adjoint, SolveGradient
from neuralode_exp.ode.methods import Adaptive, FixedStep, Method, TorchdiffeqMethod
from neuralode_exp.ode.state import SingleState, State, TupleState
from neuralode_exp.ode.stats import Stats
from neuralode_exp.ode.times import Stops, check_times
from neuralode_exp.ode.walk import Walk

Gradient = Literal["backprop", "checkpoint", "adjoint", "reversible"] | SolveGradient


@dataclass(frozen=True)
class Solution:
    """The states at the observation times, and the counts of the solve.

    Attributes:
        z: states, shape (len(t), *z0.shape), z[0] = z0; a tuple of such tensors if z0 is a tuple.
        stats: counts of the solve; backward adds `nfe_backward`.
        errors: |dt| times the norm of the error estimate of each accepted step, shape (accepted,), with gradients; None
            unless `errors=True`. Their sum is the regulariser of Pal et al. (arXiv 2105.03918); a random one of them,
            times their number, estimates the sum (arXiv 2303.02262).
    """

    z: Any
    stats: Stats
    errors: Tensor | None = None


def solve(
    f: Callable[[Tensor, Any], Any],
    z0: Tensor | tuple[Tensor, ...],
    t: Tensor | Sequence[float],
    method: Method,
    gradient: Gradient = "backprop",
    *,
    parameters: Iterable[Tensor] = (),
    stops: Sequence[float] | Tensor = (),
    in_norm: Sequence[bool] | None = None,
    adjoint_method: Method | None = None,
    record: bool = False,
    errors: bool = False,
) -> Solution:
    """Solve dz/dt = f(t, z), z(t[0]) = z0, and return z at the times t.

    Gradients flow to z0, to t and to every tensor that f depends on: parameters of a module, tensors that f holds, and
    outputs of other networks. There are four ways to compute them:

    - `backprop`: autograd through the steps. It keeps every stage.
    - `checkpoint`: the same gradient to round-off. It keeps the states between the accepted steps, and the graph of the
      last step. Backward evaluates the stages of the other steps again, one step at a time.
    - `adjoint`: the continuous adjoint (arXiv 1806.07366, Algorithm 1), solved backwards. It keeps the observations
      only. Its error is that of the backward solve, and it is large if f is not smooth: 8 to 22 % on a convolutional
      field with ReLUs at rtol=1e-3.
    - `reversible`: the exact gradient of steps that can be undone (arXiv 2410.11648). It keeps the last state, and a
      further state each time the solve has contracted by as much as the precision allows. Its steps are a method of
      their own with the order of `method`, and cost twice as many evaluations. `Reversible(coupling=...,
      stored_states=...)` in place of the name sets its constants.

    The last three evaluate f again in backward. Random numbers are drawn again, or an f that draws some is refused
    (`adjoint`). Buffers that f changes, such as BatchNorm's running statistics, change again. A gradient that cannot be
    right is refused with a ValueError. This happens if f keeps a tensor from one call to the next, or if only later
    calls use a tensor that is neither a parameter of the module f nor in `parameters`.

    Two things are left to the caller. Between a solve and its backward, f must stay the same: `checkpoint` and
    `reversible` refuse an f that has changed, but `adjoint` notices a changed attribute or buffer only at the last
    time, and only with a method whose steps end with an evaluation there (bosh3, dopri5, tsit5). And an adaptive method
    controls the error of z, not that of its derivatives: where z rests at a point while dz/dz0 changes fast, no
    gradient but the adjoint's sees small steps, and `max_step` helps.

    Args:
        f: vector field, called with a scalar t in [t[0], t[-1]] and a z of z0's shape. It may call
            `torch.autograd.grad` itself, and return a lower precision under autocast. It must not write to z in place.
        z0: initial state of any shape, float32 or float64; its memory format is kept. A tuple of tensors is a state of
            several parts, which f takes and returns as a tuple.
        t: observation times, shape (n,), strictly increasing or decreasing.
        method: from `make_method`.
        gradient: see above. All but `backprop` can be differentiated once, by backward. Through `backprop` the
            transforms of `torch.func` (grad, jacrev, jacfwd, jvp, hessian) and forward mode work too, but not for t.
        parameters: tensors that f depends on but does not use in its first evaluation.
        stops: times at which f jumps, in any order. A step ends at each stop, and the next step evaluates f anew. f is
            never called at a stop, but at the next floating-point number before or after it.
        in_norm: for a tuple, whether each part counts in the error norm, which is the largest of the parts' root mean
            squares; None: all parts count.
        adjoint_method: method and tolerances of the adjoint's backward solve; None: those of `method`.
        record: whether to keep (t, dt, error ratio, accepted) of every trial step in `stats.records`.
        errors: whether to compute `Solution.errors`. It needs an adaptive method of ours, `backprop` or `checkpoint`,
            and a t without gradient. The gradients treat step sizes as constants, as those of z do.

    Returns:
        Solution with z of shape (n, *z0.shape).

    Raises:
        ValueError: for wrong arguments, an f that returns a wrong shape, or a gradient that would be wrong.
        NonFiniteState, StepSizeUnderflow, MaxStepsExceeded: if the solve cannot be finished, also in backward.
        StatesApart: `reversible` with adaptive steps, if its states at the last time are not the solution.

    Example:
        >>> import torch
        >>> from neuralode_exp.ode import make_method, solve
        >>> method = make_method("dopri5", rtol=1e-8, atol=1e-10)
        >>> solution = solve(lambda t, z: -z, torch.ones(1, dtype=torch.float64), [0.0, 1.0], method)
        >>> f"{solution.z[-1].item():.6f}", solution.stats.accepted
        ('0.367879', 11)
    """
    if torch.compiler.is_compiling():
        raise RuntimeError(
            "a solve cannot be a part of a compiled function; compile its steps, make_method(compile=True)"
        )
    _check_method("method", method)
    way = _gradient(gradient, adjoint_method, method)
    times = check_times(t)
    layout = _layout(z0, in_norm)
    state = layout.pack(z0)
    jumps = Stops(stops, times, state.dtype)
    stats = Stats(records=[] if record else None)
    field = VectorField(layout.field(f), state, of_module=f)
    if not isinstance(method, TorchdiffeqMethod) and method.compile:
        from neuralode_exp.ode.compiled import Compiled, Compiler

        field.compiler = Compiler(f, method.compile)
        method = replace(method, stepper=Compiled(method.stepper, method, layout.norm))
    given = _parameters(parameters)
    if errors:
        _check_errors(method, way, t)
    if isinstance(t, Tensor) and unpack_dual(t).tangent is not None:
        raise ValueError("`t` must carry no tangent (forward mode), got one; differentiate by backward")
    along = AlongTimes(field, times, jumps, t)
    start = along.start(state)
    found: Sequence[Tensor] | None = None
    try:
        if isinstance(method, TorchdiffeqMethod):
            from neuralode_exp.ode.torchdiffeq_engine import solve_with_torchdiffeq

            if jumps:
                raise ValueError(
                    f"`stops` need a method of ours, got {method.name} of torchdiffeq, which steps over them"
                )
            z = solve_with_torchdiffeq(field, start, times, method, way, given, adjoint_method, layout.norm, stats)
        else:
            walk = Walk(field, start, times, method, stats, layout.norm, jumps)
            walk.errors = [] if errors else None
            z = _solve_native(walk, way, given, layout.partial)
            found, walk.errors = walk.errors, None  # their graph holds the walk: no cycle of references
    except SolverError as error:
        stats.nfe_forward, error.stats = field.nfe, stats
        if error.state.shape == state.shape:  # otherwise the error comes from a solve within f
            error.state = layout.unpack(error.state)
        raise
    z = along.observations(z)
    stats.nfe_forward = field.nfe
    return Solution(layout.unpack(z), stats, _stacked(found, state) if errors else None)


def _solve_native(walk: Walk, way: SolveGradient, given: Sequence[Tensor], partial: bool) -> Tensor:
    z = way.observations(walk, given)
    if (partial or walk.stepper.unseen) and not all_finite(z.detach()):
        where = ", where the error test does not look,"
        i = next(i for i, state in enumerate(z.detach()) if not all_finite(state))
        before = z[max(0, i - 1)]
        raise NonFiniteState(t=walk.times[i], dt=0.0, steps=walk.stats.trials, z=before, state=z[i], where=where)
    return z


def _check_errors(method: Method, way: SolveGradient, t: object) -> None:
    if not isinstance(method, Adaptive):
        kind = "fixed steps, which estimate none" if isinstance(method, FixedStep) else f"{method.name} of torchdiffeq"
        raise ValueError(f"`errors` need an adaptive method of ours, got {kind}")
    if not way.differentiates_errors:
        name = type(way).__name__.lower()
        raise ValueError(f"`errors` have gradients in backprop and checkpoint, got {name}, which knows states alone")
    if isinstance(t, Tensor) and t.requires_grad:
        raise ValueError("`errors` have no gradient of t, got a t that requires one; detach it")


def _stacked(errors: Sequence[Tensor] | None, like: Tensor) -> Tensor:
    return torch.stack(list(errors)) if errors else like.new_zeros(0)


def _check_method(name: str, method: object) -> None:
    if not isinstance(method, FixedStep | Adaptive | TorchdiffeqMethod):
        fix = f"make_method({method!r}, ...)" if isinstance(method, str) else "one from make_method"
        raise ValueError(f"`{name}` must be a method, got {type(method).__name__} {method!r}; pass {fix}")


def _parameters(given: Iterable[Tensor]) -> list[Tensor]:
    """Return the listed tensors that require a gradient."""
    # The rows of one tensor would be other tensors, and its gradient would be lost.
    several = isinstance(given, Iterable) and not isinstance(given, Tensor | nn.Module)
    listed = list(given) if several else []
    wrong = [type(x).__name__ for x in listed if not isinstance(x, Tensor)] if several else [type(given).__name__]
    if wrong:
        fix = "module.parameters()" if isinstance(given, nn.Module) else "parameters=(tensor, ...)"
        raise ValueError(f"`parameters` must be a sequence of tensors, got {wrong[0]}; pass {fix}")
    return [x for x in listed if x.requires_grad]


def _gradient(name: str | SolveGradient, adjoint_method: Method | None, method: Method) -> SolveGradient:
    if isinstance(name, SolveGradient):
        if adjoint_method is not None:
            raise ValueError(
                "`adjoint_method` belongs to gradient='adjoint', got a gradient object as well; give it that"
            )
        return name
    if name not in GRADIENTS:
        *names, last = GRADIENTS
        raise ValueError(f"`gradient` must be {', '.join(names)} or {last}, got {name!r}")
    if adjoint_method is None:
        return GRADIENTS[name]()
    _check_method("adjoint_method", adjoint_method)
    if name != "adjoint":
        raise ValueError(f"`adjoint_method` belongs to gradient='adjoint', got gradient={name!r}")
    if not isinstance(adjoint_method, TorchdiffeqMethod):
        return Adjoint(adjoint_method)
    if not isinstance(method, TorchdiffeqMethod):
        raise ValueError(
            f"`adjoint_method` must be of the engine of `method`, native, got {adjoint_method.name} of torchdiffeq"
        )
    return Adjoint()


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
