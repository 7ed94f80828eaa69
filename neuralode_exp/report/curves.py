"""Curves of a group: mean and range over its completed seeds, and the partial curves of its other runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from neuralode_exp.report import chart
from neuralode_exp.report.columns import spread
from neuralode_exp.report.grouping import Group
from neuralode_exp.tags import TAGS, compared, tag_of
from neuralode_exp.tracking.metrics import read_metrics

POINTS = 120  # most points of a drawn curve
T = TypeVar("T")
Curves = dict[str, tuple[list[int], list[float]]]


def charts(groups: Sequence[Group], labels: Sequence[str]) -> list[str]:
    """Draw error against time, then each metric over the steps, for groups of one dataset."""
    names = [tag.name for tag in TAGS.values() if tag.curve]
    curves = [[read_metrics(run.folder, names) for run in group.runs] for group in groups]
    drawn = _error_against_time(groups, labels)
    for name in names:
        series = [
            one
            for index, (group, of_runs) in enumerate(zip(groups, curves, strict=True))
            for one in _series(index, labels[index], group, of_runs, name)
        ]
        if any(len(one.points) > 1 for one in series):
            drawn.append(chart.lines(tag_of(name).heading, "step", series))
    return drawn


def _error_against_time(groups: Sequence[Group], labels: Sequence[str]) -> list[str]:
    tag = compared({name for group in groups for run in group.completed for name in run.metrics})
    if tag is None:
        return []
    series = []
    for index, group in enumerate(groups):
        error, seconds = group.statistic(tag.name), group.statistic("seconds")
        if error is None or seconds is None:
            continue
        low, high = ((), ()) if not error.std else ((error.mean - error.std,), (error.mean + error.std,))
        label = f"{labels[index]}: {spread(error)} in {spread(seconds)} s"
        series.append(chart.Series(index, label, [(seconds.mean, error.mean)], low, high))
    return [chart.scatter(f"{tag.heading} against time", "seconds of training", series)]


def _series(index: int, label: str, group: Group, of_runs: Sequence[Curves], tag: str) -> list[chart.Series]:
    completed, others = [], []
    for run, curves in zip(group.runs, of_runs, strict=True):
        if tag in curves and run.completed:
            completed.append(curves[tag])
        elif tag in curves:
            steps, values = curves[tag]
            points = _thin([(float(step), value) for step, value in zip(steps, values, strict=True)])
            others.append(chart.Series(index, f"{label}, {run.status}", points, ends_badly=True))
    return [*_mean(index, label, completed), *others]


def _mean(index: int, label: str, curves: Sequence[tuple[list[int], list[float]]]) -> list[chart.Series]:
    """Return mean and range at the steps that all curves share; a mean over fewer curves would seem to jump."""
    if not curves:
        return []
    shared = set.intersection(*(set(steps) for steps, _ in curves))
    by_step = [dict(zip(steps, values, strict=True)) for steps, values in curves]
    rows = [(step, [values[step] for values in by_step]) for step in _thin(sorted(shared))]
    rows = [(step, values) for step, values in rows if all(map(math.isfinite, values))]
    points = [(float(step), sum(values) / len(values)) for step, values in rows]
    if len(curves) == 1:
        return [chart.Series(index, label, points)]
    low, high = [min(values) for _, values in rows], [max(values) for _, values in rows]
    return [chart.Series(index, f"{label}, mean and range of {len(curves)}", points, low, high)]


def _thin(rows: Sequence[T]) -> list[T]:
    """Keep at most POINTS rows, evenly spread, with the first and the last."""
    if len(rows) <= POINTS:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (POINTS - 1))] for i in range(POINTS)]
