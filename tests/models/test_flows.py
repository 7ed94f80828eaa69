import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from neuralode_exp.models.fields.flow import FlowField
from neuralode_exp.models.flows import Flow
from neuralode_exp.ode import make_method, solve

TIGHT = make_method("dopri8", rtol=1e-10, atol=1e-12)
T = torch.tensor(0.3, dtype=torch.float64)


def field(dim: int, depth: int, width: int = 5, fourier: bool = False) -> FlowField:
    torch.manual_seed(dim + 10 * depth)
    return FlowField(dim, width, depth, fourier=fourier).double()


def unit_vectors(dim: int) -> Tensor:
    return torch.eye(dim, dtype=torch.float64)[:, None, :]


def flow(dim: int = 2, **settings: object) -> Flow:
    """A flow whose field is far from linear."""
    torch.manual_seed(0)
    made = Flow(dim, **{"width": 16, "depth": 2, "method": TIGHT, **settings}).double()
    with torch.no_grad():
        for layer in made.field.layers:
            layer.weight.mul_(2.0)
    return made


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(n: int, dim: int = 2) -> Tensor:
    return torch.randn(n, dim, generator=generator(1), dtype=torch.float64)


def jacobians(f: FlowField, z: Tensor) -> Tensor:
    return torch.stack([torch.autograd.functional.jacobian(lambda z: f(T, z[None])[0], z_i) for z_i in z])


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("fourier", [False, True])
def test_exact_trace_is_the_trace_of_the_jacobian(dim: int, depth: int, fourier: bool) -> None:
    f, z = field(dim, depth, fourier=fourier), points(4, dim)
    trace = jacobians(f, z).diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(f.with_trace(T, z, unit_vectors(dim)), (f(T, z), -trace), rtol=0, atol=1e-14)


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("fourier", [False, True])
def test_jacobian_by_tangents_is_that_of_autograd(depth: int, fourier: bool) -> None:
    f, z = field(3, depth, fourier=fourier), points(4, 3)
    dz, jacobian = f.with_jacobian(T, z)
    torch.testing.assert_close(dz, f(T, z), rtol=0, atol=1e-14)
    torch.testing.assert_close(jacobian, jacobians(f, z), rtol=0, atol=1e-14)


def test_field_is_an_mlp_with_time_as_an_input() -> None:
    f, z = field(2, 2), points(4)
    first, second, last = f.layers
    weight = torch.cat((first.weight, f.time_weight[:, None]), 1)
    h = torch.tanh(torch.cat((z, T.expand(4, 1)), 1) @ weight.T + first.bias)
    torch.testing.assert_close(f(T, z), last(torch.tanh(second(h))), rtol=0, atol=1e-14)


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("fourier", [False, True])
def test_the_trace_that_is_compiled_is_the_same(depth: int, fourier: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    f, z = field(3, depth, fourier=fourier), points(4, 3)
    expected = f.with_trace(T, z, unit_vectors(3))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(f.with_trace(T, z, unit_vectors(3)), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("fourier", [False, True])
def test_gradients_of_derivative_and_trace(depth: int, per_row: bool, fourier: bool) -> None:
    f, z = field(3, depth, fourier=fourier), points(4, 3).requires_grad_()
    probes = points(4, 3)[None] if per_row else unit_vectors(3)
    assert torch.autograd.gradcheck(lambda z, *_: f.with_trace(T, z, probes), (z, *f.parameters()))


@pytest.mark.parametrize("dim", [2, 3])
def test_hutchinson_estimate_averages_to_the_trace_over_all_signs(dim: int) -> None:
    f, z = field(dim, 2), points(4, dim)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=dim)), dtype=torch.float64)
    estimates = torch.stack([f.with_trace(T, z, v.expand(1, 4, dim))[1] for v in signs])
    exact = f.with_trace(T, z, unit_vectors(dim))[1]
    torch.testing.assert_close(estimates.mean(0), exact, rtol=0, atol=1e-14)
    assert estimates.std(0).min() > 1e-3


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_hutchinson_log_density_is_unbiased_in_training_and_exact_in_evaluation(noise: str) -> None:
    rk4 = make_method("rk4", step_size=0.25)
    estimator, exact = flow(trace="hutchinson", noise=noise, method=rk4), flow(method=rk4)
    x = points(1)
    with torch.no_grad():
        estimates = estimator.log_prob(x.expand(10_000, 2))
    truth = exact.log_prob(x).item()
    # Five standard errors.
    assert estimates.mean().item() == pytest.approx(truth, abs=5 * estimates.std().item() / math.sqrt(10_000))
    assert estimates.std() > 1e-2
    assert estimator.eval().log_prob(x).item() == truth


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_noise_is_drawn_once_per_solve(noise: str) -> None:
    estimator, x = flow(trace="hutchinson", noise=noise), points(5)
    torch.manual_seed(3)
    estimator.log_prob(x)
    after_solve = torch.get_rng_state()
    torch.manual_seed(3)
    torch.randn_like(x)
    assert torch.equal(after_solve, torch.get_rng_state())


@pytest.mark.parametrize("dim", [2, 3])
def test_change_of_log_density_is_that_of_the_volume(dim: int) -> None:
    made, z0 = flow(dim), points(3, dim)
    step = 1e-4
    shifts = torch.cat((z0[:, None] + step * torch.eye(dim), z0[:, None] - step * torch.eye(dim)), 1)
    with torch.no_grad():
        ends = solve(made.field, shifts.reshape(-1, dim), [0.0, 1.0], TIGHT).z[-1].reshape(3, 2, dim, dim)
        x = solve(made.field, z0, [0.0, 1.0], TIGHT).z[-1]
        log_prob = made.log_prob(x)
    volume = ((ends[:, 0] - ends[:, 1]) / (2 * step)).det()
    base = -z0.square().sum(1) / 2 - dim / 2 * math.log(2 * math.pi)
    # Central differences: step^2 times third derivatives of order 10.
    torch.testing.assert_close(log_prob, base - volume.log(), rtol=0, atol=1e-6)


def test_linear_field_gives_the_gaussian_of_the_matrix_exponential() -> None:
    made = flow(depth=0)
    (layer,) = made.field.layers
    a, b, c = layer.weight.detach(), layer.bias.detach(), made.field.time_weight.detach()
    # The mean follows dm/dt = a m + b + c t: a linear system in (m, 1, t).
    system = torch.zeros(4, 4, dtype=torch.float64)
    system[:2] = torch.cat((a, b[:, None], c[:, None]), 1)
    system[3, 2] = 1.0
    mean = torch.linalg.matrix_exp(system)[:2, 2]
    factor = torch.linalg.matrix_exp(a)
    truth = torch.distributions.MultivariateNormal(mean, factor @ factor.T)
    x = points(50)
    torch.testing.assert_close(made.log_prob(x), truth.log_prob(x), rtol=0, atol=1e-8)
    z0, z1 = made.path(50, [0.0, 1.0], generator())
    torch.testing.assert_close(z1, mean + z0 @ factor.T, rtol=0, atol=1e-8)


def test_density_integrates_to_one() -> None:
    made = flow(method=make_method("rk4", step_size=0.125))
    axis = torch.linspace(-8, 8, 81, dtype=torch.float64)
    with torch.no_grad():
        mass = made.log_prob(torch.cartesian_prod(axis, axis)).exp().sum().item() * 0.2**2
    # A smooth density that has decayed at the edges: the rectangle rule converges geometrically.
    assert mass == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("dim", [2, 3])
def test_samples_carry_the_log_density_that_the_other_solve_finds(dim: int) -> None:
    made = flow(dim)
    x, log_prob = made.sample_with_log_prob(20, generator())
    # Two solves at rtol 1e-10.
    torch.testing.assert_close(made.log_prob(x), log_prob, rtol=0, atol=1e-7)
    torch.testing.assert_close(made.sample(20, generator()), x, rtol=0, atol=1e-7)


def test_path_leads_from_the_base_to_the_samples() -> None:
    made = flow()
    path = made.path(20, [0.0, 0.5, 1.0], generator())
    base = torch.randn(20, 2, generator=generator(), dtype=torch.float64)
    assert path.shape == (3, 20, 2)
    assert torch.equal(path[0], base)
    torch.testing.assert_close(path[-1], made.sample(20, generator()), rtol=0, atol=1e-7)


def test_precisions_draw_the_same_samples() -> None:
    made = flow(method=make_method("rk4", step_size=0.25))
    x = made.sample(20, generator())
    torch.testing.assert_close(made.float().sample(20, generator()), x.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_gradients_agree_with_backpropagation(gradient: str, trace: str) -> None:
    x = points(8)
    gradients = []
    for how in ("backprop", gradient):
        made = flow(trace=trace, gradient=how)
        torch.manual_seed(5)
        made.log_prob(x).mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in made.parameters()]))
    # checkpoint repeats the same arithmetic; the adjoint is another solve at rtol 1e-10.
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12 if gradient == "checkpoint" else 1e-7)


class Shrinking(nn.Module):
    """dz/dt = -rate z without parameters, which leads the standard normal to N(0, exp(-2 rate))."""

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.rate: object = 0.7
        if dtype:
            del self.rate
            self.register_buffer("count", torch.zeros((), dtype=torch.long))
            self.register_buffer("rate", torch.tensor(0.7, dtype=dtype))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return -self.rate * z


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_a_field_without_parameters_is_sampled(dtype: torch.dtype | None) -> None:
    model = Flow(2, field=Shrinking(dtype), method=make_method("rk4", step_size=0.05))
    x, log_prob = model.sample_with_log_prob(5, generator())
    assert x.dtype == (dtype or torch.get_default_dtype())
    shrunk = math.exp(-0.7)
    torch.testing.assert_close(x, shrunk * model.base(5, generator()))
    exact = -(x / shrunk).square().sum(1) / 2 - math.log(2 * math.pi * shrunk**2)
    torch.testing.assert_close(log_prob, exact)


def test_evaluations_are_counted() -> None:
    made = flow(method=make_method("rk4", step_size=0.25), gradient="checkpoint")
    made.log_prob(points(8)).mean().backward()
    assert (made.stats.nfe_forward, made.stats.nfe_backward, made.stats.accepted) == (16, 12, 4)
    made.sample(8, generator())
    assert (made.stats.nfe_forward, made.stats.nfe_backward) == (16, 0)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="`trace` must be exact or hutchinson, got 'skilling'"):
        flow(trace="skilling")
    with pytest.raises(ValueError, match="`noise` must be rademacher or gaussian, got 'uniform'"):
        flow(noise="uniform")
    with pytest.raises(ValueError, match=r"`x` must have shape \(n, 2\), got \(4, 3\)"):
        flow().log_prob(torch.zeros(4, 3))
    for times in ([], [0.5, 1.0], [0.0, 2.0]):
        with pytest.raises(ValueError, match="`times` must start at 0 and stay below or at 1, got"):
            flow().path(1, times, generator())
