"""All that is used of Hydra beyond its public interface, which has no name for it; the same in Hydra 1.3 and 1.4.

There is no public way to compose configs beside a run of Hydra's own, to read the command line as Hydra will, or to
have plugins outside a package called `hydra_plugins`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import hydra
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime, setup_globals
from hydra.plugins.plugin import Plugin
from hydra.plugins.search_path_plugin import SearchPathPlugin

# For @hydra.main. Hydra 1.3 wants to be told that its own behaviour is meant, 1.4 warns of being told.
VERSION_BASE = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
# Group -> the options that have a file in conf/hydra/.
OWN_FILES = {
    "launcher": ("joblib", "ray", "submitit_local", "submitit_slurm"),
    "sweeper": ("optuna",),
}
OWN_PLUGINS: set[str] = set()


class OwnFiles(SearchPathPlugin):
    """Let our files take the place of the defaults that come with the launchers and with Hydra's sweeper for Optuna.

    Hydra would take defaults of the same name as a schema of our files, and warn of that at every start.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        of_plugins = ConfigStore.instance().repo["hydra"]
        for group, names in OWN_FILES.items():
            for name in names:
                of_plugins[group].pop(f"{name}.yaml", None)
        of_plugins["sweeper"].pop("sampler", None)


def make_loader(conf: Path, further: str | None = None) -> ConfigLoader:
    """Return Hydra's loader of the files in `conf` and in `further`, as --config-dir adds them."""
    if VERSION_BASE:
        version.setbase(VERSION_BASE["version_base"])
    setup_globals()
    JobRuntime.instance().set("name", "train")
    Plugins.instance().register(OwnFiles)
    path = create_config_search_path(str(conf))
    if further is not None:
        path.prepend("command-line", f"file://{Path(further).absolute()}", SearchPathQuery(provider="schema"))
    return ConfigLoaderImpl(path)


def command_line_parser() -> argparse.ArgumentParser:
    """Return the parser of Hydra's own flags."""
    return get_args_parser()


def register_plugin(plugin: type[Plugin]) -> None:
    """Let YAML name a plugin by its class, wherever that is; Hydra 1.3 takes those of `hydra_plugins` alone."""
    Plugins.instance().register(plugin)
    if VERSION_BASE:
        OWN_PLUGINS.add(f"{plugin.__module__}.{plugin.__name__}")
        Plugins.is_in_toplevel_plugins_module = staticmethod(_is_known)  # type: ignore[method-assign, assignment]


def _is_known(name: str) -> bool:
    return name in OWN_PLUGINS or name.startswith(("hydra_plugins.", "hydra._internal.core_plugins."))
