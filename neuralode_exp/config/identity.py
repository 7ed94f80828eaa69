"""The identity of a run: a hash of the keys that can change its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from neuralode_exp import user_files
from neuralode_exp.config.cells import read_by_solver
from neuralode_exp.config.kinds import KINDS
from neuralode_exp.config.later import is_neutral
from neuralode_exp.config.schema import Config
from neuralode_exp.config.values import flatten

# These keys do not change the result. A dataset's tolerance and steps act only through the solver's keys.
WITHOUT_EFFECT = frozenset(
    {"device", "threads", "check", "resume", "log_every", "figures", "dataset.root"}
    | {"dataset.tolerance", "dataset.step_size", "dataset.first_step", "trainer.checkpoint_every"}
)
WEIGHTS = Path("checkpoints") / "last.pt"  # in a run's folder


def identity(config: Config) -> str:
    """Return 12 hexadecimal digits, which are the same for two configs exactly if they ask for the same result."""
    text = json.dumps(with_effect(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def identity_differences(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Return the keys that make the results of two configs differ, each with both values (None: not read)."""
    of_a, of_b = with_effect(a), with_effect(b)
    pairs = {key: (of_a.get(key), of_b.get(key)) for key in sorted(of_a.keys() | of_b.keys())}
    return {key: (x, y) for key, (x, y) in pairs.items() if x != y}


def unread(config: Config, keys: Iterable[str]) -> list[str]:
    """Return those of some dotted keys that the task, model and solver of a run do not read."""
    flat, read = flatten(config.model_dump()), with_effect(config).keys() | WITHOUT_EFFECT
    return [key for key in keys if key in flat and key not in read and not is_neutral(key, flat[key])]


def with_effect(config: Config) -> dict[str, Any]:
    """Return the dotted keys and values of the identity: what a run reads, but for later keys of a neutral value."""
    return {key: value for key, value in read_keys(config).items() if not is_neutral(key, value)}


def read_keys(config: Config) -> dict[str, Any]:
    """Return the dotted keys and values that the result depends on, without keys that the cell does not read."""
    sections = config.model_dump()
    keys = KINDS[config.dataset.kind].models.get(config.model.name)
    of_package = user_files.find("field", config.model.field, ()) is not None
    if keys is not None and not of_package:
        keys = (*keys, "field", "options")  # images have a field of their own
    if keys is not None:  # a cell without meaning keeps all its keys
        sections["model"] = _only(sections["model"], {"name", *keys})
    if config.model.trace == "exact":
        sections["model"].pop("noise", None)
    if not config.solves_ode:
        del sections["solver"]
    else:
        sections["solver"] = read_by_solver(config.solver, config.model.gradient)
    trainer = sections["trainer"]
    unread = {key for kind in KINDS.values() if kind.trainer != trainer["name"] for key in kind.trainer_keys}
    unread |= {"momentum"} if trainer["optimizer"] != "sgd" else set()
    unread |= {"rise"} if trainer["schedule"] != "one-cycle" else set()
    sections["trainer"] = _only(trainer, trainer.keys() - unread)
    without_network = config.model.field == "hybrid" and not config.model.residual
    if without_network or not of_package:  # a user's field has options instead
        sections["model"] = _only(sections["model"], sections["model"].keys() - {"width", "depth", "activation"})
    flat = flatten(sections)
    flat["extensions"] = tuple(sorted(str(user_files.sha256(word)) for word in config.extensions))  # content, not place
    if config.weights is not None:
        flat["weights.sha256"] = _sha256(Path(config.weights) / WEIGHTS)
    # JSON turns tuples into lists, so that a stored config equals a new one.
    return json.loads(json.dumps({key: value for key, value in flat.items() if key not in WITHOUT_EFFECT}))


def _sha256(path: Path) -> str | None:
    """Return the SHA-256 of a file, or None if there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _only(values: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in keys}
