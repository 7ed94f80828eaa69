"""What tests of whole runs look at: a run in a folder, its weights and curves, and a run that is killed and goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from neuralode_exp.config import Config
from neuralode_exp.run import run
from neuralode_exp.tracking.metrics import read_metrics
from neuralode_exp.trainers.loop import Loop

Compose = Callable[..., Config]
RANDOM_OR_CLOCK = ("time/", "memory/peak_rss", "final/time")


def run_in(folder: Path, config: Config) -> float:
    folder.mkdir(exist_ok=True)
    return run(config, folder, config.model_dump(mode="json"))


def train_in(folder: Path, config: Config) -> Path:
    """The folder of a run with the config that Hydra would have stored there."""
    values = config.model_dump(mode="json")
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(values))
    run(config, folder, values)
    return folder


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / f"{name}.pt", weights_only=True)["module"]


def curves(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    return {tag: c for tag, c in read_metrics(folder).items() if not tag.startswith(RANDOM_OR_CLOCK)}


def assert_same_weights(a: Path, b: Path) -> None:
    of_a, of_b = weights(a), weights(b)
    assert of_a.keys() == of_b.keys()
    for name in of_a:
        assert torch.equal(of_a[name], of_b[name]), name


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the run may catch it."""


def whole_and_cut(folder: Path, config: Config, patch: pytest.MonkeyPatch, killed_at: int) -> tuple[Path, Path]:
    """The folders of two runs of a config, one of them killed at the start of a step, from which it went on."""
    whole, cut = folder / "whole", folder / "cut"
    run_in(whole, config)
    original = Loop._train_step

    def killing(self: Loop, *, measure_memory: bool) -> None:
        if self.step == killed_at:
            raise Killed
        original(self, measure_memory=measure_memory)

    with patch.context() as killer:
        killer.setattr(Loop, "_train_step", killing)
        with pytest.raises(Killed):
            run_in(cut, config)
    run_in(cut, config)
    return whole, cut
