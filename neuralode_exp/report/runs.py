"""Find the runs under some folders and read them, also those that failed, were killed or never started."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from neuralode_exp.config import Config, ConfigError, flatten, validate
from neuralode_exp.config.identity import WITHOUT_EFFECT, read_keys
from neuralode_exp.config.values import resolved
from neuralode_exp.tracking.summary import DamagedSummary, Summary, read_summary

CONFIG = Path(".hydra") / "config.yaml"


class Loader(yaml.CSafeLoader):
    """Reads a stored config as OmegaConf does, but with libyaml, in 1 ms: 1e-3 is a number, and no text is a date."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


NUMBER = re.compile(r"^[-+]?\d+(\.\d*)?e[-+]?\d+$", re.IGNORECASE)
Loader.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+0123456789"))


@dataclass(frozen=True)
class Run:
    """A run, as a report reads it from its folder.

    Args:
        folder: folder of the run.
        status: status of its summary; `not started` for a job without a summary, `unreadable` for a damaged one.
        reason: why there is no result, in one line; None for a completed run.
        settings: dotted keys on which the result depends, with their values; the key of a name is that of its section,
            such as `model`. `device` is the name of the hardware.
        metrics: last values by tag, with `parameters` and `seconds`.
        objective: final value of its objective; None if it has none.
        curves: steps and values of a tag, if they were kept.
    """

    folder: Path
    status: str
    reason: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    objective: float | None = None
    curves: Mapping[str, tuple[list[float], list[float]]] = field(default_factory=dict)

    @property
    def completed(self) -> bool:
        return self.status == "completed"


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """Read every run in and under `folders`, in the order of their paths.

    Of several runs with the same settings on the same device one is kept, if possible a completed one: repetitions must
    not count as seeds.
    """
    found = dict.fromkeys(path for folder in folders for path in _run_folders(folder.absolute()))
    kept: dict[str, Run] = {}
    for run in map(read_run, sorted(found)):
        same = json.dumps(run.settings, sort_keys=True, default=str) if run.settings else str(run.folder)
        if same not in kept or (run.completed and not kept[same].completed):
            kept[same] = run
    return list(kept.values())


def read_run(folder: Path) -> Run:
    """Read the run of a folder; its status and reason say what is damaged or missing."""
    settings = _settings(folder)
    if settings is None:
        return Run(folder, "unreadable", f"{CONFIG} is missing or damaged")
    try:
        summary = read_summary(folder)
    except DamagedSummary:
        return Run(folder, "unreadable", "summary.json is damaged", settings)
    if summary is None:
        return Run(folder, "not started", "the job left no summary.json", settings)
    metrics = {tag: value for tag, value in summary["metrics"].items() if not tag.startswith("final/")}
    if summary["parameters"] is not None:
        metrics["parameters"] = float(summary["parameters"])
    if summary["status"] == "completed":
        metrics["seconds"] = summary["seconds"]
    if settings and summary["status"] != "skipped":
        settings = {**settings, "device": summary["device"]}
    return Run(folder, summary["status"], _reason(summary), settings, metrics, summary["objective"])


def _run_folders(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs, without looking inside them."""
    for path, inner, files in os.walk(folder):
        if "summary.json" in files or ".hydra" in inner:
            yield Path(path)
            inner.clear()


def _reason(summary: Summary) -> str | None:
    if summary["status"] == "completed":
        return None
    if summary["error"] is not None:
        kind, message = summary["error"]["type"], summary["error"]["message"]
        return message if summary["status"] == "skipped" else f"{kind}: {message}"
    if summary["status"] in ("running", "interrupted", "pruned", "killed"):
        return f"after step {summary['steps']}" if summary["steps"] else None
    return None


def _settings(folder: Path) -> dict[str, Any] | None:
    """Return the keys on which the result depends; all keys of a config of another version; None if it is damaged."""
    try:
        values = resolved(yaml.load((folder / CONFIG).read_text(encoding="utf-8"), Loader))
    except (OSError, ValueError, AttributeError, yaml.YAMLError):  # damaged, or not a mapping
        return None
    try:
        config = validate(values)
    except ConfigError:
        flat = flatten(values)
        return {_short(key): value for key, value in flat.items() if key not in WITHOUT_EFFECT}
    return settings_of(config)


def settings_of(config: Config) -> dict[str, Any]:
    """Return the keys on which a result depends. The model has its name in tables, such as `odenet (checkpoint)`."""
    settings = {_short(key): value for key, value in read_keys(config).items()}
    gradient = config.model.gradient
    named = config.model.name == "odenet" and gradient in ("checkpoint", "reversible")
    return settings | {"model": f"odenet ({gradient})" if named else config.model.name}


def _short(key: str) -> str:
    return key.removesuffix(".name")
