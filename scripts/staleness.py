"""Find kept results that today's code no longer reproduces, and missing rows of their tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from opening import ROOT, largest_difference, opening

TOLERANCE = 1e-3  # relative
# Training amplifies rounding, by another processor or another order of sums. A relative change of the learning rate by
# NUDGE shows by how much, and MARGIN times its effect is still no change of the code.
NUDGE, MARGIN = 1e-6, 10.0


def stale(folders: Iterable[Path], reopen: Callable[[Mapping[str, Any]], dict[str, Any]] = opening) -> Iterator[str]:
    """Yield a line for each result without a record or with another one today, and for each missing row.

    What today's code refuses to run is a line too.

    Args:
        folders: one for each experiment, named after it, with a file for each run.
        reopen: what trains the first steps of a config.
    """
    for folder in folders:
        kept = sorted(folder.glob("*.json"))
        for path in kept:
            if why := _changed(json.loads(path.read_text()), reopen):
                yield f"{folder.name}/{path.name}: {why}"
        try:
            missing = identities(folder.name) - {path.stem for path in kept}
        except ValueError as problem:
            yield f"{folder.name}: its cells were not compared: {problem}"
            continue
        if missing:
            yield f"{folder.name}: {len(missing)} of its cells have no result"


def _changed(content: Mapping[str, Any], reopen: Callable[[Mapping[str, Any]], dict[str, Any]]) -> str | None:
    """Return what is wrong with a result; None if nothing is."""
    if "opening" not in content:
        return "has no record of its first steps"
    before, config = content["opening"], content["config"]
    try:
        now = reopen(config)
        differences = _differences(before, now)
        if max(differences.values()) > TOLERANCE:
            trainer = {**config["trainer"], "lr": (1 + NUDGE) * config["trainer"]["lr"]}
            by_rounding = _differences(now, reopen({**config, "trainer": trainer}))
            differences = {name: x for name, x in differences.items() if x > MARGIN * by_rounding.get(name, 0.0)}
    except ValueError as problem:  # for example, an extra is not installed
        return f"could not be run: {problem}"
    worst = max(differences, key=lambda name: differences[name], default=None)
    return f"{worst} differ by {differences[worst]:.2g}" if worst and differences[worst] > TOLERANCE else None


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, float]:
    """Return the largest relative difference of the losses, and that of each metric of the evaluation.

    A metric of `a` that `b` lacks has an infinite difference. One that only `b` has is new, and says nothing of `a`.
    """
    before, now = a["evaluation"], b["evaluation"]
    pairs = {tag: ([value], [now[tag]] if tag in now else []) for tag, value in before.items()}
    return {name: largest_difference(*pair) for name, pair in {"losses": (a["losses"], b["losses"]), **pairs}.items()}


def identities(experiment: str) -> set[str]:
    """Return the identities of an experiment's runs; none if it is no grid."""
    from benchmarks.compose import composer  # imported here, because Hydra takes a second

    from neuralode_exp.config import identity, without_meaning
    from neuralode_exp.config.axes import axes_of, expand

    if not (ROOT / "conf" / "experiment" / f"{experiment}.yaml").is_file():
        return set()
    composing = composer()
    overrides = composing.parse([f"experiment={experiment}"], [])
    configs = (composing.config(composing.parse(cell, [])) for cell in expand(axes_of(composing, overrides)))
    return {identity(config) for config in configs if not without_meaning(config)}
