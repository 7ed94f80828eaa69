"""Keys that came after the first stored configs, and the value of each that reproduces the runs of before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A stored config without the key takes the value, and at this value the key stays out of the identity: the runs of
# before are loaded, go on and are found in their grids.
NEUTRAL: dict[str, Any] = {
    "solver.max_step": None,
    "solver.coupling": 0.999,
    "solver.stored_states": None,
    "weights": None,
    "extensions": (),
    "model.options": {},
    "dataset.train": None,
}
# Keys that only one kind of data has.
OF_KIND = {"dataset.train": "images"}


def with_later_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with each later key that it lacks, at its neutral value."""
    complete = dict(values)
    for key, neutral in NEUTRAL.items():
        section, _, name = key.rpartition(".")
        if not section:
            complete.setdefault(name, neutral)
        elif isinstance(given := complete.get(section), Mapping) and OF_KIND.get(key) in (None, given.get("kind")):
            complete[section] = {name: neutral, **given}
    return complete


def is_neutral(key: str, value: object) -> bool:
    """Whether the key, dotted, came later and has the value that changes nothing."""
    return key in NEUTRAL and value == NEUTRAL[key]
