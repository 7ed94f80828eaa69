"""A job of train.py with an accident in its third step, chosen by its seed: 8 raise, 2 end in NaN, 1 is killed."""

from __future__ import annotations

import math
import os
import signal
from unittest import mock

import hydra
import torch
from omegaconf import DictConfig

from neuralode_exp.config.compose import CONF
from neuralode_exp.config.hydra_internals import VERSION_BASE
from neuralode_exp.sweep.plugins import register_plugins

RAISE, TURN_NAN, KILLED = range(8), range(8, 10), 10


@hydra.main(**VERSION_BASE, config_path=str(CONF), config_name="config")
def main(config: DictConfig) -> float:
    from neuralode_exp.commands import train
    from neuralode_exp.trainers.loop import Loop

    original = Loop._train_step

    def step(self: Loop, *, measure_memory: bool) -> None:
        original(self, measure_memory=measure_memory)
        if self.step == 3:
            befall(config.seed, self.task.module)

    with mock.patch.object(Loop, "_train_step", step):
        return train.main.__wrapped__(config)


def befall(seed: int, module: torch.nn.Module) -> None:
    if seed in RAISE:
        raise RuntimeError(f"an accident of seed {seed}")
    if seed in TURN_NAN:
        with torch.no_grad():
            next(module.parameters()).fill_(math.nan)
    if seed == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    register_plugins()
    main()
