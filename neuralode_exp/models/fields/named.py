"""The package's own vector fields, registered as the user's are; their options are keys of `model` itself.

To add one, write its class in this folder and its function here. The preflight reads this module, so that torch is
imported when a field is made, not before.
"""

from __future__ import annotations

from typing import Any

from neuralode_exp.extend import field


@field("mlp")
def mlp(dim: int, inputs: int, *, width: int = 64, depth: int = 2, activation: str = "silu") -> Any:
    """A multilayer perceptron; of densities with a trace that its forward pass carries along."""
    from neuralode_exp.models.fields.mlp import MLPField

    return MLPField(dim, inputs, width=width, depth=depth, activation=activation)


@field("hybrid")
def hybrid(dim: int, inputs: int, *, width: int = 64, depth: int = 2, activation: str = "silu") -> Any:
    """A known system, `model.system`, whose constants in `model.free` are learned, and a network for what it lacks."""
    import torch

    network = mlp(dim, inputs, width=width, depth=depth, activation=activation)
    with torch.no_grad():  # nothing is lacking at first
        network.weights[-1].zero_()
        network.biases[-1].zero_()
    return network


@field("hamiltonian")
def hamiltonian(dim: int, *, width: int = 64, depth: int = 2, activation: str = "silu") -> Any:
    """dq/dt = dH/dp and dp/dt = -dH/dq with an MLP H, which is kept: the first half of the state is q, the second p."""
    from neuralode_exp.models.fields.hamiltonian import HamiltonianField

    return HamiltonianField(dim, width=width, depth=depth, activation=activation)


@field("linear")
def linear(dim: int, inputs: int) -> Any:
    """An affine field, A z + B u + b."""
    return mlp(dim, inputs, depth=0)
