"""Ranges of the options of systems and densities, which the config checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt

from neuralode_exp.registry import Registered

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(1)]


def complete(entry: Registered, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a registered class or function, with defaults for those that are not given.

    Raises:
        ValueError: an option is unknown, or outside its range.
    """
    if unknown := [key for key in options if key not in entry.options]:
        raise ValueError(f"{entry.name} has no argument {unknown[0]!r}; it has {', '.join(entry.options)}")
    values = {name: option.default for name, option in entry.options.items()} | dict(options)
    for name, option in entry.options.items():
        for limit in getattr(option.annotation, "__metadata__", ()):
            if isinstance(limit, Gt) and not values[name] > limit.gt:
                raise ValueError(f"`{name}` must be above {limit.gt}, got {values[name]}")
            if isinstance(limit, Ge) and not values[name] >= limit.ge:
                raise ValueError(f"`{name}` must be at least {limit.ge}, got {values[name]}")
    return values
