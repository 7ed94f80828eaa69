"""All that is used of Hydra beyond its public interface, which has no name for it; the same in Hydra 1.3 and 1.4.

There is no public way to compose configs beside a run of Hydra's own, to set one override in a config that is composed
already, to read the command line as Hydra will, or to have plugins outside a package called `hydra_plugins`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime, setup_globals
from hydra.plugins.plugin import Plugin
from hydra.plugins.search_path_plugin import SearchPathPlugin
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


def make_loader(conf: Path, further: str | None = None) -> ConfigLoader:
    """Return Hydra's loader of the files in `conf` and in `further`, as --config-dir adds them."""
    version.setbase("1.3")
    setup_globals()
    JobRuntime.instance().set("name", "train")
    Plugins.instance().register(OwnFiles)
    path = create_config_search_path(str(conf))
    if further is not None:
        path.prepend("command-line", f"file://{Path(further).absolute()}", SearchPathQuery(provider="schema"))
    return ConfigLoaderImpl(path)


def set_override(config: DictConfig, override: Override) -> None:
    """Set, add or delete the key of one override in a composed config.

    Raises:
        HydraException: the key is not there, or is there already.
        OmegaConfBaseException: its value has the wrong type.
    """
    ConfigLoaderImpl._apply_overrides_to_config([override], config)


def command_line_parser() -> argparse.ArgumentParser:
    """Return the parser of Hydra's own flags."""
    return get_args_parser()


def register_plugin(plugin: type[Plugin], name: str) -> None:
    """Let YAML name a plugin by `_target_: hydra_plugins.NAME`.

    Hydra 1.3 instantiates no plugin whose name does not begin so, wherever its class is.
    """
    Plugins.instance().register(plugin)
    Plugins.instance().class_name_to_class[f"hydra_plugins.{name}"] = plugin
