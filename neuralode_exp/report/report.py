"""A report on the runs in some folders, as text, report.md and report.html."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuralode_exp.config import ConfigError, label, stored_config
from neuralode_exp.report import page, tables
from neuralode_exp.report.cells import cells_without_run
from neuralode_exp.report.columns import chosen_columns, default_columns, objective_tag, with_unit
from neuralode_exp.report.curves import charts
from neuralode_exp.report.grouping import Group, chosen_keys, default_keys, group_runs
from neuralode_exp.report.runs import Run, find_runs
from neuralode_exp.report.search import Search, find_searches
from neuralode_exp.tags import Tag


@dataclass(frozen=True)
class Report:
    """The runs of some folders in groups.

    Args:
        root: folder that paths of runs are relative to.
        keys: config keys that set the groups apart.
        columns: metrics that are shown.
        groups: all groups.
        searches: searches in the folders.
    """

    root: Path
    keys: Sequence[str]
    columns: Sequence[Tag]
    groups: Sequence[Group]
    searches: Sequence[Search] = ()

    @property
    def runs(self) -> list[Run]:
        return [run for group in self.groups for run in group.runs]


def make_report(
    folders: Sequence[Path], by: Sequence[str] | None = None, columns: Sequence[str] | None = None
) -> Report:
    """Collect the runs in and under folders.

    Args:
        folders: folders of runs and of grids.
        by: keys that set groups apart; None for all keys in which the runs differ, without the seed.
        columns: tags of metrics; None for the usual ones that the runs have.

    Raises:
        FileNotFoundError: there is no run.
        ConfigError: no run has a key or a metric of that name.
    """
    runs = [*find_runs(folders), *(run for folder in folders for run in cells_without_run(folder))]
    if not runs:
        raise FileNotFoundError(
            f"FOLDER must hold runs, got {' '.join(map(str, folders))} without any; outputs/ has those of train.py"
        )
    keys = chosen_keys(runs, by) if by else default_keys(runs)
    shown = chosen_columns(runs, columns) if columns else default_columns(runs)
    root = Path(os.path.commonpath([folder.absolute() for folder in folders]))
    return Report(root, keys, shown, _sorted(group_runs(runs, keys)), list(find_searches(folders)))


def _sorted(groups: Sequence[Group]) -> list[Group]:
    """Sort by dataset, in the order of the first groups, then by objective with the best first."""
    datasets = list(dict.fromkeys(_dataset(group.runs[0]) for group in groups))
    return sorted(groups, key=lambda group: (datasets.index(_dataset(group.runs[0])), group.objective))


def _dataset(run: Run) -> str:
    return str(run.settings.get("dataset", "an unknown dataset"))


def _objective(run: Run) -> str:
    settings = run.settings
    tag = objective_tag(str(settings.get("trainer")), settings.get("objective"), settings.get("dataset.validation"))
    assert run.objective is not None
    return with_unit(tag, run.objective)


def text(report: Report) -> str:
    """Return the table of groups, the counts and the table of runs without a result."""
    parts = [tables.plain(tables.of_groups(report.groups, report.keys, report.columns)), counts(report)]
    if any(not run.completed for run in report.runs):
        parts.append(tables.plain(tables.of_failures(report.groups, report.keys, report.root)))
    return "\n\n".join(parts)


def markdown(report: Report) -> str:
    parts = [
        "# Report",
        f"{counts(report)}, in `{report.root}`. Mean ± standard deviation over the completed runs of a group.",
        tables.markdown(tables.of_groups(report.groups, report.keys, report.columns)),
    ]
    if any(not run.completed for run in report.runs):
        failures = tables.of_failures(report.groups, report.keys, report.root)
        parts += ["## Without a result", tables.markdown(failures)]
    for name, groups in by_dataset(report.groups):
        best = best_run(groups)
        if best is not None:
            parts.append(f"Best on {name}: {_objective(best)}, `{_named(best, report.root)}`")
    for search in report.searches:
        parts += [f"## Search in `{search.folder.name}`", *map(tables.markdown, (search.importances, search.trials))]
    return "\n\n".join(parts) + "\n"


def html(report: Report) -> str:
    """Return the report as one self-contained page."""
    sections = []
    for name, groups in by_dataset(report.groups):
        shown = [group for group in groups if any(run.metrics for run in group.runs)]
        labels = [_label(group, report.keys) for group in shown]
        best = best_run(groups)
        sections.append(
            page.DatasetSection(
                name,
                labels,
                [group.objective for group in shown],
                charts(shown, labels),
                best.folder / "figures" if best else None,
                f"{_objective(best)}, {_named(best, report.root)}" if best else "",
            )
        )
    return page.page(
        f"{counts(report)}, in {report.root}",
        tables.of_groups(report.groups, report.keys, report.columns),
        tables.of_failures(report.groups, report.keys, report.root),
        tables.of_runs(report.groups, report.keys, report.columns, report.root),
        sections,
        report.searches,
    )


def counts(report: Report) -> str:
    """Count the runs by their status, as `53 completed, 8 failed`."""
    found = Counter(run.status for run in report.runs)
    return ", ".join(f"{n} {status}" for status, n in found.most_common())


def by_dataset(groups: Sequence[Group]) -> list[tuple[str, list[Group]]]:
    """Split groups by dataset, because metrics of two datasets cannot be compared."""
    parts: dict[str, list[Group]] = {}
    for group in groups:
        runs: dict[str, list[Run]] = {}
        for run in group.runs:
            runs.setdefault(_dataset(run), []).append(run)
        for name, of_name in runs.items():
            parts.setdefault(name, []).append(Group(group.values, tuple(of_name)))
    return list(parts.items())


def best_run(groups: Sequence[Group]) -> Run | None:
    """Return the completed run with the lowest objective."""
    completed = [run for group in groups for run in group.completed if run.objective is not None]
    return min(completed, key=lambda run: run.objective or 0.0, default=None)


def _named(run: Run, root: Path) -> str:
    """Return the run's folder, with its label if the folder's name lacks it."""
    place = tables.place(run, root)
    try:
        name = label(stored_config(run.folder))
    except (OSError, ConfigError):  # written by another version of the program
        return place
    return place if name in place else f"{name}, {place}"


def _label(group: Group, keys: Sequence[str]) -> str:
    """Return the values of the keys without the dataset, which heads the section; the model if there are none."""
    named = [
        value if key in ("model", "solver") else f"{key}={value}"
        for key, value in zip(keys, group.values, strict=True)
        if key != "dataset" and value != "-"
    ]
    return ", ".join(named) or str(group.runs[0].settings.get("model", "all runs"))
