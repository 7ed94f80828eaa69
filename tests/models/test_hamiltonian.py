"""A field that keeps an energy: its own along solutions, and the true one once it has learned."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from neuralode_exp.config import Config, ConfigError
from neuralode_exp.config.preflight import preflight
from neuralode_exp.data.systems import make_system
from neuralode_exp.models.fields.hamiltonian import HamiltonianField
from neuralode_exp.models.fields.mlp import ACTIVATIONS
from neuralode_exp.models.fields.scaled import Scaled, Units
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.models.replicas import Replicas, Stack
from neuralode_exp.ode import Gradient, make_method
from neuralode_exp.run import run
from neuralode_exp.tracking.summary import read_summary
from neuralode_exp.trainers.dynamics.metrics import energy_drift

T0 = torch.tensor(0.0)


def field(seed: int = 0, dim: int = 4, activation: str = "silu", depth: int = 2) -> HamiltonianField:
    torch.manual_seed(seed)
    made = HamiltonianField(dim, width=8, depth=depth, activation=activation).double()
    pairs = torch.arange(1.0, dim + 1).double()
    made.set_units(Units(0.1 * pairs, pairs, 1 / pairs.sqrt()))
    return made


def states(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(99), dtype=torch.float64)


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_is_that_of_autograd(activation: str, depth: int) -> None:
    network, z = field(activation=activation, depth=depth), states(3, 5, 4).requires_grad_()
    gradient = network.network.gradient(z)
    torch.testing.assert_close(gradient, torch.autograd.grad(network.energy(z).sum(), z)[0])
    torch.testing.assert_close(network.network.gradient(z[0, 0]), gradient[0, 0])


def test_in_the_units_of_the_data_it_keeps_its_energy_and_volumes() -> None:
    pairs = torch.arange(1.0, 5.0).double()
    units = Units(0.1 * pairs, pairs, 1 / pairs.sqrt())
    scaled = Scaled(field(), units)
    z = NeuralODE(scaled, make_method("dop853", rtol=1e-10, atol=1e-10))(states(6, 4), [0.0, 1.0, 20.0])
    energy = scaled.field.energy((z - units.centre) / units.scale)
    assert (z[-1] - z[0]).abs().amin(0).max() > 0.05
    torch.testing.assert_close(energy[1:], energy[:1].expand(2, -1), rtol=0, atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(lambda z: scaled(T0, z), states(4))
    j = torch.zeros(4, 4).double()
    j[:2, 2:], j[2:, :2] = torch.eye(2), -torch.eye(2)
    hessian = -j @ jacobian  # c times that of H: symmetric in the units of the data too
    torch.testing.assert_close(hessian, hessian.T)
    assert jacobian.trace().abs() < 1e-14


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint", "adjoint", "reversible"])
def test_gradients(gradient: Gradient) -> None:
    ode = NeuralODE(field(dim=2), make_method("rk4", step_size=0.02 if gradient == "adjoint" else 0.25), gradient)
    weights = [p for p in ode.parameters() if p.dim() == 2 and len(p) == 2]
    # The adjoint is the continuous one: as good as the steps are small.
    tolerance = 1e-5 if gradient == "adjoint" else 1e-7
    assert torch.autograd.gradcheck(
        lambda z, *_: ode(z, [0.0, 0.5])[-1], (states(2, 2).requires_grad_(), *weights), atol=tolerance
    )


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_each_replica_is_the_network_alone(gradient: Gradient) -> None:
    fields, replicas = [field(seed) for seed in (3, 4, 5)], Replicas(3)
    stacked = NeuralODE(Stack(copy.deepcopy(fields), replicas), make_method("rk4", step_size=0.25), gradient)
    z0 = states(3, 7, 4)
    z = stacked(z0, [0.0, 0.5, 1.0])
    z.square().sum().backward()
    gradients = {name: p.grad for name, p in stacked.field.stacked.named_parameters() if p.grad is not None}
    for k, one in enumerate(fields):
        alone = NeuralODE(one, stacked.method, gradient)
        z_k = alone(z0[k], [0.0, 0.5, 1.0])
        z_k.square().sum().backward()
        torch.testing.assert_close(z[:, k], z_k, rtol=0, atol=1e-13)
        for name, p in one.named_parameters():
            if p.grad is not None:  # the last bias moves no solution
                torch.testing.assert_close(gradients[name][k], p.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["pendulum", "spring"])
def test_true_trajectories_keep_the_energy(name: str) -> None:
    system = make_system(name)
    assert system.energy is not None
    z = system.flow(torch.tensor([[1.0, 0.3], [-0.5, 0.8]]), torch.linspace(0, 20, 50, dtype=torch.float64))
    assert energy_drift(system.energy(z)) < 1e-7
    assert float(system.energy(torch.zeros(2))) == 0.0
    assert energy_drift(torch.tensor([[1.0, 2.0], [1.5, 2.0], [1.0, 1.0]])) == pytest.approx(0.75 / 1.5)


def test_an_odd_number_of_dimensions_is_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        preflight(["dataset=lorenz", "model.field=hamiltonian"])
    assert str(caught.value).startswith("model.field=hamiltonian has as many momenta as coordinates")


@pytest.mark.parametrize("words", [("trainer.replicas=2",), ("model=resnet",)])
def test_a_run_says_how_far_the_energy_drifts(
    words: tuple[str, ...], tmp_path: Path, compose: Callable[..., Config]
) -> None:
    small = ("dataset.trajectories=8", "dataset.points=20", "dataset.test=2", "trainer.batch_size=32", "figures=false")
    config = compose("dataset=pendulum", "model.field=hamiltonian", "trainer.max_steps=3", *small, *words)
    (tmp_path / "run").mkdir()
    run(config, tmp_path / "run", config.model_dump(mode="json"))
    summary = read_summary(tmp_path / "run")
    assert summary is not None
    assert summary["metrics"]["dynamics/energy_drift"] > 0
