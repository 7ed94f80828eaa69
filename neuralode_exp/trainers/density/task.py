"""Learn a density from samples by maximum likelihood of a continuous normalizing flow, and measure its errors."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuralode_exp.data.target import Target
from neuralode_exp.models.density_model import DensityModel
from neuralode_exp.models.flows import Flow
from neuralode_exp.models.shape import Shape
from neuralode_exp.ode import Stats
from neuralode_exp.trainers.consistency import SAMPLES, consistency, relative_change
from neuralode_exp.trainers.density.matching import matching_loss, optimal_pairs, stratified_times
from neuralode_exp.trainers.density.trace_cost import evaluation_ms
from neuralode_exp.trainers.density.transport import sampling, wasserstein
from neuralode_exp.trainers.task import Solved, Task, seeded

if TYPE_CHECKING:
    from neuralode_exp.tracking.recorder import Recorder

ROWS = 60_000  # in one solve without gradients; a point takes one row, and one more for each tangent of its trace
FEW = 500  # points on whose paths the regularisers are measured
GRID = 300  # points per side of the grid on which the mass is summed
MARGIN = 1.5  # side of that grid divided by the side of the target's box


@dataclass(eq=False, repr=False)
class DensityEstimation(Task):
    """Minimise the negative log-likelihood, in nats, of a new batch of points at each step.

    Flow matching, which fits the field to straight lines from base to data, may come before it or replace it.

    KL(truth, model) = E[log p(x) - log p_model(x)] is the mean over held-out points, if log p is known.

    Args:
        module: the flow.
        target: the distribution that it learns.
        validation, test: held-out points, shape (n, d), which may be empty.
        shape: shape of the points.
        batch_size: points per step.
        steps_per_epoch: steps in one pass over given points, or the definition of an epoch for new samples.
        matching: number of steps of flow matching before those of the likelihood.
        pairing: how flow matching pairs base points and data, `independent` or `optimal`.
        seed: seed of the batches.
        figures: whether to draw.
    """

    evaluate_every = 200

    module: DensityModel
    target: Target
    validation: Tensor
    test: Tensor
    _: KW_ONLY
    shape: Shape
    batch_size: int
    steps_per_epoch: int
    matching: float = 0
    pairing: str = "independent"
    seed: int
    figures: bool = True

    def __post_init__(self) -> None:
        self.solves = True  # whether the last step solved the ODE
        of_weights = next(self.module.parameters())
        self.dtype, self.device = of_weights.dtype, of_weights.device
        self.objective = "loss/validation" if len(self.validation) else None
        self.chunk = max(1, ROWS // (1 + self.module.dim))

    @property
    def stats(self) -> Stats:
        return self.module.stats if self.solves else Stats(nfe_forward=1)

    def loss(self, step: int) -> Tensor:
        x = self.target.sample(self.batch_size, seeded(self.seed, "batch", step), self.dtype)
        self.solves = step > self.matching
        return -self.module.log_prob(x.to(self.device)).mean() if self.solves else self._matching_loss(x, step)

    def penalised_loss(self, step: int) -> tuple[Tensor, Tensor]:
        if step <= self.matching:  # flow matching solves nothing
            return (loss := self.loss(step)), loss
        return super().penalised_loss(step)

    def solve_few(self) -> None:
        if len(self.validation):
            self.module.to_base(self.validation[:FEW].to(self.device, self.dtype))

    def _matching_loss(self, x1: Tensor, step: int) -> Tensor:
        assert isinstance(self.module, Flow)
        generator = seeded(self.seed, "matching", step)
        x0 = self.module.base(len(x1), generator).cpu()
        if self.pairing == "optimal":
            x1 = optimal_pairs(x0, x1)
        t = stratified_times(len(x1), generator).to(self.dtype)
        return matching_loss(self.module.field, *(x.to(self.device) for x in (x0, x1, t)))

    def evaluate(self) -> dict[str, float]:
        if not len(self.validation):
            return {}
        loss, values = self._compare(self.validation, self.log_prob(self.validation))
        return {"loss/validation": loss} | {f"density/validation_{name}": value for name, value in values.items()}

    def final(self) -> dict[str, float]:
        values = self._inversion() | self._cost() | self._transport()
        if len(self.test):
            _, of_test = self._compare(self.test, self.log_prob(self.test))
            values |= {f"density/{name}": value for name, value in of_test.items()} | self._consistency()
        if self.module.dim == 2:
            values["density/mass"] = self.mass()
        return values

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the model's log-density at any number of points, float64 on the CPU."""
        chunks = x.to(self.device, self.dtype).split(self.chunk)
        return torch.cat([self.module.log_prob(chunk) for chunk in chunks]).double().cpu()

    def _compare(self, x: Tensor, log_model: Tensor) -> tuple[float, dict[str, float]]:
        """Return the loss in the flow's units, and by name the metrics in the units of the data.

        `nll` is -E[log p_model], which is lower by sum(log unit) in the flow's units. If the truth is known, `kl` is a
        mean over the points, and `kl_standard_error` is their standard deviation divided by sqrt(n).
        """
        log_true = self.target.log_prob(x)
        loss = -float(log_model.mean())
        values = {"nll": loss + float(self.target.unit.log().sum())}
        if log_true is not None:
            difference = log_true - log_model
            values["kl"] = float(difference.mean())
            if len(x) > 1:
                values["kl_standard_error"] = float(difference.std()) / math.sqrt(len(x))
        return loss, values

    def held_out(self) -> Tensor | None:
        return self.validation.to(self.device, self.dtype) if len(self.validation) else None

    def solved(self) -> Solved | None:
        """Map the test data to base points, and compute their density."""
        if not len(self.test):
            return None
        chunks = self.test.to(self.device, self.dtype).split(self.chunk)
        log_model, nfe, began = [], [], time.perf_counter()
        for chunk in chunks:
            log_model.append(self.module.log_prob(chunk).double().cpu())
            nfe.append(self.module.stats.nfe_forward)
        seconds = time.perf_counter() - began
        _, values = self._compare(self.test, torch.cat(log_model))
        name = "kl" if "kl" in values else "nll"
        states = torch.cat([self.module.to_base(chunk) for chunk in chunks])
        return Solved(f"density/{name}", values[name], states, statistics.fmean(nfe), seconds)

    def mass(self) -> float:
        """Integrate the learned density over a box wider than the target's by the midpoint rule. It should be 1."""
        points, cell = self.grid(GRID, MARGIN)
        return float(self.log_prob(points).exp().sum()) * cell

    def grid(self, n: int, margin: float) -> tuple[Tensor, float]:
        """Return the midpoints of n x n cells, shape (n * n, 2), in `margin` times the box, and a cell's area."""
        low, high = self.target.box
        centre, half = (low + high) / 2, (high - low) / 2 * margin
        side = (torch.arange(n, dtype=torch.float64) + 0.5) / n * 2 - 1
        x, y = (centre[i] + half[i] * side for i in range(2))
        return torch.cartesian_prod(x, y), float((2 * half / n).prod())

    def _cost(self) -> dict[str, float]:
        """Measure the cost of one evaluation on a training batch, in ms."""
        if not isinstance(self.module, Flow):
            return {}
        x = self.target.sample(self.batch_size, seeded(self.seed, "batch", 0), self.dtype)
        return {f"time/{name}": ms for name, ms in evaluation_ms(self.module, x.to(self.device)).items()}

    def _transport(self) -> dict[str, float]:
        """Measure the distance of samples from test points, and that of two sets of test points for comparison."""
        n = min(SAMPLES, len(self.test) // 2)
        if not n:
            return {}
        unit, z0 = self.target.unit, self.module.base(n, seeded(self.seed, "transport", 0))
        some, others = self.test[:n].double(), self.test[n : 2 * n].double()
        drawn = self.module.to_data(z0.to(self.device)).double().cpu()
        values = {
            "density/wasserstein": wasserstein(unit * drawn, unit * some),
            "density/wasserstein_floor": wasserstein(unit * others, unit * some),
        }
        if isinstance(self.module, Flow):
            values |= sampling(self.module, z0.double().to(self.device))
        return values

    def _inversion(self) -> dict[str, float]:
        """Measure whether the flow and its inverse cancel, and whether both give the same density."""
        x, log_p = self.module.sample_with_log_prob(min(SAMPLES, self.chunk), seeded(self.seed, "inversion", 0))
        z0 = self.module.to_base(x)
        again = self.module.to_data(z0)
        return {
            "density/inversion_error": relative_change(again, x),
            "density/log_prob_error": float((self.module.log_prob(x) - log_p).abs().max()),
        }

    def _consistency(self) -> dict[str, float]:
        """Measure how an accurate solve in float64 changes the base points of test data and their likelihood."""
        x = self.test[: min(SAMPLES, self.chunk)].to(self.device)
        return consistency(self.module, lambda flow: (flow.to_base(x), -flow.log_prob(x).mean()))

    @torch.no_grad()
    def draw(self, step: int, recorder: Recorder, *, last: bool) -> None:
        if self.figures and last:
            from neuralode_exp.trainers.density.pictures import draw_all

            draw_all(self, step, recorder)
