import math

import pytest
import torch
from torch import Tensor

from neuralode_exp.data.densities import Checkerboard, Pinwheel, Torus, TwoCircles, TwoMoons, make_density
from neuralode_exp.data.gaussians import Gaussian
from neuralode_exp.data.target import Target
from neuralode_exp.registry import of_package, own

EXACT = ["eight-gaussians", "two-moons", "two-circles", "pinwheel", "checkerboard", "gaussians-3d", "gaussian"]
SAMPLED = [*EXACT, "torus"]


def cells(target: Target, n: int) -> tuple[Tensor, float]:
    """Midpoints of n^d equal cells of the box, shape (n^d, d), and the volume of one."""
    low, high = target.box
    ratio = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    axes = [low[i] + (high[i] - low[i]) * ratio for i in range(target.dim)]
    return torch.cartesian_prod(*axes), ((high - low) / n).prod().item()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", EXACT)
def test_density_integrates_to_one_over_its_box(name: str) -> None:
    target = make_density(name)
    midpoints, volume = cells(target, 200 if target.dim == 2 else 60)
    mass = target.log_prob(midpoints).exp().sum().item() * volume
    # The midpoint rule is exact to rounding for a smooth density with cells below half a standard deviation and
    # for the checkerboard, whose edges are edges of cells; what lies outside the box is about 1e-6.
    assert abs(mass - 1) < 2e-6


@pytest.mark.parametrize("name", EXACT)
def test_samples_fall_into_cells_as_often_as_the_density_says(name: str) -> None:
    target = make_density(name)
    n_samples, n_cells, n_fine = 100_000, 20 if target.dim == 2 else 8, 10 if target.dim == 2 else 8
    midpoints, volume = cells(target, n_cells * n_fine)
    mass = (target.log_prob(midpoints).exp() * volume).reshape((n_cells, n_fine) * target.dim)
    expected = n_samples * mass.sum(list(range(1, 2 * target.dim, 2))).flatten()

    low, high = target.box
    x = target.sample(n_samples, generator())
    index = ((x - low) / (high - low) * n_cells).long().clamp(0, n_cells - 1)
    flat = (index * n_cells ** torch.arange(target.dim - 1, -1, -1)).sum(1)
    counts = torch.bincount(flat, minlength=n_cells**target.dim).double()

    often = expected > 10
    rare = torch.stack((counts[~often].sum(), expected[~often].sum()))
    counts, expected = torch.cat((counts[often], rare[:1])), torch.cat((expected[often], rare[1:].clamp(min=1)))
    degrees = len(counts) - 1
    chi_square = ((counts - expected).square() / expected).sum().item()
    # Mean `degrees`, variance 2 `degrees`: four standard deviations.
    assert abs(chi_square - degrees) < 4 * math.sqrt(2 * degrees)


@pytest.mark.parametrize("name", [name for name in EXACT if name != "checkerboard"])  # it has steps
def test_gradient_of_log_density_has_zero_mean_over_samples(name: str) -> None:
    target = make_density(name)
    x = target.sample(20_000, generator(1)).requires_grad_()
    (score,) = torch.autograd.grad(target.log_prob(x).sum(), x)
    # E[grad log p] = int grad p = 0, five standard errors.
    assert (score.mean(0).abs() < 5 * score.std(0) / math.sqrt(len(x))).all()


@pytest.mark.parametrize("name", SAMPLED)
def test_box_holds_all_but_a_millionth_of_the_mass(name: str) -> None:
    target = make_density(name)
    x = target.sample(200_000, generator())
    outside = ((x < target.box[0]) | (x > target.box[1])).any(1).sum().item()
    # About 0.2 expected; 5 or more have a probability below 1e-5.
    assert outside < 5
    assert target.box.shape == (2, target.dim)


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_depend_on_the_generator_alone_and_dtype_only_rounds(name: str) -> None:
    target = make_density(name)
    torch.manual_seed(1)
    x = target.sample(100, generator(7))
    torch.manual_seed(2)
    assert x.shape == (100, target.dim)
    assert torch.equal(x, target.sample(100, generator(7)))
    assert torch.equal(x.float(), target.sample(100, generator(7), torch.float32))
    assert not torch.equal(x, target.sample(100, generator(8)))


@pytest.mark.parametrize("name", EXACT)
def test_float32_samples_have_a_finite_log_density(name: str) -> None:
    target = make_density(name)
    log_prob = target.log_prob(target.sample(20_000, generator(), torch.float32))
    assert log_prob.dtype == torch.float64
    assert log_prob.isfinite().all()


def test_two_circles_equal_a_quadrature_over_the_angle() -> None:
    target = TwoCircles(inner=0.5, outer=1.5, noise=0.2)
    x = target.sample(50, generator())
    # The trapezoidal rule converges geometrically for a periodic integrand.
    angle = torch.arange(400, dtype=torch.float64) * (2 * math.pi / 400)
    circle = torch.stack((angle.cos(), angle.sin()), 1)
    centres = torch.stack((0.5 * circle, 1.5 * circle))
    squares = (x[:, None, None, :] - centres).square().sum(-1)
    exact = (-squares / (2 * 0.2**2)).exp().mean((1, 2)) / (2 * math.pi * 0.2**2)
    torch.testing.assert_close(target.log_prob(x), exact.log(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("radius", "noise"), [(2.0, 0.2), (1.0, 0.02), (1.0, 3.0)])
def test_two_moons_do_not_depend_on_the_number_of_nodes(radius: float, noise: float) -> None:
    target = TwoMoons(radius, noise)
    x = cells(target, 15)[0]
    finer = TwoMoons(radius, noise / 4)
    finer.noise = noise
    # The accuracy that the class promises within ten standard deviations, a factor of e^-50.
    near = finer.log_prob(x) > finer.log_prob(x).max() - 50
    torch.testing.assert_close(target.log_prob(x)[near], finer.log_prob(x)[near], rtol=0, atol=1e-9)


def test_two_moons_are_symmetric_about_the_origin() -> None:
    target = make_density("two-moons")
    x = target.sample(100, generator())
    torch.testing.assert_close(target.log_prob(x), target.log_prob(-x), rtol=0, atol=1e-12)


def test_pinwheel_without_twist_is_a_mixture_of_turned_gaussians() -> None:
    target = Pinwheel(arms=2, radius=1.0, radial_std=0.3, tangential_std=0.1, rate=0.0)
    x = target.sample(50, generator())
    variances = torch.tensor([0.09, 0.01], dtype=torch.float64)
    arms = [
        torch.distributions.MultivariateNormal(torch.tensor([side, 0.0]).double(), variances.diag()).log_prob(x)
        for side in (1.0, -1.0)
    ]
    exact = torch.logaddexp(*arms) - math.log(2)
    torch.testing.assert_close(target.log_prob(x), exact, rtol=0, atol=1e-12)


def test_pinwheel_keeps_areas() -> None:
    target = make_density("pinwheel", rate=0.7)
    arm = torch.tensor(2)
    for u in target.sample(5, generator()):
        jacobian = torch.autograd.functional.jacobian(lambda u: target.twist(u, arm), u)
        assert jacobian.det().item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 5, 256])
def test_gaussian_has_the_covariance_it_says_in_any_dimension(dim: int) -> None:
    target = Gaussian(dim)
    i = torch.arange(dim, dtype=torch.float64)
    covariance = 0.5 ** (i[:, None] - i).abs()
    assert torch.linalg.cond(covariance) < 9
    x = target.sample(2000, generator())
    exact = torch.distributions.MultivariateNormal(torch.zeros(dim).double(), covariance).log_prob(x)
    torch.testing.assert_close(target.log_prob(x), exact, rtol=0, atol=1e-9)  # a Cholesky solve of size 256
    # The mean of n squared lengths x^T Sigma^-1 x: chi-square with d n degrees, five standard errors.
    squares = torch.linalg.solve(covariance, x.T).T.mul(x).sum().item()
    assert abs(squares - dim * len(x)) < 5 * math.sqrt(2 * dim * len(x))


def test_checkerboard_is_uniform_on_its_black_squares_and_zero_elsewhere() -> None:
    target = Checkerboard(side=0.5)
    x = torch.tensor(
        [[0.2, 0.2], [-0.2, -0.7], [0.7, -0.2], [0.2, -0.2], [1.1, 0.2], [-1.01, 0.0]], dtype=torch.float64
    )
    inside = -math.log(8 * 0.25)
    assert target.log_prob(x).tolist() == [inside, -math.inf, inside, -math.inf, -math.inf, -math.inf]


def test_torus_is_uniform_over_its_surface_and_has_no_density() -> None:
    target = Torus(major=1.5, minor=0.5, noise=1e-9)
    x = target.sample(100_000, generator())
    rho = x[:, :2].norm(dim=1)
    torch.testing.assert_close(
        (rho - 1.5).square() + x[:, 2].square(), torch.full((100_000,), 0.25).double(), rtol=0, atol=1e-7
    )
    # Mean of rho - major by area is minor^2 / (2 major), its deviation minor / sqrt(2); five standard errors.
    assert (rho - 1.5).mean().item() == pytest.approx(0.25 / 3, abs=5 * 0.5 / math.sqrt(2 * 100_000))
    assert target.log_prob(x) is None


@pytest.mark.parametrize("name", EXACT)
def test_far_points_have_no_nan(name: str) -> None:
    target = make_density(name)
    log_prob = target.log_prob(torch.full((1, target.dim), 1e3))
    assert (log_prob < -1e3).all()


def test_requests_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown density 'two-moon'; did you mean 'two-moons'\?"):
        make_density("two-moon")
    with pytest.raises(ValueError, match="unknown density 'x'; choose from eight-gaussians, two-moons"):
        make_density("x")
    with pytest.raises(ValueError, match="two-moons has no argument 'std'; it has radius, noise"):
        make_density("two-moons", std=0.1)
    with pytest.raises(ValueError, match="`minor` must be below `major`, got 2 and 1"):
        make_density("torus", major=1, minor=2)
    with pytest.raises(ValueError, match=r"must have shape \(n, 2\), got \(5, 3\)"):
        make_density("two-circles").log_prob(torch.zeros(5, 3))


@pytest.mark.parametrize("name", SAMPLED)
def test_scales_must_be_positive(name: str) -> None:
    for scale in own("density", name).options:
        if scale == "rate":  # its sign is the sense of the twist
            continue
        for value in (0.0, -1.0, math.nan):
            with pytest.raises(ValueError, match=f"`{scale}` must be (above 0|at least 1), got {value}"):
                make_density(name, **{scale: value})


def test_every_density_is_tested() -> None:
    assert set(SAMPLED) == {entry.name for entry in of_package("density")}
