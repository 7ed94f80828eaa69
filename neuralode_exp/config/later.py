"""Keys that came after the first stored configs, and the value of each that reproduces the runs of before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A stored config without the key takes the value, and at this value the key stays out of the identity: the runs of
# before are loaded, go on and are found in their grids.
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
    "dataset.train": None,
    "dataset.time": None,
    "dataset.states": None,
    "dataset.trajectory": None,
    "dataset.step": None,
    "dataset.missing": (),
    "dataset.repeats": "refuse",
    "dataset.units": "file",
    "dataset.log": "false",
    "dataset.delays": 0,
    "dataset.hold_out": "trajectories",
    "dataset.forecast": None,
    "dataset.columns": None,
    "trainer.collocation": 0,
    "trainer.curvature": 0.0,
    "dataset.input": "hold",
    "dataset.inputs": (),
}
# Keys that only some data have, by their kind or their name.
OF_KIND = {
    "dataset.train": "images",
    "dataset.time": "csv",
    "dataset.states": "csv",
    "dataset.trajectory": "csv",
    "dataset.step": "csv",
    "dataset.missing": "csv",
    "dataset.repeats": "csv",
    "dataset.units": "csv",
    "dataset.log": "csv",
    "dataset.delays": "csv",
    "dataset.hold_out": "csv",
    "dataset.forecast": "csv",
    "dataset.columns": "points",
    "dataset.input": "dynamics",
    "dataset.inputs": "csv",
}


def with_later_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with each later key that it lacks, at its neutral value."""
    complete = dict(values)
    for key, neutral in NEUTRAL.items():
        section, _, name = key.rpartition(".")
        if not section:
            complete.setdefault(name, neutral)
        elif isinstance(given := complete.get(section), Mapping) and _has(given, key):
            complete[section] = {name: neutral, **given}
    return complete


def _has(section: Mapping[str, Any], key: str) -> bool:
    return OF_KIND.get(key) in (None, section.get("kind"), section.get("name"))


def is_neutral(key: str, value: object) -> bool:
    """Whether the key, dotted, came later and has the value that changes nothing."""
    return key in NEUTRAL and value == NEUTRAL[key]
