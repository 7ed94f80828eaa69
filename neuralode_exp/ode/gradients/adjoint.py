"""gradient="adjoint": Algorithm 1 of Chen et al. (arXiv 1806.07366), whose memory does not grow with NFE.

With the adjoint a(t) = dL/dz(t), backward solves

    dz/dt = f(t, z),    da/dt = -a^T df/dz,    dG/dt = -a^T df/dtheta,    G = dL/dtheta at t0,

from the last observation to the first. At each observation z is reset to the stored one and a jumps by the
observation's cotangent. No right-hand side depends on G, so G stays out of the error norm (Kidger et al., "Hey, that's
not an ODE", arXiv 2009.09457). If the stepper has quadrature weights, G is summed stage by stage beside the state; if
not, G is a part of the state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from neuralode_exp.ode.errors import SolverError
from neuralode_exp.ode.field import Stage, Terms, Time, accumulate
from neuralode_exp.ode.gradients.gradient import Repeating, no_terms
from neuralode_exp.ode.methods import Adaptive, FixedStep
from neuralode_exp.ode.randomness import Generators
from neuralode_exp.ode.repeats import fingerprint
from neuralode_exp.ode.state import TupleState, same_format, stack_states
from neuralode_exp.ode.stats import Stats
from neuralode_exp.ode.steppers import Field, Span, Stepper, Trial
from neuralode_exp.ode.walk import Step, Walk


class Adjoint(Repeating):
    """Keeps the observations only. Its error is that of the backward solve.

    Args:
        method: method of the backward solve; None: that of the forward solve.
    """

    def __init__(self, method: FixedStep | Adaptive | None = None) -> None:
        self.method = method

    def check(self, walk: Walk) -> None:
        walk.f.generators.refuse_draws()

    def solve(self, walk: Walk) -> tuple[Tensor, Sequence[Tensor], Tensor | None]:
        closing = None

        def noted() -> Iterator[Step]:
            nonlocal closing
            for step in walk.steps():
                closing = step.trial.carry
                yield step

        before = walk.f.generators.state()
        z = walk.observe(noted())
        walk.f.generators.refuse_draws(before)
        # A method with closing derivatives knows f at the end, where the backward solve begins: it can be compared.
        return z, (z,), fingerprint(closing.value) if isinstance(closing, Stage) else None

    def pull_back(
        self, walk: Walk, kept: Sequence[Tensor], notes: Tensor | None, adj_output: Tensor, adj_errors: object
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        walk.field.repeats.expect(notes)
        try:
            return _solve_backwards(walk, kept[0], self.method or walk.method, adj_output)
        except SolverError as error:
            error.args = (f"backward solve of the adjoint: {error}",)
            raise


def _solve_backwards(
    walk: Walk, z: Tensor, method: FixedStep | Adaptive, adj_output: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """Return dL/dz0 and dL/dtheta from the cotangents of the observations z, shape (n, *shape)."""
    system: _Beside | _Inside
    if method.stepper.quadrature is None:
        system = _Inside(walk, z[-1])
    else:
        system = _Beside(walk)
        method = replace(method, stepper=_Summing(method.stepper, system))
    terms = no_terms(walk)
    adj_z = same_format(adj_output[-1], z[-1])
    dt: float | None = None
    stats = Stats()  # counts all intervals together, so that max_steps bounds the whole backward solve
    times = walk.times
    for i in range(len(times) - 1, 0, -1):
        state = system.state(z[i], adj_z)
        interval = (times[i], times[i - 1])
        backwards = Walk(system, state, interval, method, stats, system.norm, walk.stops.over(interval))
        # An interval starts with the step size that the interval solved before it ended with.
        for step in backwards.steps(dt=dt):
            state, dt = step.trial.z1, step.dt_next
            accumulate(terms, system.terms_of_step())
        adj_z, terms_of_interval = system.adjoint(state)
        accumulate(terms, terms_of_interval)
        adj_z = adj_z + same_format(adj_output[i - 1], adj_z)
    return adj_z, terms


class _Augmented:
    """Maps (t, z, a) to (f, -a^T df/dz) and a^T df/dtheta, with one evaluation of f."""

    def __init__(self, walk: Walk) -> None:
        self.inner = walk.field
        self.norm_of_state = walk.norm
        self.generators = Generators(walk.f.generators.device)

    @property
    def nfe(self) -> int:
        return self.inner.nfe

    @nfe.setter
    def nfe(self, nfe: int) -> None:
        self.inner.nfe = nfe

    def derivatives(self, t: Tensor, z: Tensor, adj_z: Tensor) -> tuple[Tensor, Tensor, Terms]:
        stage = self.inner.linearise(t, z)
        change, terms = self.inner.vjp(stage, adj_z)
        return stage.value, torch.zeros_like(z) if change is None else change.neg(), terms


class _Beside(_Augmented):
    """The system [z, a]. The parameter terms of a trial step are summed while its stages are evaluated."""

    def __init__(self, walk: Walk) -> None:
        super().__init__(walk)
        self.weights: Sequence[float] = ()  # weights of the remaining evaluations of the current trial
        self.sums: list[Tensor | None] = []

    def state(self, z: Tensor, adj_z: Tensor) -> Tensor:
        return stack_states([z, adj_z])

    def adjoint(self, state: Tensor) -> tuple[Tensor, Terms]:
        return state[1], ()

    def norm(self, error: Tensor) -> Tensor:
        """Return the larger norm of the two parts, z and a."""
        return torch.maximum(self.norm_of_state(error[0]), self.norm_of_state(error[1]))

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        return self.stage(t, z).value

    def stage(self, t: Tensor, z: Tensor) -> Stage:
        dz, change, terms = self.derivatives(t, z[0], z[1])
        k = stack_states([dz, change])
        if not self.weights:
            return Stage(k, terms=terms)  # the first stage of a step, whose weight is not known yet
        weight, *self.weights = self.weights
        accumulate(self.sums, terms, weight)
        return Stage(k)

    def begin_trial(self, dt: float, weights: Sequence[float], carry: Stage) -> None:
        first, *rest = (-dt * w for w in weights)
        assert carry.terms is not None
        self.sums = [None] * len(carry.terms)
        accumulate(self.sums, carry.terms, first)
        self.weights = rest

    def terms_of_step(self) -> Sequence[Tensor | None]:
        return self.sums


class _Summing(Stepper):
    """A stepper with quadrature weights, which tells the system how to weight the terms of its stages."""

    def __init__(self, inner: Stepper, system: _Beside) -> None:
        self.inner, self.system = inner, system
        self.order, self.carries = inner.order, inner.carries

    def start(self, f: Field, t: Time, z: Tensor) -> Stage:
        stage: Stage = self.inner.start(f, t, z)
        return stage

    def known_slope(self, carry: Stage) -> Tensor | None:
        return self.inner.known_slope(carry)

    def trial(self, f: Field, span: Span, z: Tensor, carry: Stage) -> Trial:
        assert self.inner.quadrature is not None
        assert isinstance(span.dt, float)
        self.system.begin_trial(span.dt, self.inner.quadrature, carry)
        return self.inner.trial(f, span, z, carry)

    def close(self, f: Field, span: Span, z: Tensor, trial: Trial, *, dense: bool) -> Trial:
        return self.inner.close(f, span, z, trial, dense=dense)


class _Inside(_Augmented):
    """The system (z, a, G) in one vector, for a stepper without quadrature weights."""

    def __init__(self, walk: Walk, z: Tensor) -> None:
        super().__init__(walk)
        self.zeros = [torch.zeros_like(p) for p in walk.field.depends_on]
        self.layout = TupleState([z, z, *self.zeros], None)

    def state(self, z: Tensor, adj_z: Tensor) -> Tensor:
        return self.layout.pack((z, adj_z, *self.zeros))

    def adjoint(self, state: Tensor) -> tuple[Tensor, Terms]:
        _, adj_z, *terms = self.layout.unpack(state)
        return adj_z, tuple(terms)

    def norm(self, error: Tensor) -> Tensor:
        """Return the larger norm of the two parts, z and a."""
        z, adj_z, *_ = self.layout.unpack(error)
        return torch.maximum(self.norm_of_state(z), self.norm_of_state(adj_z))

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        z, adj_z, *_ = self.layout.unpack(z)
        dz, change, terms = self.derivatives(t, z, adj_z)
        integrands = (zero if term is None else -term for term, zero in zip(terms, self.zeros, strict=True))
        return self.layout.pack((dz, change, *integrands))

    def stage(self, t: Tensor, z: Tensor) -> Stage:
        return Stage(self(t, z))

    def terms_of_step(self) -> Sequence[Tensor | None]:
        return ()
