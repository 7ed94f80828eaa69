"""Optimisers, learning-rate schedules, clipping and averaging of weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from neuralode_exp.config.schema import Trainer


def make_optimizer(module: nn.Module, trainer: Trainer) -> torch.optim.Optimizer:
    """Return SGD with Nesterov momentum, Adam or AdamW. Weight decay acts on weights, but not on norms and biases."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    decays = {name for name, p in named if p.dim() >= 2 and "weight" in name}
    decayed = [p for name, p in named if name in decays]
    plain = [p for name, p in named if name not in decays]
    groups = [{"params": decayed, "weight_decay": trainer.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if trainer.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=trainer.lr, momentum=trainer.momentum, nesterov=trainer.momentum > 0)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[trainer.optimizer]
    return kind(groups, lr=trainer.lr)


def learning_rate(step: int, total: int, trainer: Trainer) -> float:
    """Return the learning rate of a step from 1 to total.

    `cosine` falls from lr to 0. `one-cycle` first rises linearly over the fraction `rise` of the steps
    (Smith, arXiv 1708.07120, with the cosine fall that most implementations use).
    """
    if trainer.schedule == "constant":
        return trainer.lr
    rise = trainer.rise * total if trainer.schedule == "one-cycle" else 0.0
    if step <= rise:
        return trainer.lr * step / rise
    done = (step - rise) / max(1.0, total - rise + 1)
    return trainer.lr * 0.5 * (1.0 + math.cos(math.pi * done))


class Average:
    """Exponential moving average of the weights, w_avg <- d w_avg + (1 - d) w, with a warm-up of d.

    d = min(decay, (1 + step) / (10 + step)), so that the average soon forgets the first steps.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = [p.detach().clone() for p in module.parameters()]

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, p in zip(self.weights, module.parameters(), strict=True):
            average.lerp_(p.detach(), 1.0 - decay)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the module's weights with the averaged ones. A second call exchanges them back."""
        for average, p in zip(self.weights, module.parameters(), strict=True):
            kept = p.detach().clone()
            p.copy_(average)
            average.copy_(kept)
