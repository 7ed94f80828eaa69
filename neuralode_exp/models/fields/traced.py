"""Any vector field, with the trace of its Jacobian by forward-mode derivatives."""

import torch
from torch import Tensor, nn

from neuralode_exp.models.tangents import push_forward


class Traced(nn.Module):
    """dz/dt = field(t, z) for z of shape (n, d), each row by itself, with the Jacobian products that a flow needs.

    The products of the Jacobian with the probes come from one evaluation of the field on as many copies of z, each with
    its tangent (forward-mode differentiation: Griewank & Walther, Evaluating Derivatives, 2nd ed., Sec. 3.1).
    `FlowField` has the same methods in a faster form. Gradients flow to t, z and all that the field depends on.

    Args:
        field: called with a scalar t and a z of shape (rows, d).

    Example:
        >>> import torch
        >>> from neuralode_exp.models.fields.traced import Traced
        >>> class Decay(torch.nn.Module):
        ...     def forward(self, t, z):
        ...         return -z
        >>> z, unit_vectors = torch.ones(5, 3), torch.eye(3)[:, None]
        >>> Traced(Decay())(torch.tensor(0.0), z).shape
        torch.Size([5, 3])
        >>> Traced(Decay()).with_trace(torch.tensor(0.0), z, unit_vectors)[1]
        tensor([3., 3., 3., 3., 3.])
    """

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        dz: Tensor = self.field(t, z)
        return dz

    def with_jacobian(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate dz/dt, shape (n, d), and its Jacobian df_i/dz_j, shape (n, d, d), by d tangents."""
        dz, columns = self.with_products(t, z, torch.eye(z.shape[1], dtype=z.dtype, device=z.device)[:, None])
        return dz, columns.permute(1, 2, 0)

    def with_trace(self, t: Tensor, z: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate dz/dt = f, shape (n, d), and dlog p/dt = -sum_k v_k^T (df/dz) v_k, shape (n,).

        Args:
            t: time, a scalar.
            z: shape (n, d).
            probes: the v_k, shape (k, n, d), or (k, 1, d) if all rows share them.
        """
        dz, products = self.with_products(t, z, probes)
        return dz, -(products * probes).sum((0, 2))

    def with_products(self, t: Tensor, z: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate dz/dt, shape (n, d), and (df/dz) v_k, shape (k, n, d), for the probes v_k of `with_trace`."""
        shape = (len(probes), *z.shape)
        copies, tangents = (x.expand(shape).reshape(-1, z.shape[1]) for x in (z, probes))
        dz, products = push_forward(lambda z: self.field(t, z), (copies,), (tangents,))
        return dz.view(shape)[0], products.view(shape)
