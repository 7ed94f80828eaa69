"""gradient="reversible": a method of its own with the base's order, an exact gradient, and one state in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from neuralode_exp.models.images import ConvField
from neuralode_exp.ode import Adaptive, FixedStep, NonFiniteState, Reversible, SolverError, Stats, make_method, solve
from neuralode_exp.ode.field import VectorField
from neuralode_exp.ode.state import SingleState
from neuralode_exp.ode.steppers.reversible import ReversibleStepper
from neuralode_exp.ode.times import Stops
from neuralode_exp.ode.walk import Walk
from neuralode_exp.tracking.memory import SavedTensors
from tests.ode.problems import Z0, TimeMLP, adaptive, fixed, gradients

TIMES = [0.1, 0.35, 0.4, 1.0]


class Driven(nn.Module):
    """Nearly linear, driven, with eigenvalues rate +- i and a second rate beside it."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        matrix = torch.tensor([[rate, -1.0], [1.0, 1.2 * rate]], dtype=torch.float64)
        self.matrix = nn.Parameter(matrix)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return 0.1 * torch.tanh(z) + z @ self.matrix.mT + 0.3 * torch.sin(t)


def backprop(
    f: nn.Module,
    z0: Tensor,
    t: Sequence[float],
    method: FixedStep | Adaptive,
    coupling: float = 0.999,
    stops: Sequence[float] = (),
) -> Tensor:
    """The same steps under autograd."""
    method = replace(method, stepper=ReversibleStepper(method.stepper, coupling))
    walk = Walk(VectorField(f, z0, f), z0, t, method, Stats(), SingleState().norm, Stops(stops, t, z0.dtype))
    return walk.run()


@pytest.mark.parametrize("t", [TIMES, TIMES[::-1]], ids=["increasing", "decreasing"])
@pytest.mark.parametrize(
    "method",
    [
        fixed("euler", 0.05),
        fixed("midpoint", 0.07),
        fixed("rk4", 0.1),
        adaptive("bosh3", rtol=1e-4),
        adaptive("dopri5", rtol=1e-3),
        adaptive("dop853", rtol=1e-4),
        adaptive("dopri8", rtol=1e-4),
    ],
    ids=["euler", "midpoint", "rk4", "bosh3", "dopri5", "dop853", "dopri8"],
)
def test_it_is_the_gradient_of_its_steps(method: FixedStep | Adaptive, t: list[float]) -> None:
    f, z0 = TimeMLP(), Z0.clone().requires_grad_()
    inputs = (z0, *f.parameters())
    z = backprop(f, z0, t, method)
    solution = solve(f, z0, t, method, "reversible")
    assert torch.equal(solution.z, z)
    for found, exact in zip(gradients(solution.z, *inputs), gradients(z, *inputs), strict=True):
        assert torch.allclose(found, exact, rtol=1e-9, atol=1e-11)
    assert solution.stats.stored_states == 0
    assert solution.stats.reconstruction < 1e-10


@pytest.mark.parametrize("name", ["heun2", "heun3", "rk4"])
def test_its_order_is_the_bases(name: str) -> None:
    f, sizes, errors = TimeMLP(), [0.1, 0.05, 0.025], []
    exact = solve(f, Z0, [0.0, 1.0], make_method("dop853", rtol=1e-12)).z[-1]
    for dt in sizes:
        z = solve(f, Z0, [0.0, 1.0], make_method(name, step_size=dt), "reversible").z[-1]
        errors.append(float((z - exact).detach().abs().max()))
    order = fixed(name, 0.1).stepper.order
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.4)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.4)


@pytest.mark.parametrize("steps", [8, 64, 1024])
@pytest.mark.parametrize("rate_times_time", [-30.0, -3.0, -0.3, 0.0, 3.0])
def test_contracting_neutral_and_expanding_fields(rate_times_time: float, steps: int) -> None:
    span = 10.0 if steps > 8 else 1.0  # eight steps over ten units of time follow nothing
    f, z0 = Driven(rate_times_time / 10.0), Z0[:, :2].clone().requires_grad_()
    t, method = [0.0, 0.37 * span, span], make_method("midpoint", step_size=span / steps)
    inputs = (z0, f.matrix)
    exact = gradients(backprop(f, z0, t, method), *inputs)
    solution = solve(f, z0, t, method, "reversible")
    for found, wanted in zip(gradients(solution.z, *inputs), exact, strict=True):
        assert float((found - wanted).norm() / wanted.norm()) < 1e-9


def test_kept_states_go_with_the_contraction_and_not_with_the_steps() -> None:
    kept = {}
    for rate in (0.3, 3.0):
        for steps in (256, 1024):
            f = Driven(-rate)
            z = solve(f, Z0[:, :2], [0.0, 10.0], make_method("rk4", step_size=10.0 / steps), "reversible")
            kept[rate, steps] = z.stats.stored_states
    assert kept[0.3, 256] <= 1
    assert 2 <= kept[3.0, 256] <= 8
    assert abs(kept[3.0, 256] - kept[3.0, 1024]) <= 1


def test_a_wrong_estimate_costs_time_and_no_digits() -> None:
    """Nothing is kept in between, so that undoing the steps loses everything; backward takes them again."""
    f, z0 = Driven(-3.0), Z0[:, :2].clone().requires_grad_()
    t, method = [0.0, 10.0], make_method("midpoint", step_size=0.04)
    solution = solve(f, z0, t, method, Reversible(stored_states=0))
    found = gradients(solution.z, z0, f.matrix)
    exact = gradients(backprop(f, z0, t, method), z0, f.matrix)
    assert solution.stats.reconstruction > 1e-3
    assert solution.stats.nfe_backward > 2.5 * solution.stats.nfe_forward
    for g, wanted in zip(found, exact, strict=True):
        assert float((g - wanted).norm() / wanted.norm()) < 1e-9


def test_a_number_of_kept_states_is_spread_evenly() -> None:
    method = make_method("rk4", step_size=0.05)
    solution = solve(TimeMLP(), Z0, [0.0, 1.0], method, Reversible(stored_states=3))
    solution.z.sum().backward()
    assert solution.stats.stored_states == 3
    assert solution.stats.nfe_backward == solution.stats.nfe_forward == 20 * 8


def test_evaluations_are_twice_the_bases() -> None:
    fixed_steps = solve(TimeMLP(), Z0, [0.0, 0.5, 1.0], make_method("rk4", step_size=0.1), "reversible")
    fixed_steps.z.sum().backward()
    assert (fixed_steps.stats.nfe_forward, fixed_steps.stats.nfe_backward) == (80, 80)
    chosen = solve(TimeMLP(), Z0, [0.0, 1.0], make_method("dopri5", rtol=1e-4, first_step=0.1), "reversible")
    chosen.z.sum().backward()
    # Of a trial the two steps, of which the one ahead is closed for its error; a rejected one leaves its first stage.
    assert chosen.stats.nfe_forward == chosen.stats.trials * (6 + 6) + chosen.stats.accepted
    assert chosen.stats.nfe_backward == chosen.stats.accepted * 12


def test_one_pair_of_states_is_held() -> None:
    net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 8))
    state, held = 64 * 8 * 4, []
    for steps in (2, 16, 64):
        with SavedTensors(exclude=net) as probe:
            z0 = torch.ones(64, 8, requires_grad=True)
            z = solve(lambda t, z: net(z), z0, [0.0, 1.0], make_method("rk4", step_size=1 / steps), "reversible").z
            loss = z[-1].sum()
            probe.backward_starts()
            loss.backward()
        held.append(probe.saved_bytes)
    assert set(held) == {3 * state}  # the last pair, and z0, with which backward compares


@pytest.mark.parametrize("method", [make_method("rk4", step_size=0.25), make_method("dopri5", rtol=1e-3)])
def test_in_float32_it_is_exact_on_the_field_of_images(method: FixedStep | Adaptive) -> None:
    # Where no ReLU is within round-off of 0, as here: one that switches moves the gradient of backprop as much.
    torch.manual_seed(0)
    f, z0 = ConvField(8), torch.randn(4, 8, 6, 6, requires_grad=True)
    inputs = (z0, *f.parameters())
    exact = gradients(backprop(f, z0, [0.0, 1.0], method), *inputs)
    found = gradients(solve(f, z0, [0.0, 1.0], method, "reversible").z, *inputs)
    # Together: a bias before a norm has no gradient but round-off.
    g, wanted = (torch.cat([x.flatten() for x in of_all]) for of_all in (found, exact))
    assert (g - wanted).norm() < 1e-5 * wanted.norm()


def test_noise_is_drawn_again() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 6), nn.Dropout(0.3), nn.Tanh(), nn.Linear(6, 3)).double()
    f, z0 = nn.Module(), Z0.clone().requires_grad_()
    f.net = net
    f.forward = lambda t, z: net(z)  # type: ignore[method-assign]
    method, inputs = make_method("rk4", step_size=0.25), (z0, *net.parameters())
    torch.manual_seed(1)
    exact = gradients(backprop(f, z0, [0.0, 1.0], method), *inputs)
    torch.manual_seed(1)
    found = gradients(solve(f, z0, [0.0, 1.0], method, "reversible").z, *inputs)
    for g, wanted in zip(found, exact, strict=True):
        assert torch.allclose(g, wanted, rtol=1e-9, atol=1e-11)


def test_stops_tuples_and_captured_tensors() -> None:
    height = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    level = height * 1.0

    def pulse(t: Tensor, z: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        on = torch.where((t > 0.49) & (t < 0.51), level, torch.zeros_like(level))
        return on.expand(2), -z[1]

    z0 = (torch.zeros(2, dtype=torch.float64), torch.ones(3, dtype=torch.float64, requires_grad=True))
    method = make_method("dopri5", rtol=1e-6)
    z = solve(pulse, z0, [0.0, 1.0], method, "reversible", parameters=[level], stops=[0.49, 0.51]).z
    found = torch.autograd.grad(z[0][-1].sum() + z[1][-1].sum(), (height, z0[1]))
    assert z[0][-1].tolist() == pytest.approx([0.1, 0.1])
    assert float(found[0]) == pytest.approx(0.04, rel=1e-9)
    assert found[1].tolist() == pytest.approx([math.exp(-1.0)] * 3, rel=1e-5)


def test_an_f_that_changed_is_refused() -> None:
    f = Driven(-3.0)
    z = solve(f, Z0[:, :2], [0.0, 4.0], make_method("midpoint", step_size=0.04), "reversible").z
    f.matrix.data = f.matrix.data * 1.1
    with pytest.raises(ValueError, match="must be the same in backward as in the solve"):
        z.sum().backward()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`coupling` must be in \(0, 1\], got 1.5"):
        solve(TimeMLP(), Z0, [0.0, 1.0], make_method("rk4", step_size=0.1), Reversible(coupling=1.5))
    with pytest.raises(ValueError, match="`stored_states` must be >= 0 or None, got -1"):
        Reversible(stored_states=-1)
    with pytest.raises(ValueError, match="torchdiffeq has no gradient='reversible'"):
        solve(TimeMLP(), Z0, [0.0, 1.0], make_method("dopri5", engine="torchdiffeq"), "reversible")


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_adaptive_states_that_drift_apart_are_refused(tolerance: float, graph: bool) -> None:
    """z' = -3 (z - 1 - cos(3 t) / 2): y and z drift apart as exp(3 t), to 1e7, 1e4 and 16 at the end."""
    z0 = torch.full((1,), 3.0, dtype=torch.float64, requires_grad=graph)
    method = make_method("dopri5", rtol=tolerance)
    with torch.set_grad_enabled(graph), pytest.raises(SolverError, match="drifted apart"):
        solve(lambda t, z: -3.0 * (z - 1.0 - torch.cos(3.0 * t) / 2.0), z0, [0.0, 8.0], method, "reversible")


def test_a_solve_that_diverges_fails_as_in_the_other_gradients() -> None:
    z0 = torch.full((2,), 1.5, dtype=torch.float64, requires_grad=True)
    with pytest.raises(NonFiniteState):
        solve(lambda t, z: 40.0 * z, z0, [0.0, 100.0], make_method("rk4", step_size=0.05), "reversible")


@pytest.mark.parametrize("z0", [torch.zeros(3), torch.ones(0, 3), torch.tensor(1.0)], ids=["rest", "empty", "scalar"])
def test_states_without_a_size(z0: torch.Tensor) -> None:
    z0 = z0.double().requires_grad_()
    w = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    z = solve(lambda t, z: -w * z, z0, [0.0, 1.0], make_method("rk4", step_size=0.1), "reversible").z[-1]
    adj_z, adj_w = torch.autograd.grad(z.sum(), (z0, w))
    torch.testing.assert_close(adj_z, torch.full_like(z0, math.exp(-1.0)), rtol=1e-5, atol=0.0)
    torch.testing.assert_close(adj_w, -math.exp(-1.0) * z0.detach().sum(), rtol=1e-5, atol=1e-12)
