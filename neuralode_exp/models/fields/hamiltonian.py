"""A field that conserves an energy, whatever its weights are."""

import torch
from torch import Tensor, nn

from neuralode_exp.models.fields.mlp import MLPField
from neuralode_exp.models.fields.scaled import Units


class HamiltonianField(nn.Module):
    """dq/dt = dH/dp, dp/dt = -dH/dq, for z = (q, p) of shape (..., d) and an MLP H.

    H is constant along solutions, and the flow preserves volumes: the divergence of the field is 0.

    References: Greydanus, Dzamba & Yosinski 2019, https://arxiv.org/abs/1906.01563. They fit dz/dt; here trajectories
    are fitted, as for other fields.

    Args:
        dim: d, even. The coordinates q come first, then as many momenta p in the same order.
        width, depth, activation: those of the MLP, see `MLPField`.

    Raises:
        ValueError: d is odd.

    Example:
        >>> import torch
        >>> from neuralode_exp.models.fields.hamiltonian import HamiltonianField
        >>> HamiltonianField(4)(torch.tensor(0.0), torch.zeros(10, 4)).shape
        torch.Size([10, 4])
    """

    pace: Tensor

    def __init__(self, dim: int, *, width: int = 64, depth: int = 2, activation: str = "silu") -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"`dim` must be even, coordinates and as many momenta, got {dim}; take another field")
        self.network = MLPField(dim, width=width, depth=depth, activation=activation, outputs=1)
        self.register_buffer("pace", torch.ones(1, dim))

    def set_units(self, units: Units) -> None:
        """Make the field Hamiltonian in the units of the data, which `Scaled` wraps around it.

        For states z = centre + scale x this means dq/dt = c (dH/dx_p) / scale_p and dp/dt = -c (dH/dx_q) / scale_q with
        one constant c. c is chosen so that the field's value, dz/dt over `rate`, is of order 1.
        """
        q, p = units.scale.chunk(2)
        size = torch.cat((p, q)) * units.rate
        self.pace = (size.log().mean().exp() / size)[None].to(self.pace)

    def energy(self, z: Tensor) -> Tensor:
        """Evaluate H, shape (...)."""
        return self.network(z.new_zeros(()), z)[..., 0]

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """Evaluate dz/dt at z; t is not used."""
        of_q, of_p = self.network.gradient(z).chunk(2, -1)
        return torch.cat((of_p, -of_q), -1) * (self.pace if self.pace.dim() == 3 else self.pace[0])
