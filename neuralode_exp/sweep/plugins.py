"""Our sweepers and our launcher as Hydra's plugins.

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
from neuralode_exp.sweep.slurm import SlurmLauncher


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
        steps_after: of a job; None here.
        params: axes that stand in a file, as `{"seed": "0,1"}`.
        further: those of `run_grid`.
    """

    def __init__(self, params: Mapping[str, Any] | None, steps_after: None, **further: Any) -> None:
        self.params, self.further = params or {}, further

    def sweep(self, arguments: list[str]) -> None:
        from neuralode_exp.sweep.grid import run_grid

        assert self.config is not None
        assert self.hydra_context is not None
        axes = self.axes(arguments)
        run_grid(self.config, self.hydra_context.config_loader, self.launcher, axes, **self.further)


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


def register_plugins() -> None:
    """Make our sweepers and our launcher known to Hydra."""
    for plugin in (GridSweeper, OptunaSearch, SlurmLauncher):
        register_plugin(plugin)
