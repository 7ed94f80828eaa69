"""A step of an explicit Runge-Kutta method, and its discrete adjoint, which uses the graph of one stage at a time.

A step is z1 = z + dt sum_i b_i k_i, k_i = f(t_i, x_i), x_i = z + dt sum_{j<i} a_ij k_j, and an observation inside it
is z + dt sum_i w_i(x) k_i. With the cotangents adj_z1 of the state at its end and g of its observations,

    adj_k_i = dt (b_i adj_z1 + sum_{l>i} a_li adj_x_l + sum w_i g),    adj_x_i = adj_k_i^T df/dz(t_i, x_i),
    adj_z   = adj_z1 + sum_i adj_x_i + sum g,                          adj_theta += sum_i adj_k_i^T df/dtheta(t_i, x_i).

If L depends on the error estimate, which is also a combination of the stages, that adds to adj_k_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralode_exp.ode.field import Stage, Terms, Time, VectorField, accumulate, time_like
from neuralode_exp.ode.state import memory_order, permute_back
from neuralode_exp.ode.steppers.stepper import Cotangents, Dense, Field, Span, Stepper, Trial
from neuralode_exp.ode.tableau import Sparse, Tableau, sparse


@dataclass
class ExplicitRungeKutta(Stepper):
    """The method of a tableau.

    Args:
        tableau: its coefficients.
        estimate: whether to estimate the error, if the tableau can. If not, steps have no closing derivative and
            evaluate their own k_0.
    """

    tableau: Tableau
    estimate: bool = True

    def __post_init__(self) -> None:
        tableau = self.tableau
        # Computed here, because a compiled program cannot fill in a cached property.
        self.rows, self.columns, self.nodes = tableau.rows, tableau.columns, tableau.nodes
        self.error_rows = tableau.error_rows
        self.order, self.quadrature = tableau.order, tableau.b
        self.carries = self.estimate = self.estimate and tableau.e is not None
        self.interpolates = self.estimate and tableau.dense is not None
        # Where the error test does not use the closing derivative or further stages, only the interpolant does.
        self.unseen = self.interpolates and (len(tableau.extra_c) > 0 or not tableau.closes_before_test)
        self.evaluations = tableau.stages + (self.estimate and tableau.closes_before_test)
        # The closing derivative is carried; k_0 comes from the step before and is not evaluated.
        self.carried = slice(tableau.stages - 1, tableau.stages)

    def without_estimate(self) -> ExplicitRungeKutta:
        return ExplicitRungeKutta(self.tableau, estimate=False)

    def start(self, f: Field, t: Time, z: Tensor) -> Stage:
        return f.stage(time_like(t, z), z)

    def known_slope(self, carry: Stage) -> Tensor:
        return carry.value

    def trial(self, f: Field, span: Span, z: Tensor, carry: Stage) -> Trial:
        tableau, dt, x = self.tableau, span.dt, z
        stages, k = [carry], [carry.value]
        closes = self.estimate and tableau.closes_before_test
        for i in range(1, tableau.stages + closes):
            x = combine(z, k, self.rows[i], dt)
            stages.append(f.stage(stage_time(span, self.nodes[i], x), x))
            k.append(stages[i].value)
        z1 = x if closes else combine(z, k, self.rows[tableau.stages], dt)
        if not self.estimate:
            return Trial(z1, None, None, (stages, k))
        with torch.no_grad() if torch.is_grad_enabled() else nullcontext():
            error = self._error(k, dt)
        return Trial(z1, error, stages[-1] if closes else None, (stages, k))

    def _error(self, k: Sequence[Tensor], dt: Time) -> Tensor:
        error, *low = [weighted_sum(k, row, dt) for row in self.error_rows]
        if low:
            tenth = low[0] / 10
            # This avoids 0 / 0, here and in the derivative.
            tenth = torch.where(tenth == 0, torch.finfo(tenth.dtype).tiny, tenth)
            error = error * error.abs() / torch.hypot(error, tenth)
        return error

    def error(self, trial: Trial, span: Span) -> Tensor:
        return self._error(trial.data[1], span.dt)

    def close(self, f: Field, span: Span, z: Tensor, trial: Trial, *, dense: bool) -> Trial:
        tableau, (stages, k) = self.tableau, trial.data
        for i in range(len(k), self._needed(dense) if dense else tableau.stages + 1):
            x = trial.z1 if i == tableau.stages else combine(z, k, self.rows[i], span.dt)
            stages.append(f.stage(stage_time(span, self.nodes[i], x), x))
            k.append(stages[i].value)
        return trial if trial.carry is not None else trial._replace(carry=stages[tableau.stages])

    def interpolate(self, trial: Trial, span: Span, z: Tensor, fractions: Sequence[float]) -> list[Tensor]:
        _, k = trial.data
        return [combine(z, k, sparse(self.tableau.dense_weights(x)), span.dt) for x in fractions]

    def interpolate_all(self, steps: Sequence[Dense]) -> list[Tensor]:
        """Interpolate in all steps by one product; steps with fewer observations have further weights of 0."""
        most = max(len(step.fractions) for step in steps)
        none = (0.0,) * len(self.nodes)
        weights, k = [], []
        for step in steps:
            rows = [self.tableau.dense_weights(x) for x in step.fractions]
            weights.append(rows + [none] * (most - len(rows)))
            k += step.trial.data[1]
        order = memory_order(steps[0].z)
        z = torch.stack([step.z.permute(order) for step in steps])
        dt = torch.tensor([step.span.dt for step in steps], dtype=z.dtype, device=z.device)
        w = torch.tensor(weights, dtype=z.dtype, device=z.device) * dt[:, None, None]
        stages = torch.stack([k_i.permute(order) for k_i in k]).reshape(len(steps), -1, z[0].numel())
        states = torch.baddbmm(z.reshape(len(steps), 1, -1), w, stages).view(len(steps), most, *z.shape[1:])
        states = permute_back(states, order, 2)
        return [x for step, row in zip(steps, states, strict=True) for x in row[: len(step.fractions)].unbind()]

    def keep(self, trial: Trial, *, dense: bool) -> list[Stage]:
        """Return the graphs of the stages; of a stage without one the value, with which its repetition is compared."""
        stages, _ = trial.data
        return [stage if stage.x is None else stage.without_value() for stage in stages[: self._needed(dense)]]

    def forget(self, carry: Stage) -> Stage:
        return Stage(carry.value)

    def _needed(self, dense: bool) -> int:
        """Return the number of stages that a step's results use; `dense` adds the closing one and those after it."""
        return len(self.nodes) if dense else self.tableau.stages

    def pull_back(
        self, f: VectorField, span: Span, z: Tensor, cotangents: Cotangents, kept: list[Stage] | None = None
    ) -> tuple[Tensor, Terms]:
        tableau, dt = self.tableau, span.dt
        count = self._needed(bool(cotangents.inside))
        if cotangents.of_error is not None:
            count = max(count, tableau.stages + tableau.closes_before_test)
        stages = self._linearise(f, span, z, count, kept or [])
        if cotangents.end is not None:
            z1 = combine(z, [stage.value for stage in stages], self.rows[tableau.stages], dt)
            f.repeats.compare(z1, cotangents.end)
            if count > tableau.stages:
                f.repeats.compare(stages[tableau.stages].value, cotangents.slope)
        outputs = [(tableau.b, cotangents.z1)]
        of_error = self._of_error([stage.value for stage in stages], dt, cotangents)
        outputs += [(tableau.dense_weights(x), g) for x, g in cotangents.inside]
        adj_x: dict[int, Tensor] = {}
        terms: list[Tensor | None] = [None] * len(f.depends_on)
        for i in reversed(range(count)):
            weights = [(w[i], g) for w, g in outputs if i < len(w) and w[i] != 0.0]
            weights += [(a, adj_x[j]) for j, a in self.columns[i] if j in adj_x]
            stage = stages.pop()  # its graph is freed as soon as it has been used
            adj_k = of_error.pop() if of_error else None
            if weights:
                rows, adj = zip(*weights, strict=True)
                total = weighted_sum(adj, tuple(enumerate(rows)), dt)
                adj_k = total if adj_k is None else adj_k + total
            if adj_k is None:
                continue
            adj_x_i, terms_i = f.vjp(stage, adj_k)
            accumulate(terms, terms_i)
            if adj_x_i is not None:
                adj_x[i] = adj_x_i
        parts = [*(g for _, g in cotangents.inside), *adj_x.values()]
        return combine(cotangents.z1, parts, tuple((j, 1.0) for j in range(len(parts))), 1.0), tuple(terms)

    @torch.enable_grad()
    def _of_error(self, k: Sequence[Tensor], dt: Time, cotangents: Cotangents) -> list[Tensor | None]:
        """Return the cotangent of each stage from the error estimate; an empty list if L does not depend on that."""
        if cotangents.of_error is None:
            return []
        k = [value.requires_grad_() for value in k]
        return list(torch.autograd.grad(cotangents.of_error(self._error(k, dt)), k, allow_unused=True))

    def _linearise(self, f: VectorField, span: Span, z: Tensor, count: int, kept: list[Stage]) -> list[Stage]:
        """Return the stages of a step with their graphs; stages whose graphs were kept are not evaluated again."""
        stages: list[Stage] = []
        k: list[Tensor] = []
        for i in range(count):
            if i < len(kept) and kept[i].x is not None:
                stages.append(kept[i])
                continue
            x = combine(z, k, self.rows[i], span.dt)
            stages.append(f.linearise(stage_time(span, self.nodes[i], z), x))
            k.append(stages[i].value)
            if i < len(kept):
                f.repeats.compare(k[i], kept[i].value)
        return stages


def stage_time(span: Span, c: float, z: Tensor) -> Tensor:
    """Return t + c dt as a tensor like z; at the ends exactly t or t1, since rounding could leave the interval."""
    t = span.t if c == 0.0 else span.t1 if c == 1.0 else span.t + c * span.dt
    return time_like(t, z)


def combine(z: Tensor, k: Sequence[Tensor], row: Sparse, dt: Time) -> Tensor:
    """Return z + dt sum_i w_i k_i in the memory format of z, with one new tensor; z itself if there are no weights."""
    if isinstance(dt, Tensor):
        for i, w in row:
            z = z + k[i] * (w * dt).to(z.dtype)
        return z
    weights = iter(row)
    for i, w in weights:
        z = torch.add(z, k[i], alpha=w * dt)
        break
    for i, w in weights:
        z.add_(k[i], alpha=w * dt)
    return z


def weighted_sum(k: Sequence[Tensor], row: Sparse, dt: Time) -> Tensor:
    """Return dt sum_i w_i k_i."""
    (i, w), *rest = row
    if isinstance(dt, Tensor):
        total = k[i] * (w * dt).to(k[i].dtype)
        for i, w in rest:
            total = total + k[i] * (w * dt).to(total.dtype)
        return total
    total = k[i] * (w * dt)
    for i, w in rest:
        total.add_(k[i], alpha=w * dt)
    return total
