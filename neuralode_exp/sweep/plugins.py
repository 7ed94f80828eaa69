"""Our sweepers as Hydra's plugins.

Every start imports this, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from neuralode_exp.config.hydra_internals import register_plugin


class _OwnSweeper(Sweeper):
    """What our sweepers share: a launcher of jobs, and axes that stand in a file before those of the command line."""

    launcher: Launcher
    params: Mapping[str, Any]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = _launcher(hydra_context, task_function, config)

    def axes(self, arguments: list[str]) -> list[str]:
        return [*(f"{key}={value}" for key, value in self.params.items()), *arguments]


class GridSweeper(_OwnSweeper):
    """Run every cell of a grid once: those that are done are left alone, those that are lost are launched again.

    Args:
        max_batch_size: cells handed to the launcher at once; None for as many as it likes.
        stop_after: failures that end the grid; None for no limit.
        steps_after: of a job; None here.
        params: axes that stand in a file, as `{"seed": "0,1"}`.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        stop_after: int | None,
        steps_after: None,
        params: Mapping[str, Any] | None,
    ) -> None:
        self.limits = {"max_batch_size": max_batch_size, "stop_after": stop_after}
        self.params = params or {}

    def sweep(self, arguments: list[str]) -> None:
        from neuralode_exp.sweep.grid import run_grid

        assert self.config is not None
        assert self.hydra_context is not None
        axes = self.axes(arguments)
        run_grid(self.config, self.hydra_context.config_loader, self.launcher, axes, **self.limits)


class OptunaSearch(_OwnSweeper):
    """Search with Optuna: the same command goes on with the same study, up to `n_trials` in all.

    Args:
        params: the search space where it stands in a file, as `{"trainer.lr": "interval(0.1,1)"}`.
        trial: of a job; None here.
        further: those of `run_search`.
    """

    def __init__(self, params: Mapping[str, Any] | None, trial: int | None, **further: Any) -> None:
        self.params, self.further = params or {}, further

    def sweep(self, arguments: list[str]) -> None:
        from neuralode_exp.sweep.search import run_search

        assert self.config is not None
        assert self.hydra_context is not None
        axes = self.axes(arguments)
        run_search(self.config, self.hydra_context.config_loader, self.launcher, axes, **self.further)


def _launcher(hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> Launcher:
    from neuralode_exp.sweep.launching import Job

    job = Job(task_function, config.hydra.launcher._target_)
    return Plugins.instance().instantiate_launcher(hydra_context=hydra_context, task_function=job, config=config)


def register_sweepers() -> None:
    """Make our sweepers known to Hydra."""
    register_plugin(GridSweeper)
    register_plugin(OptunaSearch)
