"""Learn a vector field from noisy points of its trajectories, with one network or several replicas."""

from __future__ import annotations

import copy
import csv
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neuralode_exp.data.observed import Trajectories
from neuralode_exp.models.fields.hybrid import Hybrid
from neuralode_exp.models.replicas import Replicas
from neuralode_exp.models.shape import Shape
from neuralode_exp.ode import SolverError, Stats
from neuralode_exp.trainers.consistency import SAMPLES, consistency
from neuralode_exp.trainers.dynamics.curvature import curvature
from neuralode_exp.trainers.dynamics.metrics import Pair, spread_error, trajectory_error
from neuralode_exp.trainers.dynamics.shooting import MultipleShooting, SingleShooting
from neuralode_exp.trainers.dynamics.truth import Flow, Truth
from neuralode_exp.trainers.task import Solved, Task, seeded

if TYPE_CHECKING:
    from neuralode_exp.tracking.recorder import Recorder

log = logging.getLogger(__name__)

FEW = 16  # trajectories on which the regularisers are measured


@dataclass(eq=False, repr=False)
class LearnDynamics(Task):
    """Learn dynamics by shooting over segments or trajectories, see `neuralode_exp.trainers.dynamics.shooting`.

    Segments or trajectories are drawn anew at each step. Replica k draws from (seed + k, step), so that
    it equals the run with that seed.

    Args:
        flow: maps z0 to z(t).
        shooting: the loss, for multiple shooting with the estimated states.
        validation, test: unseen trajectories. Each entry has its own times.
        long: test trajectories over a longer time; None: there are none.
        truth: the true system; None for measured data.
        error: error of learned against true states, both of shape (T, n, d).
        shape: shape of the states.
        replicas: the networks in flow and shooting.
        start: called before the first step, for example for a start by collocation.
        bend: weight of the field's curvature in the loss.
        batch_size: segments or trajectories per step and replica.
        seed: seed of the batches.
        figures: whether to draw.
        constants: the true constants of a hybrid field, if they are known.
    """

    evaluate_every = 100

    flow: Flow
    shooting: MultipleShooting | SingleShooting
    validation: Sequence[Trajectories]
    test: Sequence[Trajectories]
    long: Trajectories | None
    truth: Truth | None
    _: KW_ONLY
    error: Callable[[Sequence[Pair]], Tensor] = trajectory_error
    shape: Shape
    replicas: Replicas = field()  # required here; other tasks may have None
    start: Callable[[], None] | None = None
    bend: float = 0.0
    batch_size: int
    seed: int
    figures: bool
    constants: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.module = nn.ModuleDict({"flow": self.flow, "shooting": self.shooting})
        self.hybrid = next((part for part in self.flow.modules() if isinstance(part, Hybrid)), None)
        self.steps_per_epoch = max(1, len(self.shooting) // self.batch_size)
        self.objective = "dynamics/validation_error" if self.validation else None
        if isinstance(self.shooting, SingleShooting):
            self.advice = (
                "over whole trajectories errors grow with states; pick trainer.shooting=multiple or a lower trainer.lr"
            )
        self.by_replica: dict[str, Tensor] = {}
        self.steps: list[int] = []
        self.snapshots: list[Tensor] = []  # learned states of the drawn trajectories, (R, T, n, d), at those steps
        self.eigenvalues: list[Tensor] = []  # (R, d)

    @property
    def model(self) -> nn.Module:
        return self.flow

    @property
    def stats(self) -> Stats:
        return self.flow.stats

    def loss(self, step: int) -> Tensor:
        if step == 1 and self.start:  # only at step 1: a resumed run has its result
            start, self.start = self.start, None
            start()
        loss: Tensor = self.shooting(self.flow, self.shooting.draw(self._generators("batch", step), self.batch_size))
        if self.bend:
            generators = self._generators("curvature", step)
            loss = loss + self.bend * curvature(self.flow.field, self.shooting.z, generators, self.replicas)
        return loss

    def _generators(self, stream: str, step: int) -> list[torch.Generator]:
        return [seeded(self.seed + k, stream, step) for k in range(self.replicas.n)]

    def lead_on(self, flow: Flow, known: Trajectories, z0: Tensor, t: Tensor) -> Tensor:
        """Solve from the first states z0, shape (n, d), to the times t with every replica: shape (T, n, d)."""
        inputs = {}
        if self.shape.inputs and known.u is not None:
            u = known.u[:, : z0.shape[0]].to(z0)
            inputs["u"] = u if self.replicas.n == 1 else u[:, None].expand(-1, self.replicas.n, -1, -1)
        return flow(self.replicas.expand(z0), t, **inputs)

    def evaluate(self) -> dict[str, float]:
        values = {}
        if self.validation:
            values["dynamics/validation_error"] = self._trajectory_error(self.validation)
        return self._summarise(values | self._field_errors() | self._constants()) | self._persistence()

    def final(self) -> dict[str, float]:
        values = {}
        if self.test:
            values["dynamics/trajectory_error"] = self._trajectory_error(self.test)
        elif self.validation:
            values["dynamics/validation_error"] = self._trajectory_error(self.validation)
        if self.long is not None:
            values["dynamics/long_trajectory_error"] = self._trajectory_error([self.long])
            values |= self.truth.valid_time(self.lead_on, self.flow, self.long) if self.truth else {}
        if self.truth is not None and self.test:
            values |= self.truth.energy_drift(self.lead_on, self.flow, self.test[0], self.replicas)
        values |= self._field_errors() | self._constants()
        summary = self._summarise(values) | self._persistence() | self._consistency()
        self._warn_of_persistence(summary)
        if self.replicas.n > 1:
            summary["dynamics/active_replicas"] = float((~self.replicas.frozen).sum())
        return summary | (dict(self.truth.least_squares) if self.truth else {})

    def _persistence(self) -> dict[str, float]:
        """Return the error of persistence, the forecast that stays at the first held-out state, for measured data."""
        if self.truth is not None or self.test or not self.validation:
            return {}
        stays = self.error([(x.z[:1].expand_as(x.z), x.judged) for x in self.validation])
        return {"dynamics/persistence_error": float(stays)}

    def _warn_of_persistence(self, summary: Mapping[str, float]) -> None:
        learned, held = (summary.get(f"dynamics/{name}_error", 0.0) for name in ("validation", "persistence"))
        if not learned <= held:
            log.warning(
                "the fit is worse than persistence, which stays at the first held-out state: error %.3g against %.3g",
                learned,
                held,
            )

    def _field_errors(self) -> dict[str, Tensor]:
        return self.truth.field_errors(self.flow, self.replicas, driven=self.shape.inputs > 0) if self.truth else {}

    def _constants(self) -> dict[str, Tensor]:
        """Return the learned constants of a hybrid field, and their largest relative error."""
        if self.hybrid is None:
            return {}
        learned = {name: value.detach().double() for name, value in self.hybrid.learned().items()}
        values = {f"constants/{name}": value for name, value in learned.items()}
        off = [(learned[name] - true).abs() / (abs(true) or 1.0) for name, true in self.constants.items()]
        return values | ({"dynamics/constants_error": torch.stack(off).amax(0)} if off else {})

    def _trajectory_error(self, trajectories: Sequence[Trajectories]) -> Tensor:
        """Return the error over all trajectories for each replica. It is infinite if a solve fails."""
        try:
            learned = [self.lead_on(self.flow, known, known.z[0], known.t) for known in trajectories]
        except SolverError:
            return self.replicas.expand(torch.tensor(torch.inf, dtype=torch.float64))
        return self.error([(z, known.judged) for z, known in zip(learned, trajectories, strict=True)]).cpu()

    def hardness(self) -> dict[str, float]:
        # Regularisers need a field of t and z alone, and a known equation cannot be made easier.
        return {} if self.shape.inputs or self.hybrid is not None else super().hardness()

    def networks(self) -> Iterator[nn.Module]:
        if self.replicas.n == 1:
            yield self.flow
            return
        for k in range(self.replicas.n):
            alone = copy.deepcopy(self.flow)
            alone.field.field = alone.field.field.one(k)  # type: ignore[operator]
            yield alone

    def held_out(self) -> Sequence[Trajectories] | None:
        return self.validation or None

    def solve_few(self) -> None:
        if self.validation:
            known = self.validation[0]
            self.flow(self.replicas.expand(known.z[0][:FEW]), known.t[[0, -1]])

    def take_units(self, shape: Shape) -> None:
        if (ours := self.shape.scale) and (theirs := shape.scale):
            self.validation = [x.rescaled(ours, theirs) for x in self.validation]
            self.error = partial(spread_error, scale=theirs)

    def solved(self) -> Solved | None:
        """Solve from the first states of the test data, or for measured data of the held-out data."""
        if not (trajectories := self.test or self.validation):
            return None
        tag = "dynamics/trajectory_error" if self.test else "dynamics/validation_error"
        learned, nfe, began = [], [], time.perf_counter()
        for known in trajectories:
            learned.append(self.lead_on(self.flow, known, known.z[0], known.t))
            nfe.append(self.flow.stats.nfe_forward)
        seconds = time.perf_counter() - began
        error = float(self.error([(z, x.judged) for z, x in zip(learned, trajectories, strict=True)]).mean())
        return Solved(tag, error, torch.cat([z.flatten() for z in learned]), statistics.fmean(nfe), seconds)

    def _summarise(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the means over the replicas by tag, and their standard deviations under further tags."""
        self.by_replica.update({tag: value.cpu() for tag, value in values.items()})
        summary = {tag: float(value.mean()) for tag, value in values.items()}
        if self.replicas.n > 1:
            summary |= {f"{tag}_std": float(value.std()) for tag, value in values.items()}
        return summary

    def _consistency(self) -> dict[str, float]:
        """Measure how an accurate solve in float64 changes the test trajectories and their error."""
        if not (known := self.test or self.validation):
            return {}
        z, t = known[0].z[:, :SAMPLES].double(), known[0].t.double()
        judged = known[0].judged[:, :SAMPLES]

        def measure(flow: Flow) -> tuple[Tensor, Tensor]:
            learned = self.lead_on(flow, known[0], z[0], t)
            return learned, self.error([(learned, judged)]).mean()

        return consistency(self.flow, measure)

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "snapshots": self.snapshots, "eigenvalues": self.eigenvalues}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = list(state["steps"])
        self.snapshots, self.eigenvalues = list(state["snapshots"]), list(state["eigenvalues"])

    @torch.no_grad()
    def draw(self, step: int, recorder: Recorder, *, last: bool) -> None:
        if last and self.replicas.n > 1:
            self._write_replicas(recorder)
        if not self.figures or (self.shape.dim < 2 and self.shape.scale is None):
            return
        from neuralode_exp.trainers.dynamics.pictures import draw_all, take_snapshot

        take_snapshot(self, step)
        if last:
            draw_all(self, step, recorder)

    def _write_replicas(self, recorder: Recorder) -> None:
        """Write replicas.csv, with one row per replica: its seed and its last metrics."""
        with open(recorder.folder / "replicas.csv", "w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["replica", "seed", "active", *self.by_replica])
            for k, frozen in enumerate(self.replicas.frozen.tolist()):
                values = [repr(float(value[k])) for value in self.by_replica.values()]
                rows.writerow([k, self.seed + k, not frozen, *values])
