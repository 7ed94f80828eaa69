"""Segments, their units and noise, and the multiple-shooting loss against values worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from neuralode_exp.data.dynamics import make_dynamics
from neuralode_exp.models.fields.mlp import MLPField
from neuralode_exp.models.fields.scaled import Scaled, Units
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.models.replicas import Replicas, stack
from neuralode_exp.models.residual_flow import ResidualFlow
from neuralode_exp.ode import make_method
from neuralode_exp.trainers.dynamics.metrics import eigenvalue_error, relative_error
from neuralode_exp.trainers.dynamics.segments import Segments, cut, estimate_noise, units, windows_for
from neuralode_exp.trainers.dynamics.shooting import MultipleShooting, SingleShooting


class Shift:
    """z(t) = z0 + t."""

    def advance(self, z0: Tensor, duration: Tensor) -> Tensor:
        return z0 + duration

    def __call__(self, z0: Tensor, t: Tensor) -> Tensor:
        return z0 + (t - t[0]).view(-1, *[1] * z0.dim())


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_windows_are_told_by_the_data() -> None:
    t = torch.arange(601.0)
    wave = torch.stack([torch.sin(2 * math.pi * t / 60), 5 + torch.cos(2 * math.pi * t / 60)], 1)
    # The autocorrelation is 1/2 after a sixth of a period; lengths are tried in steps of a fifth.
    half, whole, twice = windows_for([wave[:300], wave[300:]])
    assert whole in (10, 11, 12)
    assert (half, twice) == (whole // 2, 2 * whole)
    wave[50, 0] = torch.nan
    assert windows_for([wave]) == (half, whole, twice)
    assert windows_for([torch.zeros(5, 1)]) == (2, 4)  # nothing moves: the whole of it


def test_segments_of_several_windows() -> None:
    segments = cut([torch.arange(3.0), torch.arange(2.0)], [torch.zeros(3, 1), torch.zeros(2, 1)], (1, 2))
    assert segments.start.tolist() == [0, 1, 0, 3]
    assert segments.end.tolist() == [1, 2, 2, 4]
    assert segments.duration.flatten().tolist() == [1, 1, 2, 1]


def test_segments_stay_in_their_trajectory() -> None:
    times = [torch.tensor([0.0, 1.0, 3.0, 4.0]), torch.tensor([10.0, 10.5]), torch.tensor([0.0, 0.1, 0.3])]
    states = [torch.arange(4.0)[:, None], torch.arange(4.0, 6.0)[:, None], torch.arange(6.0, 9.0)[:, None]]
    segments = cut(times, states, (2,))
    assert segments.start.tolist() == [0, 1, 4, 6]
    assert segments.end.tolist() == [2, 3, 5, 8]  # the second trajectory has one step only
    torch.testing.assert_close(segments.duration.flatten(), torch.tensor([3.0, 3.0, 0.5, 0.3]))
    assert segments.first.tolist() == [0, 4, 6]
    assert torch.equal(segments.z.flatten(), torch.arange(9.0))


def test_durations_are_taken_before_rounding() -> None:
    times = [torch.tensor([1.7e9, 1.7e9 + 1, 1.7e9 + 2], dtype=torch.float64)]  # seconds since 1970
    assert cut(times, [torch.zeros(3, 1)], (1,)).duration.flatten().tolist() == [1.0, 1.0]


def test_a_missing_cell_has_no_term_and_a_state_to_start_from() -> None:
    """dz/dt = 1 in both columns, and one cell in the middle of the second missing."""
    t = torch.arange(5.0, dtype=torch.float64)
    z = t[:, None] * torch.ones(2, dtype=torch.float64)
    with_gap = z.clone()
    with_gap[2, 1] = torch.nan
    segments = cut([t], [with_gap], (2,))
    assert torch.equal(segments.z, z)  # on the line between its neighbours
    assert segments.known.sum() == 9
    scale = Units(torch.zeros(2).double(), torch.ones(2).double(), torch.ones(2).double())
    torch.testing.assert_close(estimate_noise([with_gap]), torch.zeros(2).double(), rtol=0, atol=1e-6)
    shooting = MultipleShooting(segments, scale, 0.1)
    shooting.e.data[2, 1] = 7.0  # of the missing cell
    places = torch.arange(3)
    # From 0 to 2 the cell's end has no term, from 2 to 4 its start has none, but the state there misses by 7 spreads.
    miss = (7.0 * 1.0) / shooting.sigma[4, 1].item()
    expected = torch.tensor([0.0, 0.0, miss**2 / 2]).double().mean()
    torch.testing.assert_close(shooting(Shift(), places), expected)


def test_window_is_at_least_a_step() -> None:
    with pytest.raises(ValueError, match="`window` must be at least 1"):
        cut([torch.tensor([0.0, 1.0])], [torch.zeros(2, 1)], (0,))


def test_loss_by_hand() -> None:
    # Two states in units of sigma = hypot(noise, relative |x| scale) = hypot(0.3, 0.01 * 40) and hypot(0.3, 0.01 * 0).
    one = torch.ones(1)
    segments = Segments(
        z=torch.tensor([[40.0], [0.0]]),
        start=torch.tensor([0]),
        end=torch.tensor([1]),
        duration=torch.tensor([[2.0]]),
        first=torch.tensor([0]),
        known=torch.ones(2, 1, dtype=torch.bool),
    )
    loss = MultipleShooting(segments, Units(0 * one, one, one), noise=0.3, replicas=Replicas(2), relative=0.01)
    sigma = torch.tensor([[0.5], [math.hypot(0.3, 0.01 * 0.01)]])
    torch.testing.assert_close(loss.sigma, sigma)
    with torch.no_grad():
        loss.e[1] = torch.tensor([[2.0], [-1.0]])
    value = loss(Shift(), torch.zeros(2, 3, dtype=torch.long))
    misses = [42.0 / sigma[1, 0], (40 + 0.5 * 2 + 2) / sigma[1, 0] + 1]
    torch.testing.assert_close(value, torch.stack([misses[0] ** 2, misses[1] ** 2 + 2**2 + 1]))


def test_loss_of_a_replica_is_its_own() -> None:
    data = make_dynamics("circle", trajectories=8, points=20)
    states = list(data.train.noisy.transpose(0, 1))
    segments = cut([data.t] * 8, states, (5,))
    method = make_method("rk4", step_size=1.0)
    torch.manual_seed(0)
    fields, replicas = [MLPField(2, width=8) for _ in range(2)], Replicas(2)
    together = MultipleShooting(segments, units(segments), 0.01, replicas)
    drawn = together.draw(generators(5, 6), 16)
    losses = together(NeuralODE(stack(fields, replicas), method), drawn)
    losses.sum().backward()
    for k, field in enumerate(fields):
        alone = MultipleShooting(segments, units(segments), 0.01)
        assert torch.equal(alone.draw(generators(5 + k), 16), drawn[k])
        loss = alone(NeuralODE(field, method), drawn[k])
        loss.backward()
        # Sums of a batched product may run in another order.
        torch.testing.assert_close(losses[k], loss, rtol=1e-4, atol=0)
        torch.testing.assert_close(together.e.grad[k], alone.e.grad, rtol=1e-3, atol=1e-2)


def test_units_are_those_of_the_initial_states() -> None:
    data = make_dynamics("unstable", trajectories=500, noise=0.0)
    segments = cut([data.t] * 500, list(data.train.noisy.transpose(0, 1)), (5,))
    found = units(segments)
    # A uniform box of +-2; means of 500 scatter by 0.05.
    torch.testing.assert_close(found.centre, torch.zeros(2), rtol=0, atol=0.2)
    torch.testing.assert_close(found.scale, torch.full((2,), 2 / math.sqrt(3)), rtol=0.1, atol=0)
    # |dz/dt| = sqrt(2) |z| however large z has become, in each component once in two turns.
    torch.testing.assert_close(found.rate, found.scale, rtol=0.25, atol=0)


def test_units_of_one_trajectory_and_of_a_constant_column() -> None:
    z = torch.stack((torch.linspace(0, 10, 101), torch.full((101,), 3.0)), 1)
    found = units(cut([torch.linspace(0, 1, 101)], [z], (1,)))
    torch.testing.assert_close(found.centre, torch.tensor([5.0, 3.0]))
    torch.testing.assert_close(found.scale, torch.tensor([10 / math.sqrt(12), 1.0]), rtol=0.02, atol=0)
    assert found.rate[1] == 1.0


@pytest.mark.parametrize("name", ["spiral-stable-focus", "stable-node", "circle", "unstable", "lotka-volterra"])
def test_noise_is_estimated(name: str) -> None:
    data = make_dynamics(name, noise=0.01)
    estimate = estimate_noise(list(data.train.noisy.transpose(0, 1)))
    torch.testing.assert_close(estimate, torch.full((2,), 0.01), rtol=0.1, atol=0)


def test_noise_needs_five_observations() -> None:
    with pytest.raises(ValueError, match="5 observations"):
        estimate_noise([torch.zeros(4, 2)])


@pytest.mark.parametrize("kind", ["ode", "residual"])
def test_unstable_generator_is_learned(kind: str) -> None:
    torch.manual_seed(0)
    data = make_dynamics("unstable", noise=0.01)
    segments = cut([data.t] * 64, list(data.train.noisy.transpose(0, 1)), (5,))
    found = units(segments)
    field = Scaled(MLPField(2, depth=0), found)
    dt = float(data.t[1])
    flow = NeuralODE(field, make_method("rk4", step_size=0.5)) if kind == "ode" else ResidualFlow(field, dt)
    loss = MultipleShooting(segments, found, 0.01)
    optimizer = torch.optim.Adam([*field.parameters(), *loss.parameters()], lr=0.03)
    generator = generators(1)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 200)
        optimizer.zero_grad()
        loss(flow, loss.draw(generator, 256)).backward()
        optimizer.step()
    true = data.system.eigenvalues
    assert true is not None
    # Observations of 1 % noise at |z| = 1 and exact ones, so to say, at |z| = 50.
    assert eigenvalue_error(flow.eigenvalues(torch.zeros(2)), true) < 0.01
    if kind == "ode":
        z = data.train.clean.reshape(-1, 2)
        assert relative_error(field(torch.tensor(0.0), z), data.system.f(0.0, z)) < 0.01


def test_half_of_a_batch_is_drawn_by_length() -> None:
    # Nine segments of length 0 and one of length 1: chances 1/20 and 1/20 + 1/2.
    z = torch.zeros(11, 1)
    z[10] = 1.0
    one = torch.ones(1)
    loss = MultipleShooting(cut([torch.arange(11.0)], [z], (1,)), Units(0 * one, one, one), noise=0.1)
    drawn = loss.draw(generators(0), 100_000)
    fractions = torch.bincount(drawn, minlength=10) / 100_000
    # Standard deviations are below 0.0016.
    torch.testing.assert_close(fractions, torch.tensor([0.05] * 9 + [0.55]), rtol=0, atol=0.008)


def test_single_shooting_compares_whole_trajectories_with_what_was_observed() -> None:
    t = torch.tensor([0.0, 1.0, 3.0])
    z = torch.tensor([[[0.0], [5.0]], [[1.5], [6.0]], [[3.0], [10.0]]])  # (T, N, d); z0 + t misses by -0.5 and -2
    loss = SingleShooting(t, z)
    assert len(loss) == 2
    assert not list(loss.parameters())
    both = SingleShooting(t, z, Replicas(2))(Shift(), torch.tensor([[0], [1]]))
    torch.testing.assert_close(both, torch.tensor([0.25 / 3, 4.0 / 3]))


def test_single_shooting_draws_each_trajectory_once_at_most() -> None:
    loss = SingleShooting(torch.zeros(2), torch.zeros(2, 5, 1), Replicas(2))
    assert loss.draw(generators(0, 1), 100).sort(dim=1).values.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert all(len(set(drawn.tolist())) == 3 for drawn in loss.draw(generators(0, 1), 3))
