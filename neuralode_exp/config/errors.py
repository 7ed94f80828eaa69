"""What is wrong with a request: one line for each mistake, with the key, the rule, what was got and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong.

    Args:
        key: dotted path of the key, as `trainer.lr`.
        rule: what it must be.
        got: what it is; None where there is nothing to show.
        fix: what to write instead; None: the caller fills in the key's default.
    """

    key: str
    rule: str
    got: str | None = None
    fix: str | None = None

    def __str__(self) -> str:
        got = f", got {self.got}" if self.got is not None else ""
        fix = f"; {self.fix}" if self.fix is not None else ""
        return f"{self.key} {self.rule}{got}{fix}"


class ConfigError(ValueError):
    """A config that cannot be run; `mistakes` holds everything that is wrong with it."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Mistake, ...]]]:
        return type(self), (self.mistakes,)  # workers of a launcher send it back pickled


def near_miss(name: str, names: Iterable[str], prefix: str = "") -> str | None:
    """Ask whether the one of `names` that `name` resembles was meant, or return None."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {prefix}{near[0]}?" if near else None


def suggest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Ask whether a near miss was meant, or list the names."""
    names = list(names)
    return near_miss(name, names, prefix) or f"choose from {', '.join(names)}"


def must_be_one_of(key: str, got: str, names: Iterable[str]) -> Mistake:
    """Return what is wrong with a key whose value is none of the names that there are."""
    names = list(names)
    return Mistake(key, f"must be one of {', '.join(names)}", got, near_miss(got, names))


def spell(value: object) -> str:
    """Write a value as YAML and the command line do."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(spell, value))}]"
    return str(value) if str(value) else "''"
