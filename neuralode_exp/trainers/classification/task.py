"""Learn labels of images or points by cross-entropy, and report the error in percent."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from neuralode_exp.data.images import Images, Split
from neuralode_exp.models.classifier import Classifier
from neuralode_exp.models.images import MLP
from neuralode_exp.models.shape import Shape
from neuralode_exp.models.vectors import VectorNet
from neuralode_exp.ode import Stats
from neuralode_exp.trainers.consistency import SAMPLES, consistency
from neuralode_exp.trainers.task import Solved, Task, seeded

if TYPE_CHECKING:
    from neuralode_exp.tracking.recorder import Recorder

EVALUATION_BATCH = 500
FEW = 50  # images on whose paths the regularisers are measured
Network = Classifier | MLP
Augmentation = Callable[[Tensor, int], Tensor]


@dataclass(eq=False, repr=False)
class Classification(Task):
    """Train on batches in a new order each epoch. The augmentation of an image is drawn anew each time.

    Args:
        module: maps images, shape (B, c, h, w), or points, shape (B, d), to logits, shape (B, classes).
        data: the data, on the device of the module.
        shape: shape of the images.
        batch_size: images per step. The last batch of an epoch is left out if it is smaller.
        augmented: augments the training images of a step, before they are normalised.
        label_smoothing: label smoothing of the cross-entropy (arXiv 1512.00567); 0 is off.
        bf16: whether the module is evaluated under autocast to bfloat16. Logits are float32 in any case.
        seed: seed of the order.
        figures: whether to draw.
    """

    module: Network
    data: Images
    _: KW_ONLY
    shape: Shape
    batch_size: int
    augmented: Augmentation | None = None
    label_smoothing: float
    bf16: bool = False
    seed: int
    figures: bool = True

    def __post_init__(self) -> None:
        images, n = self.data.train.images, len(self.data.train.labels)
        if self.batch_size > n:
            raise ValueError(f"trainer.batch_size must be at most the {n} training images, got {self.batch_size}")
        self.state_axes = images.dim() - 1
        self.steps_per_epoch = self.evaluate_every = n // self.batch_size
        self.objective = "error/validation" if len(self.data.validation.labels) else None
        self.dtype = next(self.module.parameters()).dtype
        self._autocast = partial(torch.autocast, images.device.type, torch.bfloat16, enabled=self.bf16)
        self._epoch, self._order = -1, torch.empty(0)
        self._predicted = torch.empty(0)  # predicted labels of the test images, after training

    @property
    def stats(self) -> Stats:
        return self.module.stats

    def loss(self, step: int) -> Tensor:
        images, labels = self._batch(step)
        logits = self._evaluated(self.module, images)
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, i = divmod(step - 1, self.steps_per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(len(self.data.train.labels), generator=seeded(self.seed, "order", epoch))
            self._epoch, self._order = epoch, order.to(self.data.train.labels.device)
        index = self._order[i * self.batch_size : (i + 1) * self.batch_size]
        images = self.data.train.images[index]
        if self.augmented is not None:
            images = self.augmented(images, step)
        return self.data.normalise(images), self.data.train.labels[index]

    def evaluate(self) -> dict[str, float]:
        if not len(self.data.validation.labels):
            # Without an objective the test data choose nothing: there is no best.pt and no early stop.
            return {"error/test": self._measure(self.module, self.data.test)[1]}
        loss, error = self._measure(self.module, self.data.validation)
        return {"loss/validation": loss, "error/validation": error}

    def held_out(self) -> tuple[Tensor, Tensor] | None:
        split = self.data.validation
        return (self.data.normalise(split.images).to(self.dtype), split.labels) if len(split.labels) else None

    def final(self) -> dict[str, float]:
        self._predicted = self._logits(self.module, self.data.test.images).argmax(1)
        return {"error/test": _error(self._predicted, self.data.test.labels)} | self._consistency()

    def _measure(self, module: Network, split: Split) -> tuple[float, float]:
        """Return the mean cross-entropy and the error in percent."""
        logits = self._logits(module, split.images)
        return float(F.cross_entropy(logits, split.labels)), _error(logits.argmax(1), split.labels)

    def _logits(self, module: Network, images: Tensor) -> Tensor:
        return torch.cat([self._evaluated(module, self.data.normalise(x)) for x in images.split(EVALUATION_BATCH)])

    def _evaluated(self, module: Network, images: Tensor) -> Tensor:
        """Return the logits of normalised images in the precision of the weights. A float64 module uses no autocast."""
        dtype = next(module.parameters()).dtype
        with self._autocast():
            return module(images.to(dtype)).to(dtype)

    def _consistency(self) -> dict[str, float]:
        """Measure how an accurate solve in float64 changes the features after the ODE block and the test error."""
        if not isinstance(self.module, Classifier):
            return {}
        few = Split(self.data.test.images[:SAMPLES], self.data.test.labels[:SAMPLES])
        images = self.data.normalise(few.images).double()
        return consistency(
            self.module, lambda model: (model.body(model.features(images)), self._measure(model, few)[1])
        )

    def solve_few(self) -> None:
        held_out = self.data.validation if len(self.data.validation.labels) else self.data.test
        self._evaluated(self.module, self.data.normalise(held_out.images[:FEW]))

    def solved(self) -> Solved:
        """Return the features after the blocks, or the logits of a network without blocks."""
        test, module = self.data.test, self.module
        with self._autocast():
            images = [self.data.normalise(part).to(self.dtype) for part in test.images.split(EVALUATION_BATCH)]
            starts = [module.features(part) for part in images] if isinstance(module, Classifier) else images
            body = module.body if isinstance(module, Classifier) else module
            ends, nfe, began = [], [], time.perf_counter()
            for start in starts:
                ends.append(body(start))
                nfe.append(module.stats.nfe_forward)
            seconds = time.perf_counter() - began
            logits = [module.classify(end) for end in ends] if isinstance(module, Classifier) else ends
        error = _error(torch.cat(logits).argmax(1), test.labels)
        return Solved("error/test", error, torch.cat(ends), statistics.fmean(nfe), seconds)

    @torch.no_grad()
    def draw(self, step: int, recorder: Recorder, *, last: bool) -> None:
        if not (self.figures and last):
            return
        from neuralode_exp.trainers.classification.pictures import draw_all, draw_points

        if isinstance(self.module, VectorNet):
            if self.shape.dim == self.shape.classes == 2:
                draw_points(self.module, self.data.test, step, recorder)
        else:
            draw_all(self.data.test, self._predicted, step, recorder)


def _error(predicted: Tensor, labels: Tensor) -> float:
    """Return the error in percent."""
    return 100.0 * int((predicted != labels).sum()) / len(labels)
