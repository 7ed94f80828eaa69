"""What a user may register from a file of their own: fields, systems, densities and metrics, by name.

    python train.py extensions=[my_fields.py] model.field=damped model.options.damping=0.2

A name stands for a class or a function, its keyword-only arguments are options of the config. The package's own are
registered by the same calls, in modules without torch: the preflight reads this.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, Union

Kind = Literal["field", "system", "density", "metric"]
Made = TypeVar("Made", bound=Callable[..., Any])
T = TypeVar("T")
Setting: TypeAlias = Union[T, Callable[..., T]]  # a value, or a function of the options that gives it  # noqa: UP007

PACKAGE = Path(__file__).parent
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
# What it may be given further: the number of inputs, and their values.
INPUTS: dict[str, str] = {"field": "inputs", "system": "u", "forward": "u"}


class ExtensionError(ValueError):
    """The user's file cannot be used; the text names its line."""


@dataclass(frozen=True, eq=False)
class Registered:
    """What a name stands for.

    Args:
        kind, name: as registered.
        make: the class or function.
        options: its keyword-only arguments, with annotations that are types.
        settings: what else the decorator was given.
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
        """What the decorator was given, with these options where it is a function of them."""
        value = self.settings[key]
        if not callable(value):
            return value
        return value(**{name: options[name] for name in inspect.signature(value).parameters})


_registered: dict[Path, list[Registered]] = {}
_sources: dict[str, Callable[[str], None]] = {}


def field(name: str, *, on: Literal["vectors", "images"] = "vectors") -> Callable[[Made], Made]:
    """Register a class as a vector field dz/dt = f(t, z; theta): `model.field=NAME`, `model.options.KEY=VALUE`.

    It is an `nn.Module`, or a function that makes one. It is made with the number d of dimensions and called with a
    scalar tensor t and a tensor z of shape (..., d), and it gives dz/dt of z's shape. It sees the data in units of
    order 1. It serves dynamics and densities, there with the trace of its Jacobian by forward-mode derivatives, and any
    number of replicas. One that is made with (dim, inputs) and called with (t, z, u) sees the inputs u of the data,
    shape (..., inputs), where they have some.

    Args:
        name: of `model.field`.
        on: `images`: it is made with the number of channels, and z has the shape (batch, channels, height, width).

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
    return _decorator("field", name, {"on": on}, *_caller())


def system(
    name: str,
    *,
    dim: Setting[int],
    low: Setting[float | Sequence[float]] = -2.0,
    high: Setting[float | Sequence[float]] = 2.0,
    t_max: Setting[float] = 10.0,
    stiff: Setting[bool] = False,
    numpy: bool = False,
    inputs: Sequence[tuple[float, float]] = (),
    start: Sequence[float] | None = None,
    lyapunov: float | None = None,
    energy: Callable[..., Callable[[Any], Any]] | None = None,
) -> Callable[[Made], Made]:
    """Register a function as a known system dz/dt = f(t, z): `dataset=system dataset.system=NAME`.

    It gets a scalar tensor t and a tensor z of shape (..., dim), float64 or float32, and gives dz/dt of z's shape, by
    torch. Trajectories come from a solve at rtol 1e-10, the truth for field and eigenvalue errors from the function.
    A fixed point near the data is found, and a linear system is known by its values.

    Args, of which all but the name may be functions of the options, as `t_max=lambda length: 6 * length**0.5`:
        name: of `dataset.system`.
        dim: number of dimensions.
        low, high: the box of initial states, a number or one for each dimension, unless `dataset.low` says otherwise.
        t_max: length of a trajectory, unless `dataset.t_max` says otherwise.
        stiff: whether the trajectories need an implicit method.
        inputs: of a driven system dz/dt = f(t, z, u(t)) the range of each input, from which every trajectory draws its
            own. Its function takes (t, z, u), u of shape (..., number of inputs).
        start: a state that an attractor draws near; initial states are drawn from there, not from the box.
        lyapunov: its largest Lyapunov exponent, with which the run reports the valid prediction time.
        energy: what its trajectories keep, as a function of the options that gives a function of states (..., dim),
            `energy=lambda length: lambda z: ...`, 0 at its least. The run reports how far learned trajectories drift.
        numpy: whether the function takes arrays of NumPy too, with which a stiff solve is many times as fast.

    Example:
        A whole file, for `dataset=system dataset.system=swing dataset.options.length=2`:

            import torch
            from neuralode_exp.extend import system

            @system("swing", dim=2)
            def swing(t, z, *, length: float = 1.0):
                angle, speed = z.unbind(-1)
                return torch.stack((speed, -torch.sin(angle) / length), -1)
    """
    settings: dict[str, Any] = {
        "dim": dim,
        "low": low,
        "high": high,
        "t_max": t_max,
        "stiff": stiff,
        "numpy": numpy,
        "inputs": inputs,
    }
    settings |= {"start": start, "lyapunov": lyapunov, "energy": energy}
    return _decorator("system", name, settings, *_caller())


def density(name: str, *, dim: Setting[int] | None = None) -> Callable[[Made], Made]:
    """Register a class as a density: `dataset=density dataset.density=NAME`, `dataset.options.KEY=VALUE`.

    A function that makes an object of it will do as well.
    `sample(n, generator)` draws n points, shape (n, d), and `log_prob(x)`, where there is one, gives log p in nats,
    shape (n,), of points of shape (n, d) in float64; with it the run reports the divergence from the truth.

    Args:
        name: of `dataset.density`.
        dim: d; None: seen from a sample.

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
    return _decorator("density", name, {"dim": dim}, *_caller())


def metric(
    name: str, *, on: Literal["dynamics", "densities", "images", "labels"] = "dynamics"
) -> Callable[[Made], Made]:
    """Register a function as a metric: each run of that kind with the file in `extensions` records it.

    At each evaluation it gets the model in evaluation mode, as `load_run` gives it, and the held-out data: of dynamics
    a list of trajectories, each with times `t`, shape (T,), and states `z` and `observed`, shape (T, n, d); of
    densities points, shape (n, d); of images a pair of normalised images, shape (n, c, h, w), and labels, shape (n,);
    of labels a pair of points, shape (n, d), and labels. It gives a number, whose tag is the name, or a mapping from
    tags to numbers. `objective=NAME` minimises it. Of several replicas it gets one after the other, and the mean is
    recorded with the standard deviation.

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


def add_source(prefix: str, register: Callable[[str], None]) -> None:
    """Let a function register what is asked for by a name with this prefix, such as a system of another package."""
    _sources[prefix] = register


def ask_sources(name: str) -> None:
    """Let whoever has a name register it."""
    for prefix, register in _sources.items():
        if name.startswith(prefix):
            register(name)


def in_file(path: Path) -> list[Registered]:
    """Return what a file has registered."""
    return list(_registered.get(path, ()))


def forget(path: Path) -> None:
    """Drop what a file has registered."""
    _registered.pop(path, None)


def of_package(kind: Kind) -> list[Registered]:
    """Return the package's own of a kind."""
    own = (entry for path, found in _registered.items() if _is_inside(path, PACKAGE) for entry in found)
    return [entry for entry in own if entry.kind == kind]


@functools.cache
def _is_inside(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder)


def own(kind: Kind, name: str) -> Registered:
    """Return what a name of the package's stands for.

    Raises:
        ValueError: there is none.
    """
    names = [entry.name for entry in of_package(kind)]
    if name in names:
        return of_package(kind)[names.index(name)]
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names)}"
    raise ValueError(f"unknown {kind} {name!r}; {hint}")


def _caller() -> tuple[Path, int]:
    frame = sys._getframe(2)
    return Path(frame.f_code.co_filename), frame.f_lineno


def _decorator(kind: Kind, name: str, settings: Mapping[str, Any], file: Path, line: int) -> Callable[[Made], Made]:
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


def _parameters(kind: Kind, name: str, made: Callable[..., Any], place: str) -> Mapping[str, inspect.Parameter]:
    """Return all arguments; those by position must be those that the runner gives."""
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
    """Return all arguments; those by position must be as many as are given, and inputs by their name."""
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
