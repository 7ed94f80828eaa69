"""The user's own files: how they are imported and hashed, and what each of them has registered."""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from neuralode_exp import registry
from neuralode_exp.registry import ExtensionError, Kind, Registered


@dataclass
class File:
    """An imported file of the user, and what it registered."""

    path: Path
    sha256: str
    registered: list[Registered] = field(default_factory=list)


_files: dict[Path, File] = {}


def load(given: Sequence[str]) -> list[File]:
    """Import files, or importable modules, once for each content, and return what each registered.

    Raises:
        ExtensionError: a file is not there, or it fails, with the line.
    """
    return [_load(word) for word in given]


def loaded(given: Sequence[str]) -> list[File] | None:
    """Return the files if all of them have been imported, else None; nothing is imported."""
    files = [_files.get(path) if (path := locate(word)) else None for word in given]
    return [file for file in files if file] if all(files) else None


def find(kind: Kind, name: str, given: Sequence[str]) -> Registered | None:
    """Return what is registered under a name, in the package or in imported files; nothing is imported."""
    registry.ask_sources(name)
    return next((entry for entry in [*registry.of_package(kind), *entries(kind, given)] if entry.name == name), None)


def entries(kind: Kind, given: Sequence[str]) -> list[Registered]:
    """Return everything of a kind that imported files have registered."""
    return [entry for file in loaded(given) or [] for entry in file.registered if entry.kind == kind]


def sha256(word: str) -> str | None:
    """Return the SHA-256 of a file as it was imported, else as it is now; None if it is gone."""
    path = locate(word)
    if path is None:
        return None
    return _files[path].sha256 if path in _files else hashlib.sha256(path.read_bytes()).hexdigest()


def locate(word: str) -> Path | None:
    """Return the file of a path or of a module's name, without importing anything; None if there is none."""
    if word.endswith(".py"):
        candidates = [Path(word)]
    else:
        parts = word.split(".")
        candidates = [
            Path(base, *parts[:-1], last)
            for base in ("", *sys.path)
            for last in (f"{parts[-1]}.py", f"{parts[-1]}/__init__.py")
        ]
    return next((path.resolve() for path in candidates if path.is_file()), None)


def failing_line(error: BaseException, file: Path) -> str:
    """Say what went wrong in a user's file and where: `my_fields.py, line 7: NameError: ...`."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(file) else lines[-1:] and lines[-1]
    text = (error.msg if isinstance(error, SyntaxError) else str(error)).strip().split("\n")[0]
    return f"{file.name}{f', line {line}' if line else ''}: {type(error).__name__}{f': {text}' if text else ''}"


def _load(word: str) -> File:
    path = locate(word)
    if path is None:
        raise ExtensionError(f"must name files or modules, got {word}; there is none seen from {Path.cwd()}")
    source = path.read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    if path in _files and _files[path].sha256 == digest:
        return _files[path]
    registry.forget(path)
    _files.pop(path, None)
    name = word if not word.endswith(".py") else f"neuralode_extension_{path.stem}_{digest[:8]}"
    try:
        _run(source, path, name)
    except ExtensionError:
        raise
    except (Exception, SystemExit) as error:  # any error of the user's code is shown to the user
        raise ExtensionError(f"cannot be imported, got {failing_line(error, path)}") from error
    _files[path] = File(path, digest, registry.in_file(path))
    return _files[path]


def _run(source: bytes, path: Path, name: str) -> None:
    parent = name.rpartition(".")[0]
    if parent:
        importlib.import_module(parent)
    module = ModuleType(name)
    module.__file__, module.__package__ = str(path), parent if path.name != "__init__.py" else name
    before = sys.modules.get(name)
    sys.modules[name] = module  # annotations and pickles look the module up here
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        raise
