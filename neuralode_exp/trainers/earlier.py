"""Convert checkpoints of earlier versions to the names and shapes of today's modules.

Earlier, every network on vectors was a stack of replicas, even a single one: its parameters, moments and averages had
a leading axis of length 1. A field stored its units and its frozen replicas, and a block or flow was its own solver.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

# Old prefix of a name -> new prefixes. The one that the module has is used.
RENAMED = (
    ("flow.field.", "flow.field.field."),
    ("flow.field.", "flow.field.field.stacked."),
    ("body.field.", "body.ode.field."),
    ("field.", "ode.field."),
)
GONE = ("flow.field.active",)


def weights(stored: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Return a stored state_dict with the names and shapes of `module`. Entries that fit are unchanged."""
    now = module.state_dict()
    named = {_name(name, now): x for name, x in stored.items() if name not in GONE or name in now}
    return {name: _without_replicas(x, now[name]) if name in now else x for name, x in named.items()}


def averages(stored: Iterable[Tensor], module: nn.Module) -> list[Tensor]:
    """Return stored averages in the shapes of a module's parameters. Averages without a parameter are dropped."""
    return [_without_replicas(x, p) for x, p in zip(stored, module.parameters(), strict=False)]


def moments(stored: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the stored state of an optimiser, with its moments in the shapes of the parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        i: {key: _without_replicas(x, parameters[i]) for key, x in values.items()}
        for i, values in stored["state"].items()
    }
    return stored | {"state": state}


def _name(name: str, now: Mapping[str, Tensor]) -> str:
    candidates = (new + name.removeprefix(old) for old, new in RENAMED if name.startswith(old))
    return name if name in now else next((new for new in candidates if new in now), name)


def _without_replicas(x: Any, like: Tensor) -> Any:
    return x[0] if isinstance(x, Tensor) and x.shape == (1, *like.shape) else x
