"""Noisy points of trajectories to the vector field behind them, for one network or a stack of replicas."""

from __future__ import annotations

import copy
import csv
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neuralode_exp.models.vectors import ODEFlow, ResidualFlow
from neuralode_exp.ode import SolverError, Stats
from neuralode_exp.trainers.consistency import SAMPLES, accurate_method, relative_change
from neuralode_exp.trainers.dynamics_errors import eigenvalue_error, relative_error, trajectory_error
from neuralode_exp.trainers.shooting import MultipleShooting, SingleShooting
from neuralode_exp.trainers.task import Solved, Task, seeded

if TYPE_CHECKING:
    from neuralode_exp.tracking.recorder import Recorder


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Trajectories at shared times, to be led on from their first states.

    Args:
        t: times, shape (T,).
        z: states, shape (T, n, d): the truth if it is known, else what was observed.
        observed: what was observed of them, shape (T, n, d).
    """

    t: Tensor
    z: Tensor
    observed: Tensor

    def to(self, device: torch.device) -> Trajectories:
        return Trajectories(self.t.to(device), self.z.to(device), self.observed.to(device))


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of the true system.

    Args:
        states: noise-free training states, shape (M, d).
        field: f(t, z) there, or for a residual map the true displacement over its step, shape (M, d).
        fixed_point: shape (d,), or None.
        eigenvalues: of the Jacobian of f there, shape (d,), complex, or None.
        least_squares: errors of a linear fit without a network, by tag.
        f: the field anywhere, for pictures.
    """

    states: Tensor
    field: Tensor
    fixed_point: Tensor | None
    eigenvalues: Tensor | None
    least_squares: Mapping[str, float]
    f: Any


class LearnDynamics(Task):
    """Shooting over segments, or trajectories, drawn anew at each step; see `neuralode_exp.trainers.shooting`.

    Replica k draws from (seed + k, step), so that it equals the run with that seed.

    Args:
        flow: z0 to z(t), of all replicas.
        shooting: the loss; of multiple shooting, with the estimated states.
        validation, test: unseen trajectories, each entry with times of its own.
        long: the test over a longer time, None if the data end.
        truth: None for measured data.
        batch_size: segments or trajectories a step, of each replica.
        seed: of the batches.
        figures: whether to draw.
    """

    evaluate_every = 100

    def __init__(
        self,
        flow: ODEFlow | ResidualFlow,
        shooting: MultipleShooting | SingleShooting,
        validation: Sequence[Trajectories],
        test: Sequence[Trajectories],
        long: Trajectories | None,
        truth: Truth | None,
        *,
        batch_size: int,
        seed: int,
        figures: bool,
    ) -> None:
        self.module = nn.ModuleDict({"flow": flow, "shooting": shooting})
        self.flow, self.shooting = flow, shooting
        self.validation, self.test, self.long, self.truth = validation, test, long, truth
        self.batch_size, self.seed, self.figures = batch_size, seed, figures
        self.replicas = flow.field.replicas
        self.steps_per_epoch = max(1, len(shooting) // batch_size)
        self.objective = "dynamics/validation_error" if validation else None
        if isinstance(shooting, SingleShooting):
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
        generators = [seeded(self.seed + k, "batch", step) for k in range(self.replicas)]
        return self.shooting(self.flow, self.shooting.draw(generators, self.batch_size))

    def freeze(self, replicas: Tensor) -> None:
        replicas = replicas.to(self.flow.field.active.device)
        self.flow.field.freeze(replicas)
        self.shooting.freeze(replicas)

    def evaluate(self) -> dict[str, float]:
        values = {}
        if self.validation:
            values["dynamics/validation_error"] = self._trajectory_error(self.validation)
        return self._summarise(values | self._against_truth())

    def final(self) -> dict[str, float]:
        values = {}
        if self.test:
            values["dynamics/trajectory_error"] = self._trajectory_error(self.test)
        elif self.validation:
            values["dynamics/validation_error"] = self._trajectory_error(self.validation)
        if self.long is not None:
            values["dynamics/long_trajectory_error"] = self._trajectory_error([self.long])
        summary = self._summarise(values | self._against_truth()) | self._consistency()
        if self.replicas > 1:
            summary["dynamics/active_replicas"] = float(self.flow.field.active.sum())
        return summary | (dict(self.truth.least_squares) if self.truth else {})

    def _against_truth(self) -> dict[str, Tensor]:
        if self.truth is None:
            return {}
        states = self.truth.states
        learned = self.flow.field(states.new_zeros(()), states.expand(self.replicas, *states.shape))
        if isinstance(self.flow, ResidualFlow):
            learned = learned * self.flow.dt
        values = {"dynamics/field_error": relative_error(learned, self.truth.field)}
        if self.truth.fixed_point is not None and self.truth.eigenvalues is not None:
            learned_eigenvalues = self.flow.eigenvalues(self.truth.fixed_point)
            values["dynamics/eigenvalue_error"] = eigenvalue_error(learned_eigenvalues, self.truth.eigenvalues)
        return values

    def _trajectory_error(self, trajectories: Sequence[Trajectories]) -> Tensor:
        """Mean over all trajectories, shape (R,); infinite where the learned field cannot be solved."""
        errors, counts = [], []
        for known in trajectories:
            try:
                learned = self.flow(known.z[0].expand(self.replicas, *known.z.shape[1:]), known.t)
                errors.append(trajectory_error(learned, known.z).cpu())
            except SolverError:
                errors.append(torch.full((self.replicas,), torch.inf, dtype=torch.float64))
            counts.append(known.z.shape[1])
        weights = torch.tensor(counts, dtype=torch.float64) / sum(counts)
        return (torch.stack(errors) * weights[:, None]).sum(0)

    def solved(self) -> Solved | None:
        """Trajectories from the first states of the test; of measured data from those held out."""
        if not (trajectories := self.test or self.validation):
            return None
        tag = "dynamics/trajectory_error" if self.test else "dynamics/validation_error"
        learned, nfe, began = [], [], time.perf_counter()
        for known in trajectories:
            learned.append(self.flow(known.z[0].expand(self.replicas, *known.z.shape[1:]), known.t))
            nfe.append(self.flow.stats.nfe_forward)
        seconds = time.perf_counter() - began
        errors = [
            (float(trajectory_error(z, known.z).mean()), known.z.shape[1])
            for z, known in zip(learned, trajectories, strict=True)
        ]
        error = sum(e * n for e, n in errors) / sum(n for _, n in errors)
        return Solved(tag, error, torch.cat([z.flatten() for z in learned]), statistics.fmean(nfe), seconds)

    def _summarise(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Means over the replicas under the tag, standard deviations beside it."""
        self.by_replica.update({tag: value.cpu() for tag, value in values.items()})
        summary = {tag: float(value.mean()) for tag, value in values.items()}
        if self.replicas > 1:
            summary |= {f"{tag}_std": float(value.std()) for tag, value in values.items()}
        return summary

    def _consistency(self) -> dict[str, float]:
        """How far an accurate solve in float64 moves the trajectories of the test, and their error."""
        if not isinstance(self.flow, ODEFlow) or not (known := self.test or self.validation):
            return {}
        flow = copy.deepcopy(self.flow).double()
        few = known[0]
        z, t = few.z[:, :SAMPLES].double(), few.t.double()
        start = z[0].expand(self.replicas, *z.shape[1:])
        try:
            learned = flow(start, t)
            flow.method = accurate_method(flow.method)
            reference = flow(start, t)
        except SolverError:
            return {"solver/consistency": float("inf")}
        change = trajectory_error(learned, z).mean() - trajectory_error(reference, z).mean()
        return {
            "solver/consistency": relative_change(learned, reference),
            "solver/consistency_error": abs(float(change)),
        }

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "snapshots": self.snapshots, "eigenvalues": self.eigenvalues}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = list(state["steps"])
        self.snapshots, self.eigenvalues = list(state["snapshots"]), list(state["eigenvalues"])

    @torch.no_grad()
    def draw(self, step: int, recorder: Recorder, *, last: bool) -> None:
        if last and self.replicas > 1:
            self._write_replicas(recorder)
        if not self.figures or self.flow.field.dim < 2:
            return
        from neuralode_exp.trainers.dynamics_pictures import draw_all, take_snapshot

        take_snapshot(self, step)
        if last:
            draw_all(self, step, recorder)

    def _write_replicas(self, recorder: Recorder) -> None:
        """replicas.csv: one row a replica, with its seed and its last metrics."""
        with open(recorder.folder / "replicas.csv", "w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["replica", "seed", "active", *self.by_replica])
            active = self.flow.field.active.flatten().bool().tolist()
            for k in range(self.replicas):
                values = [repr(float(value[k])) for value in self.by_replica.values()]
                rows.writerow([k, self.seed + k, active[k], *values])
