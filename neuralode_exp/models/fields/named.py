"""The package's own vector fields, registered as a user's are. Their options are keys of `model` itself.

To add a field, write its class in this folder and a function here that makes it. The preflight imports this module and
does not need torch, so each function imports its class itself.
"""

from __future__ import annotations

from typing import Any

from neuralode_exp.extend import field


@field("mlp")
def mlp(dim: int, inputs: int, *, width: int = 64, depth: int = 2, activation: str = "silu") -> Any:
    """A multilayer perceptron. For densities its forward pass computes the trace too."""
    from neuralode_exp.models.fields.mlp import MLPField

    return MLPField(dim, inputs, width=width, depth=depth, activation=activation)


@field("hybrid")
def hybrid(dim: int, inputs: int, *, width: int = 64, depth: int = 2, activation: str = "silu") -> Any:
    """A known system, `model.system`, with learned constants, `model.free`, plus a network for what it lacks."""
    import torch

    network = mlp(dim, inputs, width=width, depth=depth, activation=activation)
    with torch.no_grad():  # at first the network adds nothing
        network.weights[-1].zero_()
        network.biases[-1].zero_()
    return network


@field("hamiltonian")
def hamiltonian(dim: int, *, width: int = 64, depth: int = 2, activation: str = "silu") -> Any:
    """dq/dt = dH/dp and dp/dt = -dH/dq with an MLP H, which stays constant. The state is q, then p."""
    from neuralode_exp.models.fields.hamiltonian import HamiltonianField

    return HamiltonianField(dim, width=width, depth=depth, activation=activation)


@field("linear")
def linear(dim: int, inputs: int) -> Any:
    """An affine field, A z + B u + b."""
    return mlp(dim, inputs, depth=0)
