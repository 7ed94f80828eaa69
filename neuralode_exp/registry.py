"""The registry of named classes and functions. Their signatures are checked against the runner's calls.

This module does not import torch, because the preflight imports it.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

Kind = Literal["field", "system", "density", "metric"]
Made = TypeVar("Made", bound=Callable[..., Any])

PACKAGE = Path(__file__).parent
# The runner passes these arguments by position. All others must be keyword-only.
GIVEN: dict[Kind, tuple[str, ...]] = {
    "field": ("dim",),
    "system": ("t", "z"),
    "density": (),
    "metric": ("model", "data"),
}
# The method of a class that the runner calls, and its arguments.
METHODS: dict[Kind, tuple[str, tuple[str, ...]]] = {
    "field": ("forward", ("t", "z")),
    "density": ("sample", ("n", "generator")),
}
# A further argument that it may take: the number of inputs, or their values.
INPUTS: dict[str, str] = {"field": "inputs", "system": "u", "forward": "u"}


class ExtensionError(ValueError):
    """A user's file cannot be used. The message names the file and the line."""


@dataclass(frozen=True, eq=False)
class Registered:
    """A registered class or function.

    Args:
        kind, name: as registered.
        make: the class or function.
        options: its keyword-only arguments; their annotations are types, not text.
        settings: the further arguments of the decorator.
        file, line: where it was registered.
        driven: whether it takes inputs u.
    """

    kind: Kind
    name: str
    make: Callable[..., Any]
    options: Mapping[str, inspect.Parameter]
    settings: Mapping[str, Any]
    file: Path
    line: int
    driven: bool = False

    @property
    def place(self) -> str:
        return f"{self.file.name}, line {self.line}"

    @property
    def about(self) -> str:
        """The first sentence of its docstring."""
        return " ".join((inspect.getdoc(self.make) or "").split("\n\n")[0].split())

    def setting(self, key: str, options: Mapping[str, Any]) -> Any:
        """Return an argument of the decorator; a function is called with the options that it names."""
        value = self.settings[key]
        if not callable(value):
            return value
        return value(**{name: options[name] for name in inspect.signature(value).parameters})


_registered: dict[Path, list[Registered]] = {}
_sources: dict[str, Callable[[str], None]] = {}


def decorator(kind: Kind, name: str, settings: Mapping[str, Any]) -> Callable[[Made], Made]:
    """Return a decorator that registers a class or function, with the file and line where the user wrote it."""
    frame = sys._getframe(2)
    file, line = Path(frame.f_code.co_filename), frame.f_lineno

    def register(made: Made) -> Made:
        place = f"{file.name}, line {line}"
        parameters = _parameters(kind, name, made, place)
        options = {key: p for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
        driven = len(parameters) - len(options) > len(GIVEN[kind])
        if kind == "system" and driven is not bool(settings["inputs"]):
            raise ExtensionError(f"must take u if it has inputs=[(low, high)], and only then, got {name} ({place})")
        _registered.setdefault(file, []).append(Registered(kind, name, made, options, settings, file, line, driven))
        return made

    return register


def add_source(prefix: str, register: Callable[[str], None]) -> None:
    """Add a function that registers names with this prefix when they are asked for, as systems of another package."""
    _sources[prefix] = register


def ask_sources(name: str) -> None:
    """Call the sources whose prefix fits a name, so that they register it."""
    for prefix, register in _sources.items():
        if name.startswith(prefix):
            register(name)


def in_file(path: Path) -> list[Registered]:
    """Return the entries that a file has registered."""
    return list(_registered.get(path, ()))


def forget(path: Path) -> None:
    """Remove the entries that a file has registered."""
    _registered.pop(path, None)


def of_package(kind: Kind) -> list[Registered]:
    """Return the entries of a kind that the package itself registers."""
    own = (entry for path, found in _registered.items() if _is_inside(path, PACKAGE) for entry in found)
    return [entry for entry in own if entry.kind == kind]


@functools.cache
def _is_inside(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder)


def own(kind: Kind, name: str) -> Registered:
    """Return the package's own entry of a name.

    Raises:
        ValueError: there is no such entry.
    """
    names = [entry.name for entry in of_package(kind)]
    if name in names:
        return of_package(kind)[names.index(name)]
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names)}"
    raise ValueError(f"unknown {kind} {name!r}; {hint}")


def _parameters(kind: Kind, name: str, made: Callable[..., Any], place: str) -> Mapping[str, inspect.Parameter]:
    """Return all arguments, after checking that the positional ones are those that the runner passes."""
    if kind in METHODS and inspect.isclass(made):
        method, arguments = METHODS[kind]
        found = made.__dict__.get(method) or getattr(made, method, None)
        if found is None:
            raise ExtensionError(f"must register a class with {method}, got {name} ({place})")
        _positional(found, ("self", *arguments), f"{name}.{method} ({place})", INPUTS.get(method))
    return _positional(made, GIVEN[kind], f"{name} ({place})", INPUTS.get(kind), "*, OPTION=...")


def _positional(
    made: Callable[..., Any], given: Sequence[str], what: str, inputs: str | None = None, further: str = ""
) -> Mapping[str, inspect.Parameter]:
    """Return all arguments, after checking the number of positional ones and the name of that for inputs."""
    try:
        parameters = inspect.signature(made, eval_str=True).parameters
    except NameError as error:
        raise ExtensionError(f"must have annotations that exist, got {error} in {what}") from error
    stars = [str(p) for p in parameters.values() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    by_position = [key for key, p in parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(by_position) < len(given) or by_position[len(given) :] not in ([], [inputs]) or stars:
        asked = ", ".join([*given, *([further] if further else [])])
        got = ", ".join([*by_position, *stars]) or "no argument"
        raise ExtensionError(f"must take ({asked}), got ({got}) in {what}; options follow a *")
    return parameters
