"""The answer of `check=true`: how tables are read, and the requested run, or the runs of a grid, with their lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from neuralode_exp.config.cells import without_meaning
from neuralode_exp.config.identity import identity
from neuralode_exp.config.kinds import KINDS
from neuralode_exp.config.label import label
from neuralode_exp.config.readable import understood
from neuralode_exp.config.schema import Config

MOST_LINES = 100  # runs that are listed one by one


def steps(config: Config) -> int | None:
    """Return the number of training steps of a run, or None if the length of an epoch is known only from the data."""
    limits = [config.trainer.max_steps] if config.trainer.max_steps else []
    if config.trainer.epochs:
        epoch = KINDS[config.dataset.kind].epoch(config)
        if epoch is None:
            return None
        limits.append(config.trainer.epochs * epoch)
    return min(limits)


def of_run(config: Config) -> str:
    """Return how the user's table is read, if there is one, and in the last line the run."""
    cell = f"model={config.model.name} dataset={config.dataset.name} solver={config.solver.name}"
    run = f"ok: {cell} seed={config.seed}, identity {identity(config)}, {_length(config)}"
    return "\n".join([*understood(config), run])


def of_grid(cells: Sequence[Config]) -> str:
    """Count the cells, tell how tables are read, and list each distinct run with the cells that ask for the same."""
    runs: dict[str, list[int]] = {}
    skipped: Counter[str] = Counter()
    for number, config in enumerate(cells):
        if gap := without_meaning(config):
            skipped[str(gap)] += 1
        else:
            runs.setdefault(identity(config), []).append(number)
    same = sum(map(len, runs.values())) - len(runs)
    lines = [f"ok: {len(cells)} cells, {len(runs)} runs, {same} same as another"]
    lines += [f"skipped, {n} of {len(cells)}: {gap}" for gap, n in skipped.items()]
    lines += dict.fromkeys(line for first, *_ in runs.values() for line in understood(cells[first]))
    for first, *others in list(runs.values())[:MOST_LINES]:
        alike = f", the same run as cell {', '.join(map(str, others))}" if others else ""
        lines.append(f"cell {first}: {label(cells[first])}, {_length(cells[first])}{alike}")
    if len(runs) > MOST_LINES:
        lines.append(f"and {len(runs) - MOST_LINES} more")
    lengths = [steps(cells[first]) for first, *_ in runs.values()]
    if None not in lengths:
        lines.append(f"{sum(filter(None, lengths))} steps in all")
    return "\n".join(lines)


def _length(config: Config) -> str:
    """Return the steps of a run as text, or the limits that end it if the steps are not known."""
    if (n := steps(config)) is not None:
        return f"{n} step{'s' * (n != 1)}"
    epochs = config.trainer.epochs
    at_most = f" or {config.trainer.max_steps} steps" if config.trainer.max_steps else ""
    return f"{epochs} epoch{'s' * (epochs != 1)}{at_most}"
