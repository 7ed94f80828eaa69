"""Checkpoints of earlier versions, under the names that today's modules give their parameters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

RENAMED = {"body.field.": "body.ode.field.", "field.": "ode.field."}  # beginnings of names


def weights(stored: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Return a stored state_dict as one of `module`; what fits already is left as it is."""
    names = module.state_dict().keys()
    return {_renamed(name) if name not in names else name: x for name, x in stored.items()}


def _renamed(name: str) -> str:
    for old, new in RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
