"""Our sweepers, where Hydra looks for plugins: it takes no others. What they do stands in `neuralode_exp.sweep`.

Hydra imports this at every start, so it imports nothing heavy.
"""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

# Group -> the options that have a file in conf/hydra/.
OWN_FILES = {
    "launcher": ("joblib", "ray", "submitit_local", "submitit_slurm"),
    "sweeper": ("optuna",),
}


class OwnFiles(SearchPathPlugin):
    """Let our files take the place of the defaults that come with the launchers and with Optuna's sweeper.

    Hydra would take defaults of the same name as a schema of our files, and warn of that at every start.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        of_plugins = ConfigStore.instance().repo["hydra"]
        for group, names in OWN_FILES.items():
            for name in names:
                of_plugins[group].pop(f"{name}.yaml", None)


class GridSweeper(BasicSweeper):
    """Run every cell of a grid once: those that are done are left alone, those that are lost are launched again."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from neuralode_exp.sweep.launching import Job

        job = Job(task_function, config.hydra.launcher._target_)
        super().setup(hydra_context=hydra_context, task_function=job, config=config)

    def sweep(self, arguments: list[str]) -> None:
        from neuralode_exp.sweep.grid import run_grid

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        axes = [*self._parse_config(), *arguments]
        run_grid(self.config, self.hydra_context.config_loader, self.launcher, axes, self.max_batch_size)


class OptunaSearch(Sweeper):
    """Search with Optuna: failed trials are recorded as failed, the same command goes on with the same study.

    Args:
        arguments: those of `hydra_plugins.hydra_optuna_sweeper`.
    """

    def __init__(self, **arguments: Any) -> None:
        from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

        self.sweeper = OptunaSweeperImpl(**arguments)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from neuralode_exp.sweep.launching import Job

        job = Job(task_function, config.hydra.launcher._target_)
        self.sweeper.setup(hydra_context=hydra_context, task_function=job, config=config)

    def sweep(self, arguments: list[str]) -> None:
        from neuralode_exp.sweep.search import run_search

        run_search(self.sweeper, self.sweeper.hydra_context.config_loader, arguments)
