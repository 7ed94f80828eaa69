"""Mistakes in a request. Each is one line: the key, the rule, the value that was got, and the fix."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """One mistake in a request.

    Args:
        key: dotted path of the key, as `trainer.lr`.
        rule: what its value must be.
        got: the value as text; None if there is none to show.
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
    """A config that cannot be run. `mistakes` lists everything that is wrong with it."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Mistake, ...]]]:
        return type(self), (self.mistakes,)  # a launcher's worker sends it back by pickle


def near_miss(name: str, names: Iterable[str], prefix: str = "") -> str | None:
    """Return "did you mean X?" for the most similar of `names`, or None if none is similar."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {prefix}{near[0]}?" if near else None


def suggest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Return "did you mean X?" if one of `names` is similar, else the list of all names."""
    names = list(names)
    return near_miss(name, names, prefix) or f"choose from {', '.join(names)}"


def must_be_one_of(key: str, got: str, names: Iterable[str]) -> Mistake:
    """Return the mistake of a key whose value is not one of `names`."""
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
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {spell(entry)}' for key, entry in value.items())}}}"
    return str(value) if str(value) else "''"


def quoted(text: str) -> str:
    """Write any text as a value on Hydra's command line, which halves backslashes only before a quote."""
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", re.sub(r"(\\+)\Z", r"\1\1", text)) + "'"


def typed(key: str, text: str) -> str:
    """Write key=text as it is typed in a shell, quoted only where Hydra or the shell needs it."""
    is_plain = re.fullmatch(r"[A-Za-z0-9_./+-]+", text)
    return f"{key}={text}" if is_plain else shlex.quote(f"{key}={quoted(text)}")
