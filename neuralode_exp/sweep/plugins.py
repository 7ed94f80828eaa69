"""Our sweepers and our launcher as plugins of Hydra.

Every start imports this module, so it imports nothing that is slow.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from neuralode_exp.config.axes import in_files
from neuralode_exp.config.hydra_internals import register_plugin
from neuralode_exp.sweep.slurm import SlurmLauncher


class _OwnSweeper(Sweeper):
    """Common part of our sweepers.

    Args:
        params: axes or a search space from a file, such as `{"seed": "0,1"}`; those of the command line follow.
        further: the other keys of `hydra.sweeper`, which go to the function that does the work.
    """

    launcher: Launcher

    def __init__(self, params: Mapping[str, Any] | None, **further: Any) -> None:
        self.params, self.further = params, further

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = _launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        assert self.config is not None
        assert self.hydra_context is not None
        axes = [*in_files(self.params), *arguments]
        self.work()(self.config, self.hydra_context.config_loader, self.launcher, axes, **self.further)

    @staticmethod
    @abstractmethod
    def work() -> Callable[..., None]:
        """Import and return the function that does the work."""


class GridSweeper(_OwnSweeper):
    """Run every cell of a grid once: completed cells are left as they are, lost ones are launched again."""

    @staticmethod
    def work() -> Callable[..., None]:
        from neuralode_exp.sweep.grid import run_grid

        return run_grid


class OptunaSearch(_OwnSweeper):
    """Search with Optuna. The same command goes on with the same study, up to `n_trials` in all."""

    @staticmethod
    def work() -> Callable[..., None]:
        from neuralode_exp.sweep.search import run_search

        return run_search


def _launcher(hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> Launcher:
    from neuralode_exp.sweep.launching import Job

    job = Job(task_function, config.hydra.launcher._target_)
    return Plugins.instance().instantiate_launcher(hydra_context=hydra_context, task_function=job, config=config)


def register_plugins() -> None:
    """Make our sweepers and our launcher known to Hydra."""
    for plugin in (GridSweeper, OptunaSearch, SlurmLauncher):
        register_plugin(plugin)
