"""Images to labels: cross-entropy, error in percent."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from neuralode_exp.data.mnist import MNIST, Split, normalise, random_shift
from neuralode_exp.models.blocks import ODEBlock
from neuralode_exp.models.images import MLP, ConvNet
from neuralode_exp.ode import SolverError, Stats
from neuralode_exp.trainers.consistency import SAMPLES, accurate_method, relative_change
from neuralode_exp.trainers.task import Task, seeded

EVALUATION_BATCH = 500


class Classification(Task):
    """Training batches in a new order each epoch, every image shifted anew.

    Args:
        module: images (B, 1, 28, 28) to logits (B, 10).
        data: on the device of the module.
        batch_size: images a step; the last, smaller batch of an epoch is left out.
        shift: largest shift of an image, in pixels.
        label_smoothing: of the cross-entropy (arXiv 1512.00567); 0 is off.
        seed: of the order and the shifts.
    """

    def __init__(
        self, module: ConvNet | MLP, data: MNIST, *, batch_size: int, shift: int, label_smoothing: float, seed: int
    ) -> None:
        n = len(data.train.labels)
        if batch_size > n:
            raise ValueError(f"trainer.batch_size must be at most the {n} training images, got {batch_size}")
        self.module: ConvNet | MLP = module
        self.data, self.seed = data, seed
        self.batch_size, self.shift, self.label_smoothing = batch_size, shift, label_smoothing
        self.steps_per_epoch = n // batch_size
        self.evaluate_every = self.steps_per_epoch
        self.objective = "error/validation" if len(data.validation.labels) else None
        self.dtype = next(module.parameters()).dtype
        self._epoch, self._order = -1, torch.empty(0)

    @property
    def stats(self) -> Stats:
        return self.module.stats

    def loss(self, step: int) -> Tensor:
        images, labels = self._batch(step)
        logits = self.module(images)
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)[None]

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, i = divmod(step - 1, self.steps_per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(len(self.data.train.labels), generator=seeded(self.seed, "order", epoch))
            self._epoch, self._order = epoch, order.to(self.data.train.labels.device)
        index = self._order[i * self.batch_size : (i + 1) * self.batch_size]
        images = random_shift(self.data.train.images[index], self.shift, seeded(self.seed, "shift", step))
        return normalise(images).to(self.dtype), self.data.train.labels[index]

    def evaluate(self) -> dict[str, float]:
        if not len(self.data.validation.labels):
            # Nothing is chosen by it: without an objective there is no best and no early stop.
            return {"error/test": self._measure(self.module, self.data.test)[1]}
        loss, error = self._measure(self.module, self.data.validation)
        return {"loss/validation": loss, "error/validation": error}

    def final(self) -> dict[str, float]:
        _, error = self._measure(self.module, self.data.test)
        return {"error/test": error} | self._consistency()

    def _measure(self, module: ConvNet | MLP, split: Split) -> tuple[float, float]:
        """Mean cross-entropy and error in percent."""
        loss, wrong = 0.0, 0
        for images, labels in zip(
            split.images.split(EVALUATION_BATCH), split.labels.split(EVALUATION_BATCH), strict=True
        ):
            logits = module(normalise(images).to(next(module.parameters()).dtype))
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            wrong += int((logits.argmax(1) != labels).sum())
        return loss / len(split.labels), 100.0 * wrong / len(split.labels)

    def _consistency(self) -> dict[str, float]:
        """How far an accurate solve in float64 moves the features after the ODE block, and the test error."""
        if not (isinstance(self.module, ConvNet) and isinstance(self.module.body, ODEBlock)):
            return {}
        module = copy.deepcopy(self.module).double()
        body = module.body
        assert isinstance(body, ODEBlock)
        few = Split(self.data.test.images[:SAMPLES], self.data.test.labels[:SAMPLES])
        start = module.features(normalise(few.images).double())
        try:
            z, error = body(start), self._measure(module, few)[1]
            body.method = accurate_method(body.method)
            reference, reference_error = body(start), self._measure(module, few)[1]
        except SolverError:
            return {"solver/consistency": float("inf")}
        return {
            "solver/consistency": relative_change(z, reference),
            "solver/consistency_error": abs(error - reference_error),
        }

    def progress_values(self, metrics: Mapping[str, float]) -> dict[str, float]:
        error = "error/validation" if self.objective else "error/test"
        names = {"loss": "loss/train", "error %": error, "nfe": "nfe/forward"}
        return {name: metrics[tag] for name, tag in names.items() if tag in metrics}
