"""Curves of a group: the mean over its seeds with their range, and what the others reached before they ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from neuralode_exp.report import chart
from neuralode_exp.report.columns import BY_TAG, error_tag, spread
from neuralode_exp.report.grouping import Group
from neuralode_exp.tracking.metrics import read_metrics

POINTS = 120  # of a drawn curve
TAGS = (
    "loss/train",
    "loss/validation",
    "error/validation",
    "dynamics/validation_error",
    "density/kl",
    "nfe/forward",
    "nfe/backward",
    "memory/saved_mib",
    "memory/peak_device_mib",
)

T = TypeVar("T")
Curves = dict[str, tuple[list[int], list[float]]]


def charts(groups: Sequence[Group], labels: Sequence[str]) -> list[str]:
    """Draw error against time, then each metric over the steps, for groups of one dataset."""
    curves = [[read_metrics(run.folder, TAGS) for run in group.runs] for group in groups]
    drawn = _error_against_time(groups, labels)
    for tag in TAGS:
        series = [
            one
            for index, (group, of_runs) in enumerate(zip(groups, curves, strict=True))
            for one in _series(index, labels[index], group, of_runs, tag)
        ]
        if any(len(one.points) > 1 for one in series):
            title = BY_TAG[tag].title if tag in BY_TAG else tag
            drawn.append(chart.lines(title, "step", series))
    return drawn


def _error_against_time(groups: Sequence[Group], labels: Sequence[str]) -> list[str]:
    tag = error_tag(run for group in groups for run in group.completed)
    if tag is None:
        return []
    series = []
    for index, group in enumerate(groups):
        error, seconds = group.statistic(tag), group.statistic("seconds")
        if error is None or seconds is None:
            continue
        low, high = ((), ()) if not error.std else ((error.mean - error.std,), (error.mean + error.std,))
        label = f"{labels[index]}: {spread(error)} in {spread(seconds)} s"
        series.append(chart.Series(index, label, [(seconds.mean, error.mean)], low, high))
    return [chart.scatter(f"{BY_TAG[tag].title} against time", "seconds of training", series)]


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
    """Over the steps that all curves have: the end of one alone would look like a jump of the mean."""
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
    """Keep at most POINTS of them, evenly, with both ends."""
    if len(rows) <= POINTS:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (POINTS - 1))] for i in range(POINTS)]
