"""Penalties that make an ODE easier to solve. They are added to a loss, or only measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from neuralode_exp.config.schema import Trainer
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.models.regularisers import REGULARISERS
from neuralode_exp.ode import SolverError


class Regularity:
    """The regularisers of a model's ODE, weighted by `trainer.kinetic`, `trainer.jacobian` and `trainer.taylor`.

    `trainer.error` weights the solver's error estimates: sum_i |dt_i| |error_i| over the accepted steps (Pal et al.
    2021, https://arxiv.org/abs/2105.03918), or the term of one random step times their number (Pal et al. 2023,
    https://arxiv.org/abs/2303.02262).

    Args:
        model: a model with one `NeuralODE`, or with none: then there is no penalty and nothing to measure.
        trainer: the weights of the penalties.
        axes: number of axes of one state.
    """

    def __init__(self, model: nn.Module, trainer: Trainer, axes: int) -> None:
        self.ode = next((part for part in model.modules() if isinstance(part, NeuralODE)), None)
        self.axes = axes
        self.weights = {name: getattr(trainer, name) for name in REGULARISERS if getattr(trainer, name)}
        self.error, self.error_at = trainer.error, trainer.error_at
        if self.ode is not None:
            self.ode.steer = trainer.steer

    def penalised(self, loss: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """Return the loss, and the loss plus penalty, a mean over the states of the last solve, for each replica."""
        if self.ode is None or not (self.weights or self.error):
            value = loss()
            return value, value
        with self._carried(self.weights, errors=self.error > 0):
            value = loss()
        terms = [weight * x for weight, x in zip(self.weights.values(), self._means(), strict=True)]
        if self.error:
            terms.append(self.error * self._errors())
        return value, value + sum(terms)

    def measure(self, solve: Callable[[], object]) -> dict[str, float]:
        """Return all regularisers of the last solve of a call by tag, or nothing if the solve fails."""
        if self.ode is None:
            return {}
        # Random draws here must not change those of training.
        with torch.random.fork_rng(devices=[]), self._carried(REGULARISERS):
            try:
                solve()
            except SolverError:
                return {}
        means = [float(x.detach().mean()) for x in self._means()]
        return {f"regularity/{name}": x for name, x in zip(REGULARISERS, means, strict=True)} if means else {}

    def _means(self) -> list[Tensor]:
        assert self.ode is not None
        # In a solve backwards in time the integrals have the opposite sign.
        return [value.abs().mean(-1) for value in self.ode.values]

    def _errors(self) -> Tensor:
        assert self.ode is not None
        assert self.ode.errors is not None
        errors = self.ode.errors
        return errors.sum() if self.error_at == "sum" else len(errors) * errors[torch.randint(len(errors), ())]

    @contextmanager
    def _carried(self, names: Iterable[str], *, errors: bool = False) -> Iterator[None]:
        assert self.ode is not None
        self.ode.values, self.ode.with_errors = (), errors
        self.ode.integrals = tuple(partial(REGULARISERS[name], axes=self.axes) for name in names)
        try:
            yield
        finally:
            self.ode.integrals, self.ode.with_errors = (), False
