"""What the training loop asks of a problem."""

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
    """The test data as a trained model sees them.

    Args:
        tag: of the error: against the truth where that is known, else against the data.
        error: the value of that tag.
        states: what the solves, or blocks, give: trajectories, features, points of the base.
        nfe: evaluations, the mean over the solves.
        seconds: of the solves alone.
    """

    tag: str
    error: float
    states: Tensor
    nfe: float
    seconds: float


class Task(ABC):
    """A model with its data: it gives a loss for each step, and its metrics.

    What is random in a step is drawn from (seed, step) alone, so that a resumed run sees the same batches.

    Attributes:
        module: all that is trained.
        shape: of the data, stored with the weights.
        steps_per_epoch: number of batches in one pass over the training data.
        replicas: the networks that are trained side by side; None for one alone.
        log_every, evaluate_every: steps, where the config leaves them open.
        objective: tag that is minimised, where the config leaves it open; None where nothing is held out.
        state_axes: number of axes of one state of the ODE.
        regularity: of the ODE that is solved.
        metrics: what the user registered for this kind of data, by tag.
        advice: what usually helps where training ends in NaN or infinity.
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
        """The part of `module` that is the result: what is counted and handed to a notebook."""
        return self.module

    @property
    def parameters(self) -> int:
        """Number of parameters of the model, of one replica."""
        return sum(p.numel() for p in self.model.parameters()) // (self.replicas.n if self.replicas else 1)

    @abstractmethod
    def loss(self, step: int) -> Tensor:
        """Loss of the batch of this step, a number; of replicas one for each, shape (R,)."""

    @property
    @abstractmethod
    def stats(self) -> Stats:
        """Cost of the last call of the model; its backward part once backward has run."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Metrics on held-out data, by tag."""

    @abstractmethod
    def final(self) -> dict[str, float]:
        """Metrics on test data and against the truth, by tag; called once, after training."""

    def held_out(self) -> Any:
        """What a registered metric is given beside the model; None where nothing is held out."""
        return None

    def networks(self) -> Iterator[nn.Module]:
        """The model, or each of its replicas alone."""
        yield self.model

    def measure(self) -> dict[str, float]:
        """The registered metrics on held-out data, by tag; of replicas their mean and standard deviation."""
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
                error.add_note(f"in the metric {tag} of your own")
                raise
            found = result if isinstance(result, Mapping) else {tag: result}
            values |= {str(name): float(value) for name, value in found.items()}
        return values

    def penalised_loss(self, step: int) -> tuple[Tensor, Tensor]:
        """The loss of a step, and what is differentiated: the loss with its penalty."""
        if self.regularity is None:
            return (loss := self.loss(step)), loss
        return self.regularity.penalised(lambda: self.loss(step))

    def hardness(self) -> dict[str, float]:
        """How hard the ODE is to solve, by tag: every regulariser over a few held-out data."""
        return self.regularity.measure(self.solve_few) if self.regularity else {}

    def solve_few(self) -> None:  # noqa: B027 - the counterpart of a regularity of None
        """Solve for a few of the held-out data, if there are any."""

    def solved(self) -> Solved | None:
        """Solve the test data, or what else is held out; None if nothing is."""
        return None

    def take_units(self, shape: Shape) -> None:  # noqa: B027 - only tables have units of their own
        """Give the held-out data in the units of a trained model, which other data would have in theirs."""

    def draw(self, step: int, recorder: Recorder, *, last: bool) -> None:  # noqa: B027 - not every task draws
        """Draw figures; called at evaluations, and after training with `last`."""

    def state(self) -> dict[str, Any]:
        """What a resumed run must know beside the weights: tensors and plain values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 - the counterpart of an empty state
        """Take up what `state` gave."""


def seeded(seed: int, stream: str, index: int) -> torch.Generator:
    """A generator for one purpose at one index, independent of every other one."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{index}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
