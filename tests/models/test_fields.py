"""The MLP as a field of one network, and the units around a field."""

import math

import pytest
import torch
from torch import Tensor

from neuralode_exp.models.fields.mlp import ACTIVATIONS, MLPField
from neuralode_exp.models.fields.scaled import Scaled, Units

T0 = torch.tensor(0.0)


def states(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(99))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_equals_torch_layers(activation: str) -> None:
    field = MLPField(3, width=8, depth=2, activation=activation)
    h = expected = states(7, 3)
    for weight, bias in zip(field.weights, field.biases, strict=True):
        h = torch.nn.functional.linear(expected, weight.T, bias[0])
        expected = ACTIVATIONS[activation](h)
    torch.testing.assert_close(field(T0, states(7, 3)), h, rtol=1e-5, atol=1e-6)


def test_mlp_takes_any_batch() -> None:
    field, z = MLPField(2, width=8), states(4, 5, 2)
    each = torch.stack([field(T0, z_i) for z_i in z])
    torch.testing.assert_close(field(T0, z), each)
    torch.testing.assert_close(field(T0, z[0, 0]), each[0, 0])


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(0, 2 * 2 + 2), (1, (2 * 64 + 64) + (64 * 2 + 2)), (2, (2 * 64 + 64) + (64 * 64 + 64) + (64 * 2 + 2))],
)
def test_number_of_parameters(depth: int, expected: int) -> None:
    assert sum(p.numel() for p in MLPField(2, width=64, depth=depth).parameters()) == expected


def test_initial_range() -> None:
    for weight in MLPField(2, width=256).weights:
        bound = 1 / math.sqrt(weight.shape[0])
        assert 0.98 * bound < weight.abs().max() <= bound


def test_unknown_activations_are_refused() -> None:
    with pytest.raises(ValueError, match="`activation` must be one of tanh, softplus, silu, got 'relu'"):
        MLPField(2, activation="relu")


def test_units_scale_inputs_and_outputs() -> None:
    found = Units(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5]), torch.tensor([10.0, 0.1]))
    plain = MLPField(2)
    z = states(7, 2)
    expected = found.rate * plain(T0, (z - found.centre) / found.scale)
    torch.testing.assert_close(Scaled(plain, found)(T0, z), expected)
    torch.testing.assert_close(Scaled(plain, Units.none(2))(T0, z), plain(T0, z))
