"""What `check=true` answers: the run that was asked for, or the runs of a grid with their length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from neuralode_exp.config.cells import without_meaning
from neuralode_exp.config.identity import identity
from neuralode_exp.config.kinds import KINDS
from neuralode_exp.config.label import label
from neuralode_exp.config.schema import Config

MOST_LINES = 100  # of runs that are told one by one


def steps(config: Config) -> int | None:
    """Return the training steps of a run; None where only its data tell how many make an epoch."""
    limits = [config.trainer.max_steps] if config.trainer.max_steps else []
    if config.trainer.epochs:
        epoch = KINDS[config.dataset.kind].epoch(config)
        if epoch is None:
            return None
        limits.append(config.trainer.epochs * epoch)
    return min(limits)


def of_run(config: Config) -> str:
    cell = f"model={config.model.name} dataset={config.dataset.name} solver={config.solver.name}"
    return f"ok: {cell} seed={config.seed}, identity {identity(config)}, {_length(config)}"


def of_grid(cells: Sequence[Config]) -> str:
    """Count the cells, and tell each distinct run with its length and the cells that are the same."""
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
    """The steps of a run; where they are not known what ends it."""
    if (n := steps(config)) is not None:
        return f"{n} step{'s' * (n != 1)}"
    epochs = config.trainer.epochs
    at_most = f" or {config.trainer.max_steps} steps" if config.trainer.max_steps else ""
    return f"{epochs} epoch{'s' * (epochs != 1)}{at_most}"
