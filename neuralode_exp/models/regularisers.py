"""Penalties on solutions that are expensive to solve for: integrals int_0^T g(t, z) dt for `NeuralODE.integrals`.

Each function takes the field f, the initial states of a solve and the number of axes of one state, and returns the
integrand g. z has shape (..., *state), and an integral has shape (...).

`jacobian` and `taylor` evaluate f once more for each dz/dt of the solver. The counts of a solve leave these evaluations
out. So they say how hard a field is to solve, with a penalty or without.
"""

import torch
from torch import Tensor

from neuralode_exp.models.neural_ode import Integrand, VectorField
from neuralode_exp.models.tangents import push_forward


def kinetic(f: VectorField, z0: Tensor, axes: int = 1) -> Integrand:
    """g = |dz/dt|^2: how fast states move (Finlay et al. 2020, https://arxiv.org/abs/2002.02798, eq. 4)."""
    return lambda t, z, dz: squared_norm(dz, axes)


def jacobian(f: VectorField, z0: Tensor, axes: int = 1) -> Integrand:
    """g = |v^T df/dz|^2, one v ~ N(0, I) per solve; its mean over v is the Frobenius norm |df/dz|^2 (ibid., eq. 8)."""
    v = torch.randn(z0.shape, dtype=z0.dtype, device=z0.device)

    def integrand(t: Tensor, z: Tensor, dz: Tensor) -> Tensor:
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            (product,) = torch.autograd.grad(f(t, z), z, v, create_graph=differentiable, materialize_grads=True)
        return squared_norm(product, axes)

    return integrand


def taylor(f: VectorField, z0: Tensor, axes: int = 1) -> Integrand:
    """g = |d^2z/dt^2|^2 = |df/dt + (df/dz) f|^2: how much paths bend or change their speed (Kelly et al. 2020,
    https://arxiv.org/abs/2007.04504, Sec. 3, order 2). It is a forward-mode derivative of f along (1, f).
    """

    def integrand(t: Tensor, z: Tensor, dz: Tensor) -> Tensor:
        lower = torch.is_autocast_enabled(z.device.type)
        z = z.contiguous()  # an expanded tensor, as one state for several networks, takes no tangent
        # A convolution under autocast fails on a tensor with a tangent (torch 2.13): its tangent keeps the dtype of z.
        with torch.autocast(z.device.type, enabled=False):
            velocity = f(t, z) if lower else dz
            _, acceleration = push_forward(f, (t, z), (torch.ones_like(t), velocity))
        return squared_norm(acceleration, axes)

    return integrand


def squared_norm(x: Tensor, axes: int) -> Tensor:
    """Return |x|^2 over the last `axes` axes."""
    return x.square().flatten(-axes).sum(-1)


# Each by the key of `trainer` that has its weight.
REGULARISERS = {"kinetic": kinetic, "jacobian": jacobian, "taylor": taylor}
