"""What a user may register from a file of their own: fields, systems, densities and metrics, by name.

    python train.py extensions=[my_fields.py] model.field=damped model.options.damping=0.2

A name stands for a class or a function, its keyword-only arguments are options of the config. The package's own are
registered by the same calls, in modules without torch: the preflight reads this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, Union

from neuralode_exp.registry import Made, decorator

T = TypeVar("T")
Setting: TypeAlias = Union[T, Callable[..., T]]  # a value, or a function of the options that gives it  # noqa: UP007


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
    return decorator("field", name, {"on": on})


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
    settings: dict[str, Any] = {"dim": dim, "low": low, "high": high, "t_max": t_max, "stiff": stiff}
    settings |= {"numpy": numpy, "inputs": inputs, "start": start, "lyapunov": lyapunov, "energy": energy}
    return decorator("system", name, settings)


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
    return decorator("density", name, {"dim": dim})


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
    return decorator("metric", name, {"on": on})
