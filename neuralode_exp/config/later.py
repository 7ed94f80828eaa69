"""Keys that were added later, each with the value that reproduces the runs from before it existed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A stored config without the key gets this value. With this value the key is no part of the identity. Hence older runs
# can still be loaded and resumed, and grids still find them.
NEUTRAL: dict[str, Any] = {
    "solver.max_step": None,
    "solver.compile": False,
    "solver.coupling": 0.999,
    "solver.stored_states": None,
    "model.features": "none",
    "model.layers": 32,
    "trainer.loss": "likelihood",
    "trainer.matching_steps": 1000,
    "trainer.pairing": "independent",
    "trainer.kinetic": 0.0,
    "trainer.jacobian": 0.0,
    "trainer.taylor": 0.0,
    "trainer.steer": 0.0,
    "trainer.error": 0.0,
    "trainer.error_at": "sum",
    "weights": None,
    "extensions": (),
    "model.options": {},
    "model.system": None,
    "model.free": (),
    "model.residual": True,
    "model.augment": 0,
    "model.order": 1,
    "trainer.collocation": 0,
    "trainer.curvature": 0.0,
}
# Keys that only some datasets have, by the kind or the name of the dataset.
OF_SOME_DATA: dict[str, dict[str, Any]] = {
    "images": {"train": None},
    "dynamics": {"input": "hold"},
    "csv": {
        "time": None,
        "states": None,
        "trajectory": None,
        "inputs": (),
        "step": None,
        "missing": (),
        "repeats": "refuse",
        "units": "file",
        "log": "false",
        "delays": 0,
        "hold_out": "trajectories",
        "forecast": None,
    },
    "points": {"columns": None},
}
NEUTRAL |= {f"dataset.{key}": value for keys in OF_SOME_DATA.values() for key, value in keys.items()}
OF_KIND = {f"dataset.{key}": kind for kind, keys in OF_SOME_DATA.items() for key in keys}


def with_later_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config in which each missing later key has its neutral value."""
    complete = dict(values)
    for key, neutral in NEUTRAL.items():
        section, _, name = key.rpartition(".")
        if not section:
            complete.setdefault(name, neutral)
        elif isinstance(given := complete.get(section), Mapping) and (
            OF_KIND.get(key) in (None, given.get("kind"), given.get("name"))
        ):
            complete[section] = {name: neutral, **given}
    return complete


def is_neutral(key: str, value: object) -> bool:
    """Return whether a dotted key was added later and has its neutral value."""
    return key in NEUTRAL and (tuple(value) if isinstance(value, list) else value) == NEUTRAL[key]
