"""What a user may register from a file of their own: fields, systems, densities and metrics, by name.

    python train.py extensions=[my_fields.py] model.field=damped model.options.damping=0.2

A name stands for a class or a function, its keyword-only arguments are options of the config. Nothing is imported here
but what `load` is asked for, and nothing of ours or of torch: the preflight reads this.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

Kind = Literal["field", "system", "density", "metric"]
Made = TypeVar("Made", bound=Callable[..., Any])

# The arguments that the runner gives by position; what follows them must be keyword-only.
GIVEN: dict[Kind, tuple[str, ...]] = {
    "field": ("dim",),
    "system": ("t", "z"),
    "density": (),
    "metric": ("model", "data"),
}
# Of a class, the method that the runner calls, and with what.
METHODS: dict[Kind, tuple[str, tuple[str, ...]]] = {
    "field": ("forward", ("t", "z")),
    "density": ("sample", ("n", "generator")),
}


class ExtensionError(ValueError):
    """The user's file cannot be used; the text names its line."""


@dataclass(frozen=True)
class Registered:
    """What a name stands for.

    Args:
        kind, name: as registered.
        make: the class or function.
        options: its keyword-only arguments, with annotations that are types.
        settings: what else the decorator was given.
        file, line: where it was registered.
    """

    kind: Kind
    name: str
    make: Callable[..., Any]
    options: Mapping[str, inspect.Parameter]
    settings: Mapping[str, Any]
    file: Path
    line: int

    @property
    def place(self) -> str:
        return f"{self.file.name}, line {self.line}"


@dataclass
class File:
    """A file of the user's that was imported, and what it registered."""

    path: Path
    sha256: str
    registered: list[Registered] = dataclass_field(default_factory=list)


_registered: dict[Path, list[Registered]] = {}
_files: dict[Path, File] = {}


def field(name: str) -> Callable[[Made], Made]:
    """Register a class as a vector field dz/dt = f(t, z; theta): `model.field=NAME`, `model.options.KEY=VALUE`.

    It is an `nn.Module`, made with the number d of dimensions and called with a scalar tensor t and a tensor z of shape
    (..., d), and it gives dz/dt of z's shape. It sees the data in units of order 1. It serves dynamics and densities,
    there with the trace of its Jacobian by forward-mode derivatives, and any number of replicas.

    Example:
        A whole file, for `model.field=damped model.options.damping=0.2`:

            import torch
            from torch import nn
            from neuralode_exp.extend import field

            @field("damped")
            class Damped(nn.Module):
                def __init__(self, dim: int, *, width: int = 64, damping: float = 0.1):
                    super().__init__()
                    self.net = nn.Sequential(nn.Linear(dim, width), nn.Tanh(), nn.Linear(width, dim))
                    self.damping = damping

                def forward(self, t, z):
                    return self.net(z) - self.damping * z
    """
    return _decorator("field", name, {}, *_caller())


def system(
    name: str,
    *,
    dim: int,
    low: float | Sequence[float] = -2.0,
    high: float | Sequence[float] = 2.0,
    t_max: float = 10.0,
    stiff: bool = False,
) -> Callable[[Made], Made]:
    """Register a function as a known system dz/dt = f(t, z): `dataset=system dataset.system=NAME`.

    It gets a scalar tensor t and a tensor z of shape (..., dim), float64 or float32, and gives dz/dt of z's shape, by
    torch. Trajectories come from a solve at rtol 1e-10, the truth for field and eigenvalue errors from the function.

    Args:
        name: of `dataset.system`.
        dim: number of dimensions.
        low, high: the box of initial states, a number or one for each dimension, unless `dataset.low` says otherwise.
        t_max: length of a trajectory, unless `dataset.t_max` says otherwise.
        stiff: whether the trajectories need an implicit method.

    Example:
        A whole file, for `dataset=system dataset.system=swing dataset.options.length=2`:

            import torch
            from neuralode_exp.extend import system

            @system("swing", dim=2)
            def swing(t, z, *, length: float = 1.0):
                angle, speed = z.unbind(-1)
                return torch.stack((speed, -torch.sin(angle) / length), -1)
    """
    settings = {"dim": dim, "low": low, "high": high, "t_max": t_max, "stiff": stiff}
    return _decorator("system", name, settings, *_caller())


def density(name: str) -> Callable[[Made], Made]:
    """Register a class as a density: `dataset=density dataset.density=NAME`, `dataset.options.KEY=VALUE`.

    `sample(n, generator)` draws n points, shape (n, d), and `log_prob(x)`, where there is one, gives log p in nats,
    shape (n,), of points of shape (n, d) in float64; with it the run reports the divergence from the truth.

    Example:
        A whole file, for `dataset=density dataset.density=ring dataset.options.radius=3`:

            import torch
            from neuralode_exp.extend import density

            @density("ring")
            class Ring:
                def __init__(self, *, radius: float = 2.0, width: float = 0.2):
                    self.radius, self.width = radius, width

                def sample(self, n, generator):
                    angle = 6.283185307 * torch.rand(n, 1, generator=generator)
                    ring = self.radius * torch.cat((angle.cos(), angle.sin()), 1)
                    return ring + self.width * torch.randn(n, 2, generator=generator)
    """
    return _decorator("density", name, {}, *_caller())


def metric(name: str, *, on: Literal["dynamics", "densities"] = "dynamics") -> Callable[[Made], Made]:
    """Register a function as a metric: each run of that kind with the file in `extensions` records it.

    At each evaluation it gets the model in evaluation mode, as `load_run` gives it, and the held-out data: of dynamics
    a list of trajectories, each with times `t`, shape (T,), and states `z` and `observed`, shape (T, n, d); of
    densities points, shape (n, d). It gives a number, whose tag is the name, or a mapping from tags to numbers.
    `objective=NAME` minimises it.

    Args:
        name: the tag.
        on: the kind of data.

    Example:
        A whole file:

            from neuralode_exp.extend import metric

            @metric("swing/last_angle_error")
            def last_angle_error(model, data):
                [known] = data
                z = model(known.z[0], known.t)
                return (z[-1, :, 0] - known.z[-1, :, 0]).abs().mean()
    """
    return _decorator("metric", name, {"on": on}, *_caller())


def load(given: Sequence[str]) -> list[File]:
    """Import files, or importable modules, once for each content, and return what each registered.

    Raises:
        ExtensionError: a file is not there, or it fails, with the line.
    """
    return [_load(word) for word in given]


def loaded(given: Sequence[str]) -> list[File] | None:
    """Return the files if all have been imported, else None; imports nothing."""
    files = [_files.get(path) if (path := locate(word)) else None for word in given]
    return [file for file in files if file] if all(files) else None


def find(kind: Kind, name: str, given: Sequence[str]) -> Registered | None:
    """Return what a name stands for in imported files; imports nothing."""
    return next((entry for entry in entries(kind, given) if entry.name == name), None)


def entries(kind: Kind, given: Sequence[str]) -> list[Registered]:
    """Return all of a kind in imported files."""
    return [entry for file in loaded(given) or [] for entry in file.registered if entry.kind == kind]


def sha256(word: str) -> str | None:
    """Return the SHA-256 of a file as it was imported, or as it is; None where it is gone."""
    path = locate(word)
    if path is None:
        return None
    return _files[path].sha256 if path in _files else hashlib.sha256(path.read_bytes()).hexdigest()


def locate(word: str) -> Path | None:
    """Return the file of a path or of a module's name, without importing anything; None where there is none."""
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
    _registered.pop(path, None)
    _files.pop(path, None)
    name = word if not word.endswith(".py") else f"neuralode_extension_{path.stem}_{digest[:8]}"
    try:
        _run(source, path, name)
    except ExtensionError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code raises is theirs to know
        raise ExtensionError(f"cannot be imported, got {failing_line(error, path)}") from error
    _files[path] = File(path, digest, _registered.get(path, []))
    return _files[path]


def _run(source: bytes, path: Path, name: str) -> None:
    parent = name.rpartition(".")[0]
    if parent:
        importlib.import_module(parent)
    module = ModuleType(name)
    module.__file__, module.__package__ = str(path), parent if path.name != "__init__.py" else name
    before = sys.modules.get(name)
    sys.modules[name] = module  # annotations and pickles find it
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        raise


def _caller() -> tuple[Path, int]:
    frame = sys._getframe(2)
    return Path(frame.f_code.co_filename), frame.f_lineno


def _decorator(kind: Kind, name: str, settings: Mapping[str, Any], file: Path, line: int) -> Callable[[Made], Made]:
    def register(made: Made) -> Made:
        options = _options(kind, name, made, f"{file.name}, line {line}")
        _registered.setdefault(file, []).append(Registered(kind, name, made, options, settings, file, line))
        return made

    return register


def _options(kind: Kind, name: str, made: Callable[..., Any], place: str) -> dict[str, inspect.Parameter]:
    """Return the keyword-only arguments; the others must be those that the runner gives."""
    if kind in METHODS:
        method, arguments = METHODS[kind]
        found = made.__dict__.get(method) or getattr(made, method, None)
        if not inspect.isclass(made) or found is None:
            raise ExtensionError(f"must register a class with {method}, got {name} ({place})")
        _positional(found, ("self", *arguments), f"{name}.{method} ({place})")
    parameters = _positional(made, GIVEN[kind], f"{name} ({place})", "*, OPTION=...")
    return {key: p for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def _positional(
    made: Callable[..., Any], given: Sequence[str], what: str, further: str = ""
) -> Mapping[str, inspect.Parameter]:
    """Return all arguments; those by position must be as many as are given."""
    try:
        parameters = inspect.signature(made, eval_str=True).parameters
    except NameError as error:
        raise ExtensionError(f"must have annotations that exist, got {error} in {what}") from error
    stars = [str(p) for p in parameters.values() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    by_position = [key for key, p in parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(by_position) != len(given) or stars:
        asked = ", ".join([*given, *([further] if further else [])])
        got = ", ".join([*by_position, *stars]) or "no argument"
        raise ExtensionError(f"must take ({asked}), got ({got}) in {what}; options follow a *")
    return parameters
