"""All uses of Hydra's private interface. They work in Hydra 1.3 and 1.4.

Hydra has no public way to compose configs outside of its own runs, to parse the command line as it does itself, or to
find plugins outside a package called `hydra_plugins`.
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

# For @hydra.main. Hydra 1.3 warns without a version base, Hydra 1.4 warns with one.
VERSION_BASE = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
# Group -> the options that have a file in conf/hydra/.
OWN_FILES = {
    "launcher": ("joblib", "ray", "submitit_local", "submitit_slurm"),
    "sweeper": ("optuna",),
}
OWN_PLUGINS: set[str] = set()


class OwnFiles(SearchPathPlugin):
    """Remove the default configs of the launchers and of Hydra's Optuna sweeper, so that only our files are used.

    Otherwise Hydra would use a default of the same name as the schema of our file, and warn of it at every start.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        of_plugins = ConfigStore.instance().repo["hydra"]
        for group, names in OWN_FILES.items():
            for name in names:
                of_plugins[group].pop(f"{name}.yaml", None)
        of_plugins["sweeper"].pop("sampler", None)


def make_loader(conf: Path, further: str | None = None) -> ConfigLoader:
    """Return Hydra's loader for the files in `conf`, and in `further`, the folder of --config-dir."""
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
    """Let YAML name a plugin by its class in any module; Hydra 1.3 accepts only those of `hydra_plugins`."""
    Plugins.instance().register(plugin)
    if VERSION_BASE:
        OWN_PLUGINS.add(f"{plugin.__module__}.{plugin.__name__}")
        Plugins.is_in_toplevel_plugins_module = staticmethod(_is_known)  # type: ignore[method-assign, assignment]


def _is_known(name: str) -> bool:
    return name in OWN_PLUGINS or name.startswith(("hydra_plugins.", "hydra._internal.core_plugins."))
