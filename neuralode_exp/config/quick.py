"""Set plain values in a composed config without OmegaConf: the cells of a large grid differ in little else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType

REFERENCE = re.compile(r"\$\{(\w+)\.(\w+)\}")
OF_FILES = ("name", "kind")


def with_values(unresolved: Mapping[str, Any], overrides: Iterable[Override]) -> dict[str, Any] | None:
    """Return a config with other values as plain keys and values, as OmegaConf would resolve it.

    Args:
        unresolved: the composed config, with its references as text.
        overrides: each sets one key.

    Returns:
        None where it takes more than that: a key that is not there, a list or a section, a reference to a reference.
    """
    values = {key: dict(value) if isinstance(value, Mapping) else value for key, value in unresolved.items()}
    for override in overrides:
        *sections, key = override.key_or_group.split(".")
        section = values if not sections else values.get(sections[0])
        value = override.value()
        plain = isinstance(value, (bool, int, float, str)) or value is None
        if override.type != OverrideType.CHANGE or len(sections) > 1 or not isinstance(section, dict) or not plain:
            return None
        if key not in section or key in OF_FILES or isinstance(section[key], dict) or _is_more(value):
            return None
        section[key] = value
    for section in [values, *(value for value in values.values() if isinstance(value, dict))]:
        for key, value in section.items():
            if isinstance(value, (dict, list)):
                if isinstance(value, list) and "${" in str(value):
                    return None
            elif isinstance(value, str) and "${" in value:
                reference = REFERENCE.fullmatch(value)
                there = values.get(reference[1]) if reference else None
                if reference is None or not isinstance(there, dict) or reference[2] not in there:
                    return None
                section[key] = there[reference[2]]
                if _is_more(section[key]) or isinstance(section[key], (dict, list)):
                    return None
    return values


def _is_more(value: object) -> bool:
    """Whether OmegaConf reads more in a value than its text."""
    return isinstance(value, str) and ("${" in value or value == "???")
