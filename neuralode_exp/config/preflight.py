"""Check a request before Hydra makes any folder: compose and validate the run, or each cell of a grid."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from neuralode_exp.config import answer
from neuralode_exp.config.axes import axes_of, expand, in_files, wrong_axes, wrong_search
from neuralode_exp.config.cells import without_meaning
from neuralode_exp.config.compose import CONF, Composer
from neuralode_exp.config.errors import ConfigError, Mistake, spell
from neuralode_exp.config.folders import wrong_output
from neuralode_exp.config.hydra_internals import command_line_parser, make_loader
from neuralode_exp.config.identity import identity_differences, unread
from neuralode_exp.config.kinds import KINDS
from neuralode_exp.config.launchers import ELSEWHERE, class_name, wrong_settings
from neuralode_exp.config.machine import of_machine
from neuralode_exp.config.readable import understood
from neuralode_exp.config.resume import go_on
from neuralode_exp.config.schema import Config
from neuralode_exp.config.validation import stored_config
from neuralode_exp.config.values import flatten
from neuralode_exp.config.weights import wrong_weights
from neuralode_exp.outcome import command
from neuralode_exp.tags import missing_for

# Keys of Hydra that cannot be changed, each with the reason.
FIXED = {
    "sweep.subdir": "leave it out: the folder of a cell is named after its config",
    "output_subdir": "leave it out: resume, load_run and report read the config of a run there",
}


@dataclass(frozen=True)
class Request:
    """A request without mistakes.

    Args:
        argv: the arguments for Hydra.
        answer: what `check=true` prints instead of running; None for a run.
        note: which of the given keys and axes will have no effect; None if all have one.
    """

    argv: list[str]
    answer: str | None = None
    note: str | None = None


def preflight(argv: list[str], conf: Path = CONF) -> Request:
    """Check the command line. Nothing is written.

    What asks Hydra itself, such as --help, is passed on unchecked, and so is a request with --config-path or
    --config-name, whose files may have any keys.

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
    resumes, hydra = given.get("resume") is not None, OmegaConf.create()
    with contextlib.suppress(ConfigError):  # the checks below report it
        hydra = composer.hydra(overrides)
    is_grid = flags.multirun or hydra.get("mode") in (RunMode.MULTIRUN, RunMode.MULTIRUN.name)
    try:
        if resumes:
            arguments, config = go_on(str(given["resume"]), overrides, conf, is_grid=is_grid)
            mistakes += of_what_is_there(config)
            configs = [config]
        else:
            configs = _grid(composer, overrides) if is_grid else [_single(composer, overrides)]
            mistakes += _of_fixed(composer, overrides)
    except ConfigError as error:
        mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    # Flags come first, because Hydra's parser accepts no flag between two overrides.
    further = ["--config-dir", flags.config_dir] if flags.config_dir else []
    argv = [*(["--multirun"] if flags.multirun else []), *further, *arguments]
    said = None
    if any(config.check for config in configs):
        said = _answer(hydra, axes_of(composer, overrides), configs) if is_grid else answer.of_run(configs[0])
    notes = [_without_effect(given, configs), None if is_grid or resumes else _without_axes(hydra)]
    return Request(argv, said, "\n".join(filter(None, notes)) or None)


def _answer(hydra: DictConfig, axes: Sequence[Override], configs: Sequence[Config]) -> str:
    """Return what `check=true` prints of a grid or a search."""
    if not _is_search(hydra):
        return answer.of_grid(configs)
    searched = ", ".join(axis.key_or_group for axis in axes if axis.is_sweep_override()) or "nothing"
    lengths = [answer.steps(config) for config in configs]
    each = f" of at most {max(filter(None, lengths))} steps" if None not in lengths else ""
    lines = dict.fromkeys(line for config in configs for line in understood(config))
    return "\n".join([*lines, f"ok: a search over {searched} with {hydra.sweeper.n_trials} trials{each}"])


def _without_axes(hydra: DictConfig) -> str | None:
    """Name the axes of a file that a single run does not use, in one line."""
    keys = [word.partition("=")[0] for word in in_files(OmegaConf.select(hydra, "sweeper.params"))]
    return f"the axes {', '.join(keys)} of the experiment are used with -m alone: this is one run" if keys else None


def _is_search(hydra: DictConfig) -> bool:
    return isinstance(hydra.sweeper, DictConfig) and class_name(hydra.sweeper) == "OptunaSearch"


def _of_fixed(composer: Composer, overrides: Sequence[Override]) -> Iterator[Mistake]:
    """Yield a mistake for each key of Hydra that is given and cannot be changed."""
    files = [override for override in overrides if not override.key_or_group.startswith("hydra.")]
    ours, usual = (flatten(OmegaConf.to_container(composer.hydra(part))) for part in (overrides, files))  # type: ignore[arg-type]
    for key, fix in FIXED.items():
        if ours.get(key) != usual.get(key):
            yield Mistake(f"hydra.{key}", "cannot be changed", spell(ours.get(key)), fix)


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
    mistakes += wrong_weights(config) or ([mistake] if mistake else _of_folder(Path(str(hydra.run.dir)), config))
    gap = without_meaning(config)
    if mistakes or gap:
        raise ConfigError([*mistakes, *([gap] if gap else [])])
    if mistakes := of_what_is_there(config):
        raise ConfigError(mistakes)
    return config


def of_what_is_there(config: Config, *, elsewhere: bool = False, trains: bool = True) -> list[Mistake]:
    """Return what a valid config needs and does not find: first on this machine, then in its data.

    Args:
        elsewhere: whether it will run on another machine, which then makes the checks of the machine itself.
        trains: whether it will train, so that the user's own code is tried out and the objective must be recorded.
    """
    first = [*wrong_weights(config), *([] if elsewhere else of_machine(config))]
    if not trains:
        return first or [*KINDS[config.dataset.kind].data(config)]
    there = first or [*_of_own_code(config), *KINDS[config.dataset.kind].data(config)]
    is_unknown = elsewhere and config.device == "auto"  # which device there is, that machine knows
    return there or _of_objective(config.model_copy(update={"device": "cuda"}) if is_unknown else config)


def _grid(composer: Composer, overrides: list[Override]) -> list[Config]:
    """Check every cell and return all of them. A cell without a meaning is no mistake: the grid skips it."""
    mistakes: Counter[Mistake] = Counter()
    of_hydra = [override for override in overrides if override.is_hydra_override()]
    wrong = [override for override in of_hydra if override.is_sweep_override()]
    of_request = [Mistake(o.key_or_group, "cannot be swept over", fix="give it one value") for o in wrong]
    hydra, axes = composer.hydra(overrides), axes_of(composer, overrides, of_request)
    # A search is asked for even if its plugin is not installed.
    is_search = _is_search(hydra) or any(o.key_or_group == "hydra/sweeper" and o.value() != "grid" for o in of_hydra)
    of_request += [*wrong_axes(composer, axes, is_search=is_search), *_of_launcher(composer, overrides)]
    cells = list(expand(axes, whole=not is_search))
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
        of_request += wrong_search(hydra, axes) if _is_search(hydra) else ()
    if of_request or mistakes:
        raise ConfigError([*of_request, *(_counted(mistake, n, len(cells)) for mistake, n in mistakes.items())])
    if not meant:
        raise ConfigError(gaps)
    return configs


def _of_launcher(composer: Composer, overrides: list[Override]) -> Iterator[Mistake]:
    """Yield the mistakes in the settings of the launcher, and in the folder of the grid."""
    hydra = composer.hydra(overrides)
    yield from wrong_settings(hydra, composer.hydra(o for o in overrides if not o.key_or_group.startswith("hydra.")))
    yield from filter(None, [wrong_output("hydra.sweep.dir", hydra)])


def _needs_multirun(override: Override) -> Mistake:
    key, values = override.key_or_group, override.get_value_string()
    fix = f"{command()} -m {override.input_line} runs them all, {key}=[{values}] is a list"
    return Mistake(key, "must have one value", values, fix)


def _of_objective(config: Config) -> list[Mistake]:
    missing = missing_for(config.objective, config) if config.objective is not None else []
    if not missing:
        return []
    got = f"{config.objective}, which needs {' and '.join(missing)}"
    return [Mistake("objective", "must be a tag that this run records", got, "leave it out for the usual one")]


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
    if n == n_cells:
        return mistake
    where = f"in {n} of {n_cells} cells"
    return replace(mistake, fix=where if mistake.fix is None else f"{mistake.fix} ({where})")
