"""The training loop that every task shares: batch, loss, backward, clip, step, log, evaluate, checkpoint."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuralode_exp import tags
from neuralode_exp.config.schema import Trainer
from neuralode_exp.models.replicas import Replicas
from neuralode_exp.ode import SolverError, Stats
from neuralode_exp.tracking import checkpoints, memory
from neuralode_exp.tracking.progress import Progress
from neuralode_exp.tracking.recorder import Recorder
from neuralode_exp.trainers import earlier
from neuralode_exp.trainers.failures import Failures, NonFiniteGradient
from neuralode_exp.trainers.meter import Meter
from neuralode_exp.trainers.optimisation import Average, learning_rate, make_optimizer
from neuralode_exp.trainers.task import Task

log = logging.getLogger(__name__)

SPARSE = 10  # memory is measured in at most one of so many steps
OF_MEASURED_STEP = ("memory/peak_mib", "memory/saved_mib", "memory/autograd_peak_mib")

Prune = Callable[[int, float], bool]


@dataclass(frozen=True)
class Cadence:
    """Intervals in steps: how often the loop logs, evaluates and saves, and when training ends."""

    total: int
    log: int
    evaluate: int
    checkpoint: int

    @staticmethod
    def of(task: Task, trainer: Trainer, log_every: int | None) -> Cadence:
        limits = (
            trainer.max_steps or math.inf,
            trainer.epochs * task.steps_per_epoch if trainer.epochs else math.inf,
        )
        evaluate = trainer.evaluate_every or task.evaluate_every
        return Cadence(int(min(limits)), log_every or task.log_every, evaluate, trainer.checkpoint_every or evaluate)


class Loop:
    """Train a task, from the start or from a checkpoint.

    Args:
        task: the model and its data.
        trainer: the trainer's part of the config.
        cadence: how often to log, evaluate and checkpoint.
        objective: tag that `best.pt` and early stopping minimise; None: no best.pt is kept.
        folder: the run's folder.
    """

    def __init__(
        self,
        task: Task,
        trainer: Trainer,
        cadence: Cadence,
        objective: str | None,
        folder: Path,
    ) -> None:
        self.task, self.trainer, self.cadence = task, trainer, cadence
        self.objective = objective
        self.folder = folder / "checkpoints"
        self.folder.mkdir(exist_ok=True)
        self.device = next(task.module.parameters()).device
        self.optimizer = make_optimizer(task.module, trainer)
        self.average = Average(task.module, trainer.average) if trainer.average else None
        self.replicas = task.replicas or Replicas()
        self.failures = Failures(trainer.on_solver_failure, trainer.max_failures, self.replicas)
        self.meter = Meter()
        self.peaks = memory.Peaks(self.device)
        self.step = 0
        self.pruned = False
        self.seconds = 0.0  # training time, over all processes of the run
        self.best = math.inf
        self.evaluations_without_better = 0
        self.metrics: dict[str, float] = {}  # the latest value of each tag
        self.recorded: set[str] = set()

    def run(
        self, recorder: Recorder, progress: Progress, interrupted: Callable[[], bool], prune: Prune | None = None
    ) -> None:
        """Train until the end or until training is stopped, and save a checkpoint in both cases.

        Args:
            recorder: writes scalars and figures.
            progress: shows the progress.
            interrupted: is called after each step, and returns whether to stop.
            prune: is called after each evaluation but the last, with the number of evaluations and the objective, and
                returns whether to stop.
        """
        started, first = time.perf_counter() - self.seconds, self.step + 1
        while self.step < self.cadence.total and not self._out_of_patience():
            self.step += 1
            self._measured_step() if self._measures_memory() else self._timed_step(warm=self.step > first)
            self.seconds = time.perf_counter() - started
            if self._due(self.cadence.log):
                self._record(recorder, self._training_metrics())
            if self._due(self.cadence.evaluate):
                self._evaluate(recorder)
                self.peaks.reset_device()
                self.pruned = prune is not None and self._is_hopeless(prune)
            self.seconds = time.perf_counter() - started
            stops = interrupted() or self.pruned or self._out_of_patience()
            if self._due(self.cadence.checkpoint) or stops:
                self.save("last")
            progress.update(self.step, tags.on_bar(self.metrics))
            if stops:
                return

    def _is_hopeless(self, prune: Prune) -> bool:
        value = self.metrics.get(self.objective or "loss/train", math.nan)
        return self.step < self.cadence.total and prune(self.step // self.cadence.evaluate, value)

    def _measures_memory(self) -> bool:
        """Whether memory is measured at this step: at the second step, and at steps with an evaluation.

        The first step is left out because it allocates the optimiser's state. The measurement takes time, so that at
        most one step in ten is measured, and the times of steps come from the others.
        """
        rarely = self.cadence.evaluate >= SPARSE or self.step % SPARSE == 0
        evaluated = self.step >= SPARSE and rarely and self._due(self.cadence.evaluate)
        return self.step == min(2, self.cadence.total) or evaluated

    def _measured_step(self) -> None:
        with self.peaks.of_step():
            self._train_step(measure_memory=True)
        if self.peaks.step_mib is not None and not bool(self.failures.consecutive.all()):  # a failed step ends early
            self.metrics["memory/peak_mib"] = self.peaks.step_mib

    def _timed_step(self, *, warm: bool) -> None:
        began = time.perf_counter()
        self._train_step(measure_memory=False)
        if warm:  # the first step of a process also makes caches, buffers and the optimiser's state
            self.meter.add("time/step_ms", 1e3 * (time.perf_counter() - began))

    def _train_step(self, *, measure_memory: bool) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.cadence.total, self.trainer)
        losses = self._loss_and_backward(measure_memory)
        if losses is not None:
            self._update(losses)
        self.replicas.take_back()

    def _loss_and_backward(self, measure_memory: bool) -> Tensor | None:
        """Compute the loss of each replica, shape (R,), and its gradient; None if the step fails.

        If a solve fails because of some replicas, it is repeated without them.
        """
        solves: list[Stats] = []
        try:
            while not bool(self.replicas.out.all()):
                self.optimizer.zero_grad(set_to_none=True)
                try:
                    losses = self._with_hooks() if measure_memory else self._without_hooks()
                    solves.append(self.task.stats)
                    return losses.detach().view(-1).cpu()
                except SolverError as error:
                    solves.append(error.stats or self.task.stats)
                    self.failures.count(self.step, self.replicas.blame(error.state), error)
            return None
        finally:
            self.meter.add_solves(solves)

    def _update(self, losses: Tensor) -> None:
        """Clip the gradients and update the replicas whose loss and gradient are finite."""
        parameters = [p for p in self.task.module.parameters() if p.requires_grad]
        norms = self.replicas.gradient_norms(parameters)
        finite = torch.isfinite(norms) & torch.isfinite(losses)
        good = finite & ~self.replicas.out
        if bool((bad := ~finite & ~self.replicas.out).any()):
            self.failures.count(self.step, bad, NonFiniteGradient("the loss or its gradient is NaN or infinite"))
        self.failures.progressed(good)
        if bool(good.any()):
            self.replicas.clip(parameters, norms, self.trainer.clip or math.inf, good)
            with self.replicas.only(good, parameters, self.optimizer):
                self.optimizer.step()
            if self.average is not None:
                self.average.update(self.task.module, self.step)
            self.meter.add("loss/train", float(losses[good].mean()))

    def _without_hooks(self) -> Tensor:
        losses, penalised = self.task.penalised_loss(self.step)
        penalised.sum().backward()
        return losses

    def _with_hooks(self) -> Tensor:
        with memory.SavedTensors(exclude=self.task.module) as probe:
            losses, penalised = self.task.penalised_loss(self.step)
            total = penalised.sum()
            probe.backward_starts()
            total.backward()
        self.metrics["memory/saved_mib"] = probe.saved_mib
        self.metrics["memory/autograd_peak_mib"] = probe.autograd_peak_mib
        return losses

    def _training_metrics(self) -> dict[str, float]:
        values = self.meter.means_and_reset()
        values["solver/failures"] = float(self.failures.total)
        values |= {tag: self.metrics[tag] for tag in OF_MEASURED_STEP if tag in self.metrics} | self.peaks.values()
        values["time/elapsed_s"] = self.seconds
        return values

    def _evaluate(self, recorder: Recorder) -> None:
        """Record metrics on held-out data and draw, both in evaluation mode: a solve in training mode is remembered."""
        self.task.module.eval()
        with averaged(self), torch.no_grad():
            values = self.task.evaluate() | self.task.measure() | self.task.hardness()
            if self.objective is not None:
                score = {**self.metrics, **values}.get(self.objective, math.nan)
                better = score < self.best
                self.evaluations_without_better = 0 if better else self.evaluations_without_better + 1
                if better:
                    self.best = score
                    self.save("best", weights_only=True)
        self._record(recorder, values)
        self.task.draw(self.step, recorder, last=False)
        self.task.module.train()

    def _record(self, recorder: Recorder, values: dict[str, float]) -> None:
        self.metrics.update(values)
        self.recorded.update(values)
        recorder.scalars(self.step, values)

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.cadence.total

    def _out_of_patience(self) -> bool:
        return self.trainer.patience is not None and self.evaluations_without_better >= self.trainer.patience

    def save(self, name: str, *, weights_only: bool = False) -> None:
        """Write checkpoints/<name>.pt: all that the run needs to resume, or only the weights."""
        state: dict[str, Any] = {
            "step": self.step,
            "shape": self.task.shape.plain(),
            "module": self.task.module.state_dict(),
        }
        if not weights_only:
            state |= {
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.weights if self.average else None,
                "failures": self.failures.state(),
                "meter": self.meter.state(),
                "task": self.task.state(),
                "metrics": self.metrics,
                "recorded": sorted(self.recorded),
                "seconds": self.seconds,
                "best": self.best,
                "evaluations_without_better": self.evaluations_without_better,
                "rng": checkpoints.rng_state(),
            }
        checkpoints.save(self.folder / f"{name}.pt", state)

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state that `save("last")` wrote."""
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.evaluations_without_better = state["evaluations_without_better"]
        self.metrics, self.recorded = dict(state["metrics"]), set(state["recorded"])
        self.task.module.load_state_dict(earlier.weights(state["module"], self.task.module))
        self.optimizer.load_state_dict(earlier.moments(state["optimizer"], self.optimizer))
        if self.average is not None:
            self.average.weights = [w.to(self.device) for w in earlier.averages(state["average"], self.task.module)]
        self.failures.restore(state["failures"])
        self.meter.restore(state["meter"])
        self.task.restore(state["task"])
        checkpoints.restore_rng_state(state["rng"])


@contextmanager
def averaged(loop: Loop) -> Iterator[None]:
    """Use the averaged weights within the block, if the run averages weights."""
    if loop.average is None:
        yield
        return
    loop.average.swap(loop.task.module)
    try:
        yield
    finally:
        loop.average.swap(loop.task.module)
