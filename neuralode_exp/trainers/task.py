"""The interface between the training loop and a task."""

from __future__ import annotations

import hashlib
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neuralode_exp.models.replicas import Replicas
from neuralode_exp.models.shape import Shape
from neuralode_exp.ode import Stats
from neuralode_exp.trainers.regularity import Regularity

if TYPE_CHECKING:
    from neuralode_exp.tracking.recorder import Recorder


@dataclass(frozen=True, eq=False)
class Solved:
    """What a trained model computes on the test data.

    Args:
        tag: tag of the error. It compares with the truth if that is known, else with the data.
        error: the value of that tag.
        states: the results of the solves or blocks: trajectories, features, or points of the base density.
        nfe: number of function evaluations (NFE), mean over the solves.
        seconds: time of the solves alone.
    """

    tag: str
    error: float
    states: Tensor
    nfe: float
    seconds: float


class Task(ABC):
    """A model with its data: it gives a loss for each step, and its metrics.

    All random draws of a step depend only on (seed, step), so that a resumed run sees the same batches.

    Attributes:
        module: all that is trained.
        shape: shape of the data, which is stored with the weights.
        steps_per_epoch: number of batches in one pass over the training data.
        replicas: the networks that are trained side by side; None for a single one.
        log_every, evaluate_every: default intervals in steps.
        objective: tag that is minimised by default; None if nothing is held out.
        state_axes: number of axes of one state of the ODE.
        regularity: the regularisers of the ODE.
        metrics: the metrics that the user registered for this kind of data, by tag.
        advice: what usually helps if training ends in NaN or infinity.
    """

    module: nn.Module
    shape: Shape
    steps_per_epoch: int
    replicas: Replicas | None = None
    log_every: int = 10
    evaluate_every: int
    objective: str | None
    state_axes: int = 1
    regularity: Regularity | None = None
    metrics: Mapping[str, Callable[[nn.Module, Any], Any]] = MappingProxyType({})
    advice: str = "a lower trainer.lr usually helps"

    @property
    def model(self) -> nn.Module:
        """Return the part of `module` that is the result: its parameters are counted, and `load_run` returns it."""
        return self.module

    @property
    def parameters(self) -> int:
        """Return the number of parameters of the model, or of one replica."""
        return sum(p.numel() for p in self.model.parameters()) // (self.replicas.n if self.replicas else 1)

    @abstractmethod
    def loss(self, step: int) -> Tensor:
        """Return the loss of the batch of this step, a scalar, or one for each replica, shape (R,)."""

    @property
    @abstractmethod
    def stats(self) -> Stats:
        """Return the cost of the last call of the model. The part of backward is complete after backward."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Return the metrics on held-out data by tag."""

    @abstractmethod
    def final(self) -> dict[str, float]:
        """Return the metrics on test data and against the truth by tag. It is called once, after training."""

    def held_out(self) -> Any:
        """Return the held-out data for registered metrics, or None if nothing is held out."""
        return None

    def networks(self) -> Iterator[nn.Module]:
        """Yield the model, or each of its replicas."""
        yield self.model

    def measure(self) -> dict[str, float]:
        """Return the registered metrics on held-out data by tag, for replicas the mean and standard deviation."""
        data = self.held_out() if self.metrics else None
        if data is None:
            return {}
        rows = [self._of_metrics(network, data) for network in self.networks()]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        values = {name: statistics.fmean(column) for name, column in columns.items()}
        if len(rows) > 1:
            values |= {f"{name}_std": statistics.stdev(column) for name, column in columns.items()}
        return values

    def _of_metrics(self, network: nn.Module, data: Any) -> dict[str, float]:
        values: dict[str, float] = {}
        for tag, metric in self.metrics.items():
            try:
                result = metric(network, data)
            except Exception as error:
                error.add_note(f"in your own metric {tag}")
                raise
            found = result if isinstance(result, Mapping) else {tag: result}
            try:
                values |= {str(name): float(value) for name, value in found.items()}
            except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor of several numbers
                rule = f"the metric {tag} must give a number, or numbers by their names"
                raise ValueError(f"{rule}, got {str(result)[:60]}") from error
        return values

    def penalised_loss(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the loss of a step, and the loss plus penalty, which is differentiated."""
        if self.regularity is None:
            return (loss := self.loss(step)), loss
        return self.regularity.penalised(lambda: self.loss(step))

    def hardness(self) -> dict[str, float]:
        """Return all regularisers on a few held-out data by tag. They show how hard the ODE is to solve."""
        return self.regularity.measure(self.solve_few) if self.regularity else {}

    def solve_few(self) -> None:  # noqa: B027 - the counterpart of a regularity of None
        """Solve the ODE for a few held-out data, if there are any."""

    def solved(self) -> Solved | None:
        """Solve for the test data or other held-out data. Return None if there are none."""
        return None

    def take_units(self, shape: Shape) -> None:  # noqa: B027 - only tables have units of their own
        """Convert the held-out data to the units in which a trained model learned, given by its stored shape."""

    def draw(self, step: int, recorder: Recorder, *, last: bool) -> None:  # noqa: B027 - not every task draws
        """Draw figures. It is called at evaluations, and after training with `last=True`."""

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs beside the weights, as tensors and plain values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 - the counterpart of an empty state
        """Restore what `state` returned."""


def seeded(seed: int, stream: str, index: int) -> torch.Generator:
    """Return a random generator for one purpose and index, independent of all others."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{index}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
