"""Compose configs as Hydra does, but before Hydra makes any folder, and report the arguments that are wrong.

A request is split into the overrides that choose files (groups, and Hydra's own keys) and those that set values. The
files are composed once for each choice. The values are then set in a copy, so that a grid of thousands of cells is
checked in seconds.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from neuralode_exp.config.errors import ConfigError, Mistake, near_miss, spell, suggest
from neuralode_exp.config.own import load_extensions
from neuralode_exp.config.schema import Config
from neuralode_exp.config.validation import validate
from neuralode_exp.config.values import copied, flatten, plain, resolved, set_value

PACKAGE = Path(__file__).parents[1]
# A wheel has conf/ inside the package.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
GROUPS = ("dataset", "model", "solver", "trainer", "experiment")
# Keys of a group that only its files may set.
OF_FILES = ("name", "kind")
# Options whose plugin is an optional dependency: its module, and the extra that installs it.
EXTRAS = {
    ("hydra/launcher", "ray"): ("hydra_plugins.hydra_ray_launcher", "ray"),
    ("hydra/sweeper", "optuna"): ("optuna", "search"),
}


@dataclass(frozen=True)
class Files:
    """The config that the chosen files make.

    Args:
        values: keys and values without Hydra's part; references are kept as text.
        defaults: dotted keys with their values, references resolved.
        sections: dotted names of all sections.
        whole: the config with Hydra's part.
    """

    values: dict[str, Any]
    defaults: dict[str, Any]
    sections: frozenset[str]
    whole: DictConfig

    def __contains__(self, key: str) -> bool:
        return key in self.defaults or key in self.sections


# Search path -> argument -> parsed override. It is kept, because preflight and sweeper both compose a grid.
_PARSED: dict[str, dict[str, Override]] = {}


class Composer:
    """Make a checked `Config` from arguments such as `model=resnet` and `trainer.lr=0.1`."""

    def __init__(self, loader: ConfigLoader) -> None:
        self.loader = loader
        self._parser = OverridesParser.create(config_loader=loader)
        self._parsed = _PARSED.setdefault(str(loader.get_search_path()), {})
        self._from_files: dict[tuple[str, ...], Files] = {}
        self._options = functools.cache(loader.get_group_options)  # Hydra copies its whole repository at each call

    def parse(self, arguments: Iterable[str], mistakes: list[Mistake]) -> list[Override]:
        """Parse arguments. One that is not of the form key=value is left out and added to `mistakes`."""
        overrides = []
        for argument in map(open_options, arguments):
            if argument.startswith("="):
                mistakes.append(Mistake(argument, "must be key=value, as model=resnet or trainer.lr=0.1"))
                continue
            if argument not in self._parsed:
                try:
                    [self._parsed[argument]] = self._parser.parse_overrides([argument])
                except HydraException as error:
                    mistakes.append(_syntax(argument, error))
                    continue
            overrides.append(self._parsed[argument])
        return overrides

    def config(self, overrides: Iterable[Override]) -> Config:
        """Compose and check one run, whose overrides have one value each.

        Raises:
            ConfigError: the request is wrong; it lists all mistakes.
        """
        mistakes: list[Mistake] = []
        files, given, wrong = self._split(overrides, mistakes)
        chosen = self._load(files)
        values = copied(chosen.values)
        for override in given:
            if mistake := self._said_by_file(override) or _wrong_key(override, chosen):
                mistakes.append(mistake)
            else:
                set_value(values, override)
        try:
            values = resolved(values)
            load_extensions(values)
            config = validate(values)
        except ConfigError as error:
            keys = {override.key_or_group for override in given}
            # If a file is wrong, other values come from a file that nobody asked for: only given keys are reported.
            found = (mistake for mistake in error.mistakes if not wrong or mistake.key in keys)
            mistakes += [_with_default(mistake, chosen) for mistake in found]
        if mistakes:
            raise ConfigError(mistakes)
        return config

    def hydra(self, overrides: Iterable[Override]) -> DictConfig:
        """Return Hydra's own settings from files and command line. `sweeper.params` holds axes of a grid."""
        files, given, _ = self._split((o for o in overrides if not o.is_sweep_override()), [])
        whole: Any = OmegaConf.to_container(self._load(files).whole)
        for override in given:  # the name of a folder may refer to these values
            with contextlib.suppress(ConfigError):  # `config` reports it
                set_value(whole, override)
        return OmegaConf.create(whole).hydra

    def _split(
        self, overrides: Iterable[Override], mistakes: list[Mistake]
    ) -> tuple[list[Override], list[Override], set[str]]:
        """Split overrides into choices of files and values, and return the groups whose choice is wrong.

        Overrides below a wrong choice are left out.
        """
        files: list[Override] = []
        values: list[Override] = []
        wrong: set[str] = set()
        for override in overrides:
            group, value = override.key_or_group, override.value()
            options = self._options(group)
            if not options or isinstance(value, dict):
                (files if override.is_hydra_override() else values).append(override)
            elif override.is_delete() and group in GROUPS and group != "experiment":
                fix = "leave it out: the dataset picks it" if group == "trainer" else f"write {group}=NAME"
                mistakes.append(Mistake(str(override.input_line), "takes away what every run needs", fix=fix))
                wrong.add(group)
            elif override.is_delete():
                files.append(override)
            elif override.is_add() and group in GROUPS:
                fix = f"write {str(override.input_line)[1:]}"
                mistakes.append(Mistake(str(override.input_line), "adds a key that is there", fix=fix))
            else:
                unknown = [x for x in (value if isinstance(value, list) else [value]) if x not in options]
                plugin, extra = EXTRAS.get((group, str(value)), ("hydra", ""))
                if find_spec(plugin) is None:
                    fix = f"pip install -e '.[{extra}]' brings it"
                    mistakes.append(Mistake(str(override.input_line), "needs an optional dependency", fix=fix))
                    wrong.add(group)
                elif unknown:
                    mistakes.append(_no_such_option(group, spell(unknown[0]), options))
                    wrong.add(group)
                else:
                    files.append(override)
        # What is below a wrong choice may not exist.
        below = tuple(f"{group.replace('/', '.')}." for group in wrong)
        kept = ([o for o in part if not o.key_or_group.replace("/", ".").startswith(below)] for part in (files, values))
        return *kept, wrong  # type: ignore[return-value]

    def _said_by_file(self, override: Override) -> Mistake | None:
        """Return the mistake of setting `name` or `kind`: tables would then show a wrong name for the same keys."""
        group, _, key = override.key_or_group.partition(".")
        value = override.value()
        if group not in GROUPS or group == "experiment":
            return None
        if isinstance(value, dict) and not key:
            key, value = next(((key, value[key]) for key in OF_FILES if key in value), ("", None))
        if key not in OF_FILES:
            return None
        names = self._options(group) if key == "name" and group != "trainer" else []
        near = f"write {group}={value}" if value in names else suggest(str(value), names, f"{group}=")
        rule = f"is set by the file that {'dataset' if group == 'trainer' else group}=NAME picks"
        got = None if override.is_delete() else spell(value)
        return Mistake(f"{group}.{key}", rule, got, near if names else "leave it out")

    def _launchers_in(self, override: Override) -> Iterator[Mistake]:
        """Yield a mistake for each launcher or sweeper in an experiment's file: Hydra may ignore it there."""
        if override.key_or_group != "experiment" or override.is_delete():
            return
        value = override.value()
        for name in value if isinstance(value, list) else [value]:
            yield from self._launchers_at(f"experiment/{name}")

    def _launchers_at(self, path: str) -> Iterator[Mistake]:
        source = next(source for source in self.loader.get_sources() if source.is_config(path))
        content = source.load_config(path).config
        assert isinstance(content, DictConfig)
        named = {
            str(key).split()[-1].strip("/").split("@")[0]
            for default in content.get("defaults") or []
            for key in (default if isinstance(default, Mapping) else [default])
        }
        named |= {"hydra/launcher"} if OmegaConf.select(content, "hydra.launcher") is not None else set()
        for group in sorted(named & {"hydra/launcher", "hydra/sweeper"}):
            yield Mistake(group, "cannot be chosen in a file", path, f"take it out and write {group}=NAME")

    def _load(self, files: list[Override]) -> Files:
        chosen = tuple(str(override.input_line) for override in files)
        if chosen not in self._from_files:
            if named := [word for override in files for word in self._launchers_in(override)]:
                raise ConfigError(named)
            try:
                config = self.loader.load_configuration("config", list(chosen), RunMode.RUN, from_shell=False)
            except (HydraException, OmegaConfBaseException, ValueError, YAMLError) as error:
                message = _reason(error)
                raise ConfigError([Mistake(" ".join(chosen) or "conf", "does not compose", fix=message)]) from None
            defaults = flatten(plain(config))
            sections = frozenset(".".join(key.split(".")[:n]) for key in defaults for n in range(1, key.count(".") + 1))
            self._from_files[chosen] = Files(plain(config, resolve=False), defaults, sections, config)
        return self._from_files[chosen]


def open_options(argument: str) -> str:
    """Put ++ before an option, which no file of `conf` has: only the user's code defines it."""
    return f"++{argument}" if re.match(r"(model|dataset)\.options[.=]", argument) else argument


def _wrong_key(override: Override, files: Files) -> Mistake | None:
    """Return what is wrong with an override's key. Validation checks new keys that are added with +."""
    key, argument = override.key_or_group, str(override.input_line)
    if override.is_add():
        return Mistake(argument, "adds a key that is there", fix=f"write {argument[1:]}") if key in files else None
    if key in files or override.is_force_add():
        return None
    section, _, name = key.rpartition(".")
    siblings = [other.rpartition(".")[2] for other in files.defaults if other.rpartition(".")[0] == section]
    fix = near_miss(name, siblings if section else [*siblings, *GROUPS], f"{section}." if section else "")
    if fix is None:
        like = difflib.get_close_matches(name, [other.rpartition(".")[2] for other in files.defaults], n=1)
        elsewhere = [other for other in files.defaults if other.rpartition(".")[2] in like]
        fix = f"did you mean {' or '.join(elsewhere)}?" if elsewhere else None
    if fix is None:
        fix = f"its keys are {', '.join(siblings)}" if siblings and section else "--cfg job shows them all"
    of = f" of dataset={files.values['dataset']['name']}" if section == "dataset" else ""
    return Mistake(key, f"is not a key{of}", fix=fix)


def _with_default(mistake: Mistake, files: Files) -> Mistake:
    if mistake.fix is not None:
        return mistake
    default = files.defaults.get(mistake.key.split("[")[0])
    if default == "???":
        return replace(mistake, fix=f"add {mistake.key}=VALUE")
    same = spell(default) == mistake.got
    return replace(mistake, fix="correct it in conf/" if same else f"the default is {spell(default)}")


def _no_such_option(group: str, got: str, options: list[str]) -> Mistake:
    fix = f"leave {group} out for none" if (group, got) == ("experiment", "null") else near_miss(got, options)
    return Mistake(group, f"must be one of {', '.join(sorted(options))}", got, fix)


def _syntax(argument: str, error: HydraException) -> Mistake:
    if "=" not in argument and not argument.startswith("~"):
        return Mistake(argument, "must be key=value, as model=resnet or trainer.lr=0.1")
    return Mistake(argument, "must be key=value", _reason(error), "quote special characters, as key='a, b'")


def _reason(error: Exception) -> str:
    """Return the line of Hydra's message that gives the reason, without the line that repeats the argument."""
    lines = str(error).strip().split("\n")
    if lines[0].startswith("Error when parsing index"):  # Hydra 1.4 says this before the rest
        lines = lines[1:]
    if lines[0].startswith(("Error parsing", "Error merging")):
        lines = lines[1:] or str(error.__cause__ or error).strip().split("\n")
    return re.sub(r"^\w+Error while evaluating ", "in ", lines[0]).partition(" expecting {")[0]
