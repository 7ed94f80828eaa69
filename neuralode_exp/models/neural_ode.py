"""A vector field with the method that solves it and the way its solves are differentiated; no other model solves."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from neuralode_exp.data.inputs import Input
from neuralode_exp.ode import FixedStep, Gradient, Method, Stats, TorchdiffeqMethod, solve

Field = TypeVar("Field", bound=nn.Module)
State = TypeVar("State", Tensor, tuple[Tensor, ...])
Integrand = Callable[[Tensor, Tensor, Tensor], Tensor]
VectorField = Callable[[Tensor, Tensor], Tensor]
Integral = Callable[[VectorField, Tensor], Integrand]


class NeuralODE(nn.Module, Generic[Field]):
    """Solves dz/dt = f(t, z), z(t[0]) = z0 for z(t).

    All states of a batch share the steps of an adaptive method.

    Args:
        field: f, called with a scalar t and a z of z0's shape.
        method: the method of the solves, from `make_method`.
        gradient: how solves are differentiated, see `solve`.
        input: how the inputs u of a driven field are read between their times: `hold`, `linear` or `cubic`.

    Attributes:
        method, gradient: may be replaced at any time, to solve a trained field by another method. They are not in the
            state_dict.
        integrals: functions that take the field and z0 and return an integrand g(t, z, dz/dt), with one number for each
            state of the batch. The integrals are solved as further parts of the state, which the error norm leaves out.
            May be set at any time. Fields with inputs have none.
        values: int g dt over the last solve for each integrand, with gradients; empty if that solve had none or failed.
            In a solve backwards in time dt is negative, and so is the integral of a positive g.
        with_errors: whether a solve sets `errors`, see `solve`. May be set at any time.
        errors: |dt| times the error estimate of each accepted step of the last solve, with gradients.
        steer: in training, the end of a solve between two times is drawn from [t1 - steer, t1 + steer] (Ghosh et al.
            2020, https://arxiv.org/abs/2006.10711).
        stats: evaluations and steps of the last solve; backward adds its part. An evaluation is one of dz/dt by the
            solver. Those that an integrand makes itself, to differentiate the field, are not counted.

    Example:
        >>> import torch
        >>> from neuralode_exp.models.neural_ode import NeuralODE
        >>> from neuralode_exp.ode import make_method
        >>> class Decay(torch.nn.Module):
        ...     def forward(self, t, z):
        ...         return -z
        >>> ode = NeuralODE(Decay(), make_method("rk4", step_size=0.1))
        >>> ode.integrals = (lambda f, z0: lambda t, z, dz: dz.square().sum(-1),)
        >>> ode(torch.ones(10, 2), torch.linspace(0, 1, 5)).shape, ode.stats.nfe_forward
        (torch.Size([5, 10, 2]), 48)
        >>> ode.values[0].shape
        torch.Size([10])
    """

    first_step: Tensor | None

    def __init__(self, field: Field, method: Method, gradient: Gradient = "backprop", input: str = "hold") -> None:
        super().__init__()
        self.field = field
        self.method = method
        self.gradient: Gradient = gradient
        self.input = input
        self.integrals: tuple[Integral, ...] = ()
        self.values: tuple[Tensor, ...] = ()
        self.with_errors = False
        self.errors: Tensor | None = None
        self.steer = 0.0
        self.stats = Stats()
        self.register_buffer("first_step", None)
        self.register_load_state_dict_pre_hook(_leave_first_step)

    def start_from_previous(self) -> None:
        """Let a training solve start with the step that the error of the previous solve's first step permits.

        The method then need not choose a first step. Solves in evaluation mode neither use nor change this step. It is
        in the state_dict.
        """
        self.first_step = torch.tensor(math.nan)  # NaN until the first solve

    def forward(
        self,
        z0: State,
        t: Tensor | Sequence[float],
        f: Callable[[Tensor, State], State] | None = None,
        u: Tensor | None = None,
    ) -> State:
        """Solve to the times t.

        Args:
            z0: initial states; a tuple is a state of several parts, of which integrands see the first.
            t: times, shape (T,), increasing or decreasing.
            f: vector field of this solve instead of `field`, for example the field with its log-density, or with
                terms that are the same at every evaluation computed once. With `integrals` its first part must be
                `field`, as that of a flow is.
            u: inputs at the times t, which must increase, shape (T, ..., m), for a field that takes (t, z, u).

        Returns:
            states at the times t, shape (T, *z0.shape), or a tuple of such tensors.

        Raises:
            ValueError: t requires a gradient, which is not known with inputs, nor while `steer` draws the end time; or
                inputs come with another f, with `integrals` or with times that do not increase; or `integrals` with an
                f of states of one part, which is not `field`.
            SolverError: if the solve cannot be finished.
        """
        steered = self._steers(t)
        if (u is not None or steered) and isinstance(t, Tensor) and t.requires_grad and torch.is_grad_enabled():
            what = "`steer` draws its end" if u is None else "inputs are read at it"
            raise ValueError(f"`t` must not require a gradient where {what}, got one that does; detach it")
        self._check_integrals(other=f is not None and not isinstance(z0, tuple), driven=u is not None)
        if u is not None:
            if f is not None:
                raise ValueError("`f` must be None where inputs `u` are given, got both; let f read its inputs itself")
            given = Input.of(torch.as_tensor(t), u, self.input)
            return self._solve(z0, t, lambda t, z: self.field(t, z, given(t)), stops=given.stops)
        t = self._steered(t)
        state: State = (self._with_integrals if self.integrals else self._solve)(z0, t, f or self.field)
        return state

    def _check_integrals(self, *, other: bool = False, driven: bool = False) -> None:
        if self.integrals and (other or driven):
            got = "inputs" if driven else "another f"
            raise ValueError(f"`integrals` must be of a solve of `field` with t and z alone, got {got}; set them to ()")

    def _steered(self, t: Tensor | Sequence[float]) -> Tensor | Sequence[float]:
        """Return the times of a solve, with an end that `steer` draws in training."""
        if not self._steers(t):
            return t
        return [float(t[0]), float(t[1]) + self.steer * (2 * float(torch.rand(())) - 1)]

    def _steers(self, t: Tensor | Sequence[float]) -> bool:
        return self.steer != 0 and self.training and len(t) == 2

    def _with_integrals(
        self, z0: Any, t: Tensor | Sequence[float], f: Callable[[Tensor, Any], Any], pace: Tensor | None = None
    ) -> Any:
        """Solve dz/ds = pace * f with dG/ds = pace * g(s, z, f), the integral over each state's own time."""
        several, n = isinstance(z0, tuple), len(self.integrals)
        parts: tuple[Tensor, ...] = z0 if several else (z0,)
        integrands = [begin(self.field, parts[0].detach()) for begin in self.integrals]

        def extended(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            dz = f(t, state[:-n]) if several else (f(t, state[0]),)
            rates = tuple(g(t, state[0], dz[0]) for g in integrands)
            if pace is not None:  # the state has one part, see `advance`
                dz, rates = (pace * dz[0],), tuple(pace[..., 0] * rate for rate in rates)
            return (*dz, *rates)

        with torch.enable_grad():  # integrands may differentiate dz/dt; z stands in for dz to find their shape
            z = parts[0].detach().requires_grad_()
            start = [torch.zeros_like(g(z.new_full((), float(t[0])), z, z)).detach() for g in integrands]
        states = self._solve((*parts, *start), t, extended, (True,) * len(parts) + (False,) * n)
        self.values = tuple(integral[-1] for integral in states[-n:])
        return states[:-n] if several else states[0]

    def _solve(
        self,
        z0: Any,
        t: Tensor | Sequence[float],
        f: Any,
        in_norm: Sequence[bool] | None = None,
        stops: Sequence[float] = (),
    ) -> Any:
        self.values, self.errors = (), None
        method, previous = self.method, self.first_step if self.training else None
        if not self.training and not isinstance(method, TorchdiffeqMethod) and method.compile:
            method = replace(method, compile=False)  # evaluations have many shapes, each of which occurs once
        if previous is not None and not isinstance(method, FixedStep) and not math.isnan(size := float(previous)):
            method = replace(method, first_step=size)
        solution = solve(
            f,
            z0,
            t,
            method,
            self.gradient,
            in_norm=in_norm,
            stops=stops,
            errors=self.with_errors,
        )
        self.stats, self.errors = solution.stats, solution.errors
        if previous is not None and self.stats.opening is not None:
            previous.fill_(self.stats.opening)
        return solution.z

    def advance(self, z0: Tensor, duration: Tensor) -> Tensor:
        """Solve from t = 0 to a duration that each state has for itself.

        It is one solve on [0, D] of dz/ds = (duration / D) f(s, z), where D is the longest duration, so no step is
        longer than the method's step size. If f does not depend on t, the result is z(duration). Its gradient with
        respect to the duration is that at a constant D, on which z(duration) does not depend. Each state's `values` are
        integrals over its own duration.

        Args:
            z0: shape (..., d).
            duration: positive, shape (..., 1).

        Returns:
            shape (..., d).

        Raises:
            SolverError: if the solve cannot be finished.
        """
        if not duration.numel():
            return self(z0, [0.0])[-1]
        longest = duration.detach().max()
        pace, t = duration / longest, self._steered([0.0, float(longest)])
        if self.integrals:
            end: Tensor = self._with_integrals(z0, t, self.field, pace)[-1]
            return end
        return self._solve(z0, t, lambda s, z: pace * self.field(s, z))[-1]

    def advance_driven(self, z0: Tensor, durations: Tensor, pieces: Tensor) -> Tensor:
        """Solve over W pieces of an input; each state has its own duration for each piece.

        It is one solve, scaled in time so that piece k of all states begins and ends together. Its length is that of
        the longest, and the input jumps at the same times for all states.

        Args:
            z0: shape (..., d).
            durations: duration of each piece, shape (W, ..., 1), not negative.
            pieces: pieces of the input, from `coefficients`, shape (W, degree + 1, ..., m).

        Returns:
            shape (..., d).

        Raises:
            SolverError: if the solve cannot be finished.
            ValueError: there are `integrals`.
        """
        self._check_integrals(driven=True)
        if not durations.numel():
            return self._solve(z0, [0.0], self.field)[-1]
        longest = durations.detach().flatten(1).amax(1)
        knots = [0.0, *longest.cumsum(0).tolist()]
        paces = durations / longest.view(-1, *[1] * (durations.dim() - 1))
        u, pace = Input(knots, pieces), Input(knots, paces[:, None])

        def f(s: Tensor, z: Tensor) -> Any:
            return pace(s) * self.field(s, z, u(s))

        return self._solve(z0, [0.0, knots[-1]], f, stops=knots[1:-1])[-1]

    def eigenvalues(self, z: Tensor) -> Tensor:
        """Return the eigenvalues of df/dz at t = 0 and a state z of shape (..., d), with the same shape, complex128."""
        return eigenvalues(lambda z: self.field(z.new_zeros(()), z), z)


def _leave_first_step(ode: Any, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Let weights be loaded whether or not the solver that trained them, or this one, stores a first step."""
    key, own = f"{prefix}first_step", ode.first_step
    if own is None:
        state.pop(key, None)
    else:
        state.setdefault(key, own)


def eigenvalues(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Return the eigenvalues of df/dz at z of shape (..., d); f takes states (..., B, d) and treats each by itself."""
    with torch.enable_grad():
        copies = z.detach().unsqueeze(-2).repeat_interleave(z.shape[-1], -2).requires_grad_()
        outputs = f(copies).diagonal(dim1=-2, dim2=-1).sum()  # the i-th component of the i-th copy
        return torch.linalg.eigvals(torch.autograd.grad(outputs, copies)[0].double())
