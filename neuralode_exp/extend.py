"""Decorators by which a user's file registers fields, systems, densities and metrics under a name.

    python train.py extensions=[my_fields.py] model.field=damped model.options.damping=0.2

A name stands for a class or a function. Its keyword-only arguments become options of the config. The package registers
its own fields, systems and densities by the same decorators. This module does not import torch, because the preflight
imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, Union

from neuralode_exp.registry import Made, decorator

T = TypeVar("T")
Setting: TypeAlias = Union[T, Callable[..., T]]  # a value, or a function of the options that gives it  # noqa: UP007


def field(name: str, *, on: Literal["vectors", "images"] = "vectors") -> Callable[[Made], Made]:
    """Register a class as a vector field dz/dt = f(t, z; theta): `model.field=NAME`, `model.options.KEY=VALUE`.

    The class is an `nn.Module`; a function that returns one will do as well. It is constructed with the number d of
    dimensions. The module is called with a scalar tensor t and a tensor z of shape (..., d), and returns dz/dt with the
    shape of z. The data are scaled to order 1. The field can be used for dynamics, for densities and with any number of
    replicas; for densities the trace of its Jacobian is computed by forward-mode derivatives. For densities t runs from
    0, the normal distribution, to 1, the data, and for images and labelled points from 0 to 1. For dynamics the field
    must not depend on t, because windows of trajectories are learned without their times: what changes with time is an
    input or a state. Only over whole trajectories, `trainer.shooting=single`, t is the time of the data.

    A field that needs the inputs u of the data, shape (..., inputs), is constructed with (dim, inputs) and called with
    (t, z, u).

    Args:
        name: the value of `model.field` that selects it.
        on: with `images` the class is constructed with the number of channels, and z has the shape (batch, channels,
            height, width).

    Raises:
        ExtensionError: the arguments of the class or of `forward` are not those above.

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
    lyapunov: Setting[float | None] = None,
    energy: Callable[..., Callable[[Any], Any]] | None = None,
) -> Callable[[Made], Made]:
    """Register a function as a known system dz/dt = f(t, z): `dataset=system dataset.system=NAME`.

    The function takes a scalar tensor t and a tensor z of shape (..., dim), float64 or float32, and returns dz/dt with
    the shape of z, computed with torch. Trajectories are solved with rtol 1e-10. Field and eigenvalue errors compare
    with the function itself. The program looks for a fixed point near the box, and recognises a linear system from
    values of f. The function must not depend on t unless whole trajectories are learned, `trainer.shooting=single`.

    Each argument from dim to stiff, and lyapunov, may also be a function of the options, as `t_max=lambda length: 6 *
    length**0.5`.

    Args:
        name: the value of `dataset.system` that selects it.
        dim: number of dimensions.
        low, high: the box of initial states, one number or one for each dimension. `dataset.low` and `dataset.high`
            replace them.
        t_max: length of a trajectory in units of t. `dataset.t_max` replaces it.
        stiff: whether the trajectories need an implicit method.
        numpy: whether the function also takes NumPy arrays, which makes a stiff solve many times as fast.
        inputs: range (low, high) of each input of a driven system dz/dt = f(t, z, u(t)). Every trajectory draws random
            inputs from them. The function takes (t, z, u), with u of shape (..., number of inputs).
        start: a state whose trajectory goes to an attractor. Initial states are then drawn from the attractor, not from
            the box.
        lyapunov: the largest Lyapunov exponent, in 1 / time. With it the run reports the valid prediction time. A
            function of the options may return None where the exponent is not known.
        energy: a conserved quantity whose least value is 0. It is given as a function of the options that returns a
            function of states (..., dim): `energy=lambda length: lambda z: ...`. With it the run reports how far the
            energy of learned trajectories drifts.

    Raises:
        ExtensionError: the arguments of the function are not those above.

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

    A function that returns such an object will do as well. Its method `sample(n, generator)` draws n points, shape
    (n, d). It may have a method `log_prob(x)` that returns log p(x) in nats, shape (n,), for points x of shape (n, d)
    in float64. With `log_prob` the run reports KL(p || q), where q is the density of the model.

    Args:
        name: the value of `dataset.density` that selects it.
        dim: the number of dimensions d; None: it is read from a sample.

    Raises:
        ExtensionError: there is no `sample`, or its arguments are not those above.

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
    """Register a function as a metric. Each run on that kind of data with the file in `extensions` records it.

    The function is called at each evaluation with the model, in evaluation mode and as `load_run` returns it, and with
    the held-out data:

    - dynamics: a list of trajectories, each with times `t`, shape (T,), and states `z` and `observed`, shape (T, n, d)
    - densities: points, shape (n, d)
    - images: a pair of normalised images, shape (n, c, h, w), and labels, shape (n,)
    - labels: a pair of points, shape (n, d), and labels, shape (n,)

    It returns one number, which is recorded under the name, or a mapping from tags to numbers. `objective=NAME`
    minimises it. With several replicas it is called for each, and their mean and standard deviation are recorded.

    Args:
        name: the tag.
        on: the kind of data.

    Raises:
        ExtensionError: the function does not take (model, data).

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
