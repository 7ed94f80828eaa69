"""Resume an unfinished run in its own folder, with its stored config instead of the files in `conf/`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hydra.core.override_parser.types import Override

from neuralode_exp.config.compose import GROUPS, Composer
from neuralode_exp.config.errors import ConfigError, Mistake, quoted, spell
from neuralode_exp.config.hydra_internals import make_loader
from neuralode_exp.config.identity import identity_differences
from neuralode_exp.config.own import again, given_extensions, spell_extensions
from neuralode_exp.config.schema import Config
from neuralode_exp.config.validation import stored_config
from neuralode_exp.tracking.lock import held_by
from neuralode_exp.tracking.metrics import DamagedMetrics, read_metrics
from neuralode_exp.tracking.summary import DamagedSummary, read_summary


def go_on(given: str, overrides: Iterable[Override], conf: Path, *, is_grid: bool) -> tuple[list[str], Config]:
    """Return the arguments with which Hydra resumes a run in its own folder, and the run's config.

    Hydra reads `FOLDER/.hydra/config.yaml` instead of `conf/config.yaml`, so that later changes in `conf` have no
    effect. It leaves `FOLDER/.hydra` unchanged.

    Args:
        given: the folder, as in `resume=FOLDER`.
        overrides: all arguments. Beside `resume` only keys outside the run's identity are allowed.
        conf: folder of the YAML files, for Hydra's own settings.
        is_grid: whether -m was given.

    Raises:
        ConfigError: there is no run to resume, or a key would change its result.
    """
    if is_grid:
        fix = "leave out -m; to resume a grid, repeat its command with hydra.sweep.dir=FOLDER"
        raise ConfigError([Mistake("resume", "is for one run, not a grid", given, fix)])
    folder = Path(given).absolute()
    _require_unfinished(given, folder)
    stored = stored_config(folder)
    beside = [override for override in overrides if override.key_or_group not in ("resume", "hydra.run.dir")]
    groups = [str(override.input_line) for override in beside if override.key_or_group in GROUPS]
    if groups:
        raise ConfigError(
            Mistake(group, "cannot change in a run that goes on", fix="leave it out or start a new run")
            for group in groups
        )
    stored = again(folder, stored, given_extensions(beside), f"add {spell_extensions(stored.extensions)}")
    config = Composer(make_loader(folder / ".hydra")).config(beside)
    changed = identity_differences(stored, config)
    if changed:
        raise ConfigError(
            Mistake(key, "cannot change in a run that goes on", spell(new), f"leave it out: the run has {spell(old)}")
            for key, (old, new) in changed.items()
        )
    argv = ["--config-path", str(folder / ".hydra")]
    argv += [str(override.input_line) for override in beside]
    argv += [
        f"resume={quoted(str(folder))}",
        f"hydra.run.dir={quoted(str(folder))}",
        "hydra.output_subdir=null",
        "hydra.job.chdir=false",
    ]
    argv += [f"hydra.searchpath=[{quoted(f'file://{conf.as_posix()}')}]", "hydra/job_logging=train"]
    return argv, config


def _require_unfinished(given: str, folder: Path) -> None:
    if not (folder / ".hydra" / "config.yaml").is_file():
        grid = (folder / "multirun.yaml").is_file()
        what = "the folder of a grid" if grid else "no such folder" if not folder.is_dir() else "no run in it"
        fix = f"use its command with hydra.sweep.dir={given}" if grid else "a run's first lines name its folder"
        raise ConfigError([Mistake("resume", "must be the folder of a run", f"{given} ({what})", fix)])
    if (who := held_by(folder)) is not None:
        got = f"{given}, which {who} is running"
        raise ConfigError([Mistake("resume", "must be a run that has stopped", got, "wait for it or end it first")])
    try:
        summary = read_summary(folder)
        if summary is None or summary["status"] not in ("completed", "running", "skipped"):
            read_metrics(folder)
            return
    except (DamagedSummary, DamagedMetrics) as error:
        raise ConfigError([Mistake("resume", f"cannot go on: {error}")]) from error
    if summary["status"] == "running":
        process = summary["process"]
        got = f"{given}, which process {process['pid']} on {process['host']} is running"
        raise ConfigError([Mistake("resume", "must be a run that has stopped", got, "wait for it or end it first")])
    got = f"{given}, which is {summary['status']}"
    raise ConfigError([Mistake("resume", "must be an unfinished run", got, "nothing is left to do")])
