"""Check a request before Hydra makes any folder: compose and validate the run, or each cell of a grid."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from neuralode_exp.config import answer
from neuralode_exp.config.cells import without_meaning
from neuralode_exp.config.compose import CONF, Composer
from neuralode_exp.config.errors import ConfigError, Mistake, spell
from neuralode_exp.config.folders import wrong_output
from neuralode_exp.config.hydra_internals import command_line_parser, make_loader
from neuralode_exp.config.identity import WEIGHTS, identity_differences, unread, with_effect
from neuralode_exp.config.kinds import KINDS
from neuralode_exp.config.launchers import ELSEWHERE, class_name, wrong_settings
from neuralode_exp.config.machine import of_machine
from neuralode_exp.config.resume import go_on
from neuralode_exp.config.schema import Config
from neuralode_exp.config.validation import stored_config
from neuralode_exp.outcome import command

OF_WEIGHTS = {"dataset.kind", "model.name", "model.field", "model.augment", "model.features"}
OF_WEIGHTS |= {"model.channels", "model.blocks", "model.hidden", "model.width", "model.depth", "model.layers"}


@dataclass(frozen=True)
class Request:
    """A request without mistakes.

    Args:
        argv: the arguments for Hydra.
        answer: what `check=true` prints instead of running; None for a run.
        note: which of the given keys will have no effect; None if all have one.
    """

    argv: list[str]
    answer: str | None = None
    note: str | None = None


def preflight(argv: list[str], conf: Path = CONF) -> Request:
    """Check the command line. Nothing is written.

    Args:
        argv: the arguments after the program's name.
        conf: directory of the YAML files.

    Raises:
        ConfigError: the request is wrong; it lists all mistakes, those of every cell of a grid.
        SystemExit: argparse does not know a flag.
    """
    flags = command_line_parser().parse_intermixed_args(argv)
    asks_hydra = (flags.help, flags.hydra_help, flags.cfg, flags.info, flags.shell_completion)
    if any(asks_hydra) or flags.config_path or flags.config_name or flags.experimental_rerun:
        return Request(argv)
    mistakes: list[Mistake] = []
    if flags.config_dir and not Path(flags.config_dir).is_dir():
        raise ConfigError([Mistake("--config-dir", "must name a folder", flags.config_dir, "leave it out for none")])
    composer = Composer(make_loader(conf, flags.config_dir))
    overrides = composer.parse(flags.overrides, mistakes)
    arguments = [str(override.input_line) for override in overrides]
    given = {override.key_or_group: override.value() for override in overrides}
    is_grid, configs = flags.multirun or given.get("hydra.mode") == "MULTIRUN", []
    try:
        if given.get("resume") is not None:
            arguments, config = go_on(str(given["resume"]), overrides, conf, is_grid=flags.multirun)
            mistakes += of_what_is_there(config)
            is_grid, configs = False, [config]
        else:
            configs = _grid(composer, overrides) if is_grid else [_single(composer, overrides)]
    except ConfigError as error:
        mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    # Flags come first, because Hydra's parser accepts no flag between two overrides.
    further = ["--config-dir", flags.config_dir] if flags.config_dir else []
    argv = [*(["--multirun"] if flags.multirun else []), *further, *arguments]
    asked = any(config.check for config in configs)
    said = (answer.of_grid(configs) if is_grid else answer.of_run(configs[0])) if asked else None
    return Request(argv, said, _without_effect(given, configs))


def _without_effect(keys: Iterable[str], configs: Sequence[Config]) -> str | None:
    """Name the given keys that none of the runs reads, in one line."""
    names = list(keys)
    for config in configs:
        if not (names := unread(config, names)):
            return None
    reads = "this run does not read" if len(configs) == 1 else "no run reads"
    return f"{', '.join(names)} will have no effect: {reads} {'it' if len(names) == 1 else 'them'}"


def _single(composer: Composer, overrides: list[Override]) -> Config:
    mistakes = [_needs_multirun(override) for override in overrides if override.is_sweep_override()]
    try:
        config = composer.config(override for override in overrides if not override.is_sweep_override())
    except ConfigError as error:
        raise ConfigError([*mistakes, *error.mistakes]) from None
    hydra = composer.hydra(overrides)
    mistake = wrong_output("hydra.run.dir", hydra)
    mistakes += _of_weights(config) or ([mistake] if mistake else _of_folder(Path(str(hydra.run.dir)), config))
    gap = without_meaning(config)
    if mistakes or gap:
        raise ConfigError([*mistakes, *([gap] if gap else [])])
    if mistakes := of_what_is_there(config):
        raise ConfigError(mistakes)
    return config


def of_what_is_there(config: Config, *, elsewhere: bool = False) -> list[Mistake]:
    """Return what a valid config needs and does not find: first on this machine, then in its data.

    Args:
        elsewhere: whether it will run on another machine, which then makes the checks of the machine itself.
    """
    first = [*_of_weights(config), *([] if elsewhere else of_machine(config))]
    return first or [*_of_own_code(config), *KINDS[config.dataset.kind].data(config)]


def _grid(composer: Composer, overrides: list[Override]) -> list[Config]:
    """Check every cell and return all of them. A cell without a meaning is no mistake: the grid skips it."""
    mistakes: Counter[Mistake] = Counter()
    of_hydra = [override for override in overrides if override.is_hydra_override()]
    wrong = [override for override in of_hydra if override.is_sweep_override()]
    of_request = [Mistake(o.key_or_group, "cannot be swept over", fix="give it one value") for o in wrong]
    hydra, axes = composer.hydra(overrides), axes_of(composer, overrides)
    of_request += [*_of_sweeper(of_hydra, axes), *_of_launcher(composer, overrides)]
    cells = list(expand(axes))
    configs: list[Config] = []
    for cell in cells:
        try:
            configs.append(composer.config([*(o for o in of_hydra if o not in wrong), *composer.parse(cell, [])]))
        except ConfigError as error:
            mistakes.update(error.mistakes)
    found = [without_meaning(config) for config in configs]
    gaps = Counter(gap for gap in found if gap)
    meant = [config for config, gap in zip(configs, found, strict=True) if not gap]
    if not of_request and not mistakes:
        elsewhere = class_name(hydra.launcher) in ELSEWHERE
        mistakes.update(mistake for config in meant for mistake in of_what_is_there(config, elsewhere=elsewhere))
    if of_request or mistakes:
        raise ConfigError([*of_request, *(_counted(mistake, n, len(cells)) for mistake, n in mistakes.items())])
    if not meant:
        raise ConfigError(gaps)
    return configs


def axes_of(composer: Composer, overrides: list[Override]) -> list[Override]:
    """Return the axes of a grid: first those in files, then those of the command line."""
    params = OmegaConf.select(composer.hydra(overrides), "sweeper.params")
    in_files = (
        ["=".join((str(key), spell(value))) for key, value in params.items()] if isinstance(params, DictConfig) else []
    )
    return [*composer.parse(in_files, []), *(o for o in overrides if not o.is_hydra_override())]


def _of_launcher(composer: Composer, overrides: list[Override]) -> Iterator[Mistake]:
    """Yield the mistakes in the settings of the launcher, and in the folder of the grid."""
    hydra = composer.hydra(overrides)
    yield from wrong_settings(hydra, composer.hydra(o for o in overrides if not o.key_or_group.startswith("hydra.")))
    yield from filter(None, [wrong_output("hydra.sweep.dir", hydra)])


def _of_sweeper(of_hydra: Iterable[Override], axes: Sequence[Override]) -> Iterator[Mistake]:
    given = {override.key_or_group: str(override.value()) for override in of_hydra}
    if "hydra.sweep.subdir" in given:
        fix = "leave it out: the folder of a cell is named after its config"
        yield Mistake("hydra.sweep.subdir", "cannot be changed", given["hydra.sweep.subdir"], fix)
    for override in (axis for axis in axes if not _values(axis)):
        is_glob = isinstance(override.value(), Glob)
        fix = "it matches the name of no file" if is_glob else "range(0,3) is 0, 1 and 2"
        yield Mistake(override.key_or_group, "must have a value", override.get_value_string(), fix)
    intervals = [override for override in axes if isinstance(override.value(), IntervalSweep)]
    for override in intervals if given.get("hydra/sweeper", "grid") == "grid" else []:
        fix = "list them, or search with hydra/sweeper=optuna"
        yield Mistake(override.key_or_group, "must have listed values in a grid", override.get_value_string(), fix)


def expand(overrides: Iterable[Override]) -> Iterator[list[str]]:
    """Yield the cells of a grid, each a list of arguments. If two overrides set a key, the later one counts.

    The values of an interval cannot be listed. Then only its two ends are tried, and only one axis is varied at a time.
    """
    overrides = list(overrides)
    axes = {override.get_key_element(): _values(override) for override in overrides}
    if not any(isinstance(override.value(), IntervalSweep) for override in overrides):
        yield from map(list, itertools.product(*axes.values()))
        return
    first = {key: values[0] for key, values in axes.items()}
    yield list(first.values())
    for key, values in axes.items():
        for value in values[1:]:
            yield list({**first, key: value}.values())


def _values(override: Override) -> list[str]:
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    if override.is_sweep_override():
        with contextlib.suppress(ValueError):  # a range with a step of 0
            return [f"{key}={value}" for value in override.sweep_string_iterator()]
        return []
    return [str(override.input_line)]


def _needs_multirun(override: Override) -> Mistake:
    key, values = override.key_or_group, override.get_value_string()
    fix = f"{command()} -m {override.input_line} runs them all, {key}=[{values}] is a list"
    return Mistake(key, "must have one value", values, fix)


def _of_weights(config: Config) -> list[Mistake]:
    if config.weights is None:
        return []
    path = Path(config.weights) / WEIGHTS
    if not path.is_file():
        fix = f"it must hold {WEIGHTS}; a relative path starts at {Path.cwd()}"
        return [Mistake("weights", "must be the folder of a run with weights", config.weights, fix)]
    theirs, ours = _structure_at(Path(config.weights).absolute(), path.stat().st_mtime_ns), _structure(config)
    differ = [key for key in theirs if key in ours and theirs[key] != ours[key]]
    fix = "the model must be the same, and all else may differ"
    got = ", ".join(f"{key}={spell(theirs[key])}, not {spell(ours[key])}" for key in differ)
    rule = "must be of a run with the same model"
    return [Mistake("weights", rule, f"{config.weights} with {got}", fix)] if differ else []


@cache  # all cells of a grid start from the same weights
def _structure_at(folder: Path, _changed: int) -> dict[str, Any]:
    """Return `_structure` of a run; nothing for weights without their config, or of another version, which may fit."""
    try:
        return _structure(stored_config(folder))
    except (FileNotFoundError, ConfigError):
        return {}


def _structure(config: Config) -> dict[str, Any]:
    """Return the keys that shape a model's weights, without those that are null and that the field fills in."""
    values = {key: value for key, value in with_effect(config).items() if key in OF_WEIGHTS and value is not None}
    return values | ({"model.name": "rknet"} if config.model.name == "odenet" else {})  # the same network


def _of_own_code(config: Config) -> list[Mistake]:
    if not config.extensions and config.model.field != "hybrid":
        return []
    from neuralode_exp.try_out import try_out  # imports torch, as the user's files do

    mistake = try_out(config)
    return [mistake] if mistake else []


def _of_folder(folder: Path, config: Config) -> list[Mistake]:
    """Check that a folder with a run holds this very run: Hydra would overwrite the config of another one."""
    if not (folder / ".hydra" / "config.yaml").is_file():
        return []
    from neuralode_exp.tracking.lock import held_by  # imported here, because few requests name a folder

    if (who := held_by(folder)) is not None:
        fix = "wait for it, end it first or choose another folder"
        return [Mistake("hydra.run.dir", "must not be held by another process", f"{folder}, held by {who}", fix)]
    differences = identity_differences(stored_config(folder), config)
    what = ", ".join(f"{key} {spell(there)}, not {spell(here)}" for key, (there, here) in differences.items())
    if not what:
        return []
    return [Mistake("hydra.run.dir", "must not hold another run", f"{folder} with {what}", "choose another folder")]


def _counted(mistake: Mistake, n: int, n_cells: int) -> Mistake:
    return mistake if n == n_cells else replace(mistake, fix=f"{mistake.fix} (in {n} of {n_cells} cells)")
