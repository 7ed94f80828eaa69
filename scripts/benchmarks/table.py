"""A figure beside its goal, printed and written."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torchdiffeq


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Args:
        name: what was measured.
        value: the number.
        at_least, at_most: its goal, if it has one.
        spread: lower and upper quartile of the repetitions, if there were any.
        details: further times and counts for a reader of the JSON file.
    """

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None
    spread: tuple[float, float] | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def goal(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:.2f}"
        return f"<= {self.at_most:.2f}" if self.at_most is not None else ""

    @property
    def verdict(self) -> str:
        """Return `reached`, `missed`, or nothing without a goal; the value is compared as printed, to two decimals."""
        if self.at_least is None and self.at_most is None:
            return ""
        value = round(self.value, 2)
        low = self.at_least is not None and value < self.at_least
        high = self.at_most is not None and value > self.at_most
        return "missed" if low or high else "reached"


def print_table(figures: Sequence[Figure], description: str | None) -> None:
    """Print the description, then a line for each figure: name, value, quartiles, goal, verdict."""
    print(f"{(description or '').strip()}\n")
    width = max(len(figure.name) for figure in figures)
    print(f"{'':{width}}  {'value':>7}  {'quartiles':>13}  {'goal':>8}")
    for figure in figures:
        spread = "{:.2f} - {:.2f}".format(*figure.spread) if figure.spread else ""
        print(f"{figure.name:{width}}  {figure.value:7.2f}  {spread:>13}  {figure.goal:>8}  {figure.verdict}")
    missed = sum(figure.verdict == "missed" for figure in figures)
    print(f"\n{missed or 'no'} goal{'s' if missed != 1 else ''} missed")


def write_json(path: Path, table: str, figures: Sequence[Figure], device: str, *, quick: bool) -> None:
    """Write the figures with the machine, the versions and the commit with which they were measured."""
    rows = [
        {
            "name": figure.name,
            "value": figure.value,
            "quartiles": figure.spread,
            "goal": figure.goal or None,
            "verdict": figure.verdict or None,
            **figure.details,
        }
        for figure in figures
    ]
    content = {
        "table": table,
        "quick": quick,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": _commit(),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": _name(device),
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchdiffeq": torchdiffeq.__version__,
        },
        "figures": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _commit() -> str | None:
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None


def _name(device: str) -> str:
    return device if device == "cpu" else torch.cuda.get_device_name(device)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor()
