"""Systems against closed forms and conserved quantities, observations against their statistics, ranges refused."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.integrate import solve_ivp

from neuralode_exp.data.dynamics import NoRealLogarithm, least_squares_generator, make_dynamics
from neuralode_exp.data.systems import System, make_system
from neuralode_exp.registry import of_package

UNDRIVEN = [entry.name for entry in of_package("system") if not make_system(entry.name).inputs]
LINEAR = {
    "spiral-stable-focus": (((-1, -1), (1, -1)), [-1 + 1j, -1 - 1j]),
    "stable-node": (((-1, 0), (0, -2)), [-1, -2]),
    "circle": (((0, -1), (1, 0)), [1j, -1j]),
    "unstable": (((1, -1), (1, 1)), [1 + 1j, 1 - 1j]),
}


@pytest.mark.parametrize("name", UNDRIVEN)
def test_fixed_point_eigenvalues_and_vectorisation(name: str) -> None:
    system = make_system(name)
    assert system.fixed_point is not None
    assert system.eigenvalues is not None
    assert system.f(0.0, system.fixed_point).abs().max() < 1e-13

    z = torch.randn(3, 5, system.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    dz = system.f(torch.tensor(0.3), z)
    one_by_one = torch.stack([system.f(0.3, state) for state in z.flatten(0, 1)]).view_as(z)
    torch.testing.assert_close(dz, one_by_one)
    assert system.f(0.3, z.float()).dtype == torch.float32

    h = 1e-5  # central differences: error h^2
    columns = [
        (system.f(0.0, system.fixed_point + h * e) - system.f(0.0, system.fixed_point - h * e)) / (2 * h)
        for e in torch.eye(system.dim, dtype=torch.float64)
    ]
    finite = torch.linalg.eigvals(torch.stack(columns, -1))
    distance = (finite[:, None] - system.eigenvalues[None, :]).abs()
    assert distance.min(dim=0).values.max() < 1e-8


@pytest.mark.parametrize("name", LINEAR)
def test_linear_systems_follow_the_matrix_exponential(name: str) -> None:
    matrix, eigenvalues = LINEAR[name]
    system = make_system(name)
    assert system.matrix is not None
    assert system.eigenvalues is not None
    np.testing.assert_array_equal(system.matrix, matrix)
    np.testing.assert_allclose(
        np.sort_complex(system.eigenvalues.numpy()), np.sort_complex(np.array(eigenvalues)), atol=1e-15
    )
    data = make_dynamics(name, dtype=torch.float64, sampling="random", points=20)
    for observed, times in ((data.train.clean, data.t), (data.z_long, data.t_long)):
        maps = np.stack([scipy.linalg.expm(np.array(matrix) * t) for t in times.numpy()])
        exact = observed[0].numpy() @ maps.transpose(0, 2, 1)
        error = np.linalg.norm(observed.numpy() - exact, axis=-1)
        assert (error < 1e-12 * np.linalg.norm(exact, axis=-1)).all()  # of the state: its parts may cross 0


def test_two_foci_field() -> None:
    """The formula with matrices, as it is written in the docstring."""
    a, b, x0 = np.array([[-0.1, -0.5], [0.5, -0.1]]), np.array([[0.2, 1], [-1, 0.2]]), np.array([-1.0, 0.0])
    f = make_system("two-foci").f
    for z in np.random.default_rng(0).normal(size=(10, 2)) * 3:
        left, right = 1 / (1 + np.exp(-z @ x0)), 1 / (1 + np.exp(z @ x0))
        exact = left * a @ (z - x0) + right * b @ (z + x0)
        np.testing.assert_allclose(f(0.0, torch.from_numpy(z)), exact, rtol=0, atol=1e-14)


def test_lotka_volterra_keeps_its_first_integral() -> None:
    rates = {"alpha": 1.5, "beta": 1.0, "gamma": 3.0, "delta": 0.5}
    data = make_dynamics("lotka-volterra", dtype=torch.float64, t_max=5.0, trajectories=1, **rates)
    x, y = data.z_long.unbind(-1)
    v = rates["delta"] * x - rates["gamma"] * x.log() + rates["beta"] * y - rates["alpha"] * y.log()
    assert (v - v[0]).abs().max() < 1e-8  # rtol 1e-10 over a few periods
    torch.testing.assert_close(data.system.fixed_point, torch.tensor([6.0, 1.5], dtype=torch.float64))


@pytest.mark.parametrize("mu", [1.0, 20.0])
def test_van_der_pol_against_another_solver(mu: float) -> None:
    sizes = {"trajectories": 2, "validation": 0, "test": 1}
    data = make_dynamics("van-der-pol", mu=mu, points=10, t_max=5.0, dtype=torch.float64, **sizes)
    assert data.system.stiff == (mu == 20)

    def rhs(t: float, z: np.ndarray) -> list[float]:
        return [z[1], mu * (1 - z[0] ** 2) * z[1] - z[0]]

    for n in range(2):
        start, t = data.train.clean[0, n].numpy(), data.t.numpy()
        exact = solve_ivp(rhs, (0, t[-1]), start, "Radau", t, rtol=1e-8, atol=1e-10).y.T
        np.testing.assert_allclose(data.train.clean[:, n], exact, rtol=1e-5, atol=1e-6)


def test_van_der_pol_is_quick_to_make_when_stiff() -> None:
    data = make_dynamics("van-der-pol", mu=100.0, trajectories=3, validation=1, test=1)
    x = data.train.clean[..., 0]
    assert 1.9 < x.abs().max() < 2.1  # the relaxation cycle's amplitude is 2


def test_shapes_noise_and_initial_states() -> None:
    data = make_dynamics(
        "circle", trajectories=200, points=50, validation=3, test=5, noise=0.1, low=[1, -2], high=[2, 0]
    )
    assert data.t.shape == (50,)
    assert data.train.noisy.shape == (50, 200, 2)
    assert data.validation.clean.shape == (50, 3, 2)
    assert data.test.clean.shape == (50, 5, 2)
    assert data.z_long.shape == (99, 5, 2)
    torch.testing.assert_close(data.t_long[:50], data.t)
    torch.testing.assert_close(data.z_long[:50], data.test.clean, rtol=1e-6, atol=1e-6)
    assert all(tensor.dtype == torch.float32 for tensor in (data.t, data.train.clean, data.train.noisy, data.z_long))
    residual = data.train.noisy - data.train.clean
    assert residual.std().item() == pytest.approx(0.1, rel=0.02)  # 20,000 draws: 0.5 %
    assert residual.mean().abs() < 0.003
    x, y = data.train.clean[0].unbind(-1)
    assert x.min() >= 1
    assert x.max() <= 2
    assert y.min() >= -2
    assert y.max() <= 0
    assert x.std().item() == pytest.approx(1 / math.sqrt(12), rel=0.1)  # uniform


def test_sets_do_not_depend_on_each_other() -> None:
    base = make_dynamics("circle")
    other = make_dynamics("circle", validation=0, test=40)
    assert torch.equal(base.train.noisy, other.train.noisy)
    assert torch.equal(base.train.noisy, make_dynamics("circle").train.noisy)
    assert torch.equal(base.test.noisy, make_dynamics("circle", trajectories=7, validation=2).test.noisy)
    assert torch.equal(base.train.clean, make_dynamics("circle", noise=0.5).train.clean)
    assert torch.equal(base.train.clean[0], make_dynamics("circle", sampling="random").train.clean[0])
    assert not torch.equal(base.train.clean, make_dynamics("circle", seed=1).train.clean)
    starts = torch.cat((base.train.clean[0], base.validation.clean[0], base.test.clean[0]))
    assert len(starts.unique(dim=0)) == 64 + 16 + 16


def test_sets_do_not_share_the_steps_of_a_solver() -> None:
    base = make_dynamics("lotka-volterra", points=5, test=1)
    other = make_dynamics("lotka-volterra", points=5, test=1, validation=0)
    assert torch.equal(base.train.noisy, other.train.noisy)
    assert other.validation.clean.shape == (5, 0, 2)


@pytest.mark.parametrize("points", [2, 3, 100, 5000])
@pytest.mark.parametrize("sampling", ["regular", "random"])
def test_times_increase_from_0_to_t_max(points: int, sampling: str) -> None:
    t = make_dynamics("circle", trajectories=1, points=points, t_max=3.0, sampling=sampling).t
    assert t[0] == 0
    assert t[-1] == 3
    assert t.dtype == torch.float32
    assert (t.diff() > 0).all()
    if sampling == "random" and points > 1000:
        gaps = t.diff() / t.diff().mean()
        assert gaps.std().item() == pytest.approx(1, rel=0.1)  # of uniform times: exponential


@pytest.mark.parametrize("sampling", ["regular", "random"])
def test_long_unstable_trajectories_are_finite(sampling: str) -> None:
    data = make_dynamics("unstable", t_max=30.0, sampling=sampling)
    assert 1e13 < data.train.clean.abs().max() < 1e14
    assert data.train.noisy.square().isfinite().all()
    assert data.z_long.square().isfinite().all()
    assert 40 < data.t_long[-1] < 45  # not 60: exp(60) is beyond the range


@pytest.mark.parametrize("t_max", [50.0, 1e6])
@pytest.mark.parametrize(("precision", "limit"), [("float32", 43.5), ("float64", 354.0)])
def test_range_is_refused_with_the_largest_t_max(t_max: float, precision: str, limit: float) -> None:
    dtype = getattr(torch, precision)
    if t_max < limit:
        make_dynamics("unstable", t_max=t_max, dtype=dtype)
        return
    with pytest.raises(ValueError, match=r"^`t_max` must keep \|z\| below .* got .*; use at most t_max=") as refusal:
        make_dynamics("unstable", t_max=t_max, dtype=dtype)
    message = str(refusal.value)
    assert "\n" not in message
    assert message.endswith(" or precision=float64") == (precision == "float32")
    allowed = float(message.split("t_max=")[1].split()[0])
    assert 0.99 * limit < allowed < limit
    make_dynamics("unstable", t_max=allowed, dtype=dtype)
    with pytest.raises(ValueError, match="use at most"):
        make_dynamics("unstable", t_max=1.01 * allowed, dtype=dtype)


@pytest.mark.parametrize("stiff", [False, True])
def test_blow_up_in_finite_time_is_refused(stiff: bool) -> None:
    """z' = z^2 from z0 ends at t = 1 / z0."""
    system = System(lambda t, z: z * z, ((1.0, 2.0),), 3.0, stiff=stiff)
    with pytest.raises(ValueError, match="use at most t_max=") as refusal:
        make_dynamics(system, trajectories=5, validation=1, test=1)
    allowed = float(str(refusal.value).split("t_max=")[1].split()[0])
    assert 0.5 < allowed < 1
    data = make_dynamics(system, t_max=allowed, trajectories=5, validation=1, test=1)
    z0 = data.train.clean[:1, :, 0]
    # Close to the pole the relative error of 1 / (1 / z0 - t) is that of the time over the distance.
    early = data.t < 0.4
    torch.testing.assert_close(
        data.train.clean[early, :, 0], (z0 / (1 - z0 * data.t[:, None]))[early], rtol=1e-5, atol=0
    )


def test_linear_horizon_follows_the_matrix() -> None:
    """Four e-foldings of the dominant mode, at most one turn."""
    assert make_system("unstable").t_max == pytest.approx(4)
    assert make_system("unstable", matrix=[[3, -1], [1, 3]]).t_max == pytest.approx(4 / 3)
    assert make_system("unstable", matrix=[[1, 0], [0, -2]]).t_max == pytest.approx(4)
    assert make_system("circle").t_max == pytest.approx(2 * math.pi)
    assert make_system("circle", matrix=[[-0.01, -10], [10, -0.01]]).t_max == pytest.approx(0.2 * math.pi)
    assert make_system("circle", matrix=[[0, 0], [0, 0]]).t_max == 4
    data = make_dynamics("unstable", matrix=[[-1, 0, 0], [0, -2, 1], [0, -1, -2]])
    assert data.train.clean.shape == (100, 64, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t_max": 0.0}, "`t_max` must be a positive time, got 0.0"),
        ({"t_max": math.inf}, "`t_max` must be a positive time, got inf"),
        ({"points": 1}, "`points` must be at least 2, .* got 1"),
        ({"noise": -1.0}, "`noise` must be a standard deviation >= 0, got -1.0"),
        ({"sampling": "randon"}, "`sampling` must be one of regular, random, got 'randon'"),
        ({"trajectories": 0}, "`trajectories` must be at least 1, got 0"),
        ({"validation": -1}, "`validation` must be at least 0, got -1"),
        ({"test": 0}, "`test` must be at least 1, got 0"),
        ({"test_horizon": 0.5}, "`test_horizon` must be at least 1, .* got 0.5"),
        ({"low": 3.0}, r"`low` must be below `high`, both finite, got \[3.0, 3.0\] and \[2.0, 2.0\]"),
        ({"high": [1.0]}, r"`high` must be one number or 2, one for each dimension, got \[1.0\]"),
        ({"high": 1e20}, "must keep the initial states below .* choose a smaller box"),
        ({"matrix": [[1, 2, 3], [4, 5, 6]]}, "`matrix` must be square and finite, got .*; write it row by row"),
        ({"matrix": [[math.nan]]}, "`matrix` must be square and finite"),
    ],
)
def test_wrong_arguments(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_dynamics("circle", **change)


def test_wrong_systems() -> None:
    with pytest.raises(ValueError, match=r"unknown system 'circel'; did you mean 'circle'"):
        make_system("circel")
    with pytest.raises(ValueError, match=r"`beta` must be above 0, got 0.0"):
        make_system("lotka-volterra", beta=0.0)
    with pytest.raises(ValueError, match=r"`mu` must be at least 0, got -1.0"):
        make_system("van-der-pol", mu=-1.0)
    with pytest.raises(ValueError, match="mu must go with a system's name"):
        make_dynamics(make_system("van-der-pol"), mu=2.0)


@pytest.mark.parametrize("name", LINEAR)
def test_least_squares_recovers_the_matrix(name: str) -> None:
    exact = make_dynamics(name, noise=0.0, dtype=torch.float64)
    torch.testing.assert_close(
        least_squares_generator(exact.t, exact.train.noisy), exact.system.matrix, rtol=0, atol=1e-10
    )
    noisy = make_dynamics(name)
    a = least_squares_generator(noisy.t, noisy.train.noisy)
    assert (a - noisy.system.matrix).norm() < 0.03 * noisy.system.matrix.norm()  # 6,336 pairs, noise 0.01


def test_least_squares_of_a_defective_matrix() -> None:
    """[[-1, 1], [0, -1]] has one eigenvector only."""
    data = make_dynamics("stable-node", matrix=[[-1, 1], [0, -1]], noise=0.0, dtype=torch.float64)
    a = least_squares_generator(data.t, data.train.noisy)
    torch.testing.assert_close(a, data.system.matrix, rtol=0, atol=1e-6)


@pytest.mark.parametrize("eigenvalue", [-0.5, 0.0])
def test_least_squares_without_a_real_logarithm(eigenvalue: float) -> None:
    """z_{i+1} = M z_i with an eigenvalue <= 0 is no flow."""
    one_step = torch.tensor([[0.9, 0.0], [0.0, eigenvalue]], dtype=torch.float64)
    z = [torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))]
    for _ in range(3):
        z.append(z[-1] @ one_step.T)
    with pytest.raises(NoRealLogarithm, match=r"must have no eigenvalue <= 0 .* at dt=0.5; take more points"):
        least_squares_generator(torch.arange(4) * 0.5, torch.stack(z))


def test_least_squares_needs_regular_times() -> None:
    data = make_dynamics("circle", sampling="random")
    with pytest.raises(ValueError, match=r"`t` must be regular, .*; use sampling=regular"):
        least_squares_generator(data.t, data.train.noisy)


def test_the_fastest_decay_is_that_of_the_jacobian():
    states = torch.tensor([[2.0, 0.0], [0.5, 1.0]])
    assert make_system("stable-node").fastest_decay(states) == pytest.approx(2.0)
    assert make_system("unstable").fastest_decay(states) == 0.0
    # df/dz of van der Pol at (2, 0) is [[0, 1], [-1, -300]].
    assert make_system("van-der-pol", mu=100.0).fastest_decay(states) == pytest.approx(299.9967, abs=1e-3)


def test_the_exponent_of_lorenz_is_known_for_its_usual_constants_alone() -> None:
    assert make_system("lorenz").lyapunov == 0.9056
    assert make_system("lorenz", rho=10.0).lyapunov is None  # two stable fixed points
