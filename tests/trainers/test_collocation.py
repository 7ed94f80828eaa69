"""A start by collocation against a linear system, and the curvature of fields whose second derivative is known."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from neuralode_exp.models.fields.mlp import MLPField
from neuralode_exp.models.fields.scaled import Scaled, Units
from neuralode_exp.models.replicas import Replicas, stack
from neuralode_exp.run import run
from neuralode_exp.tracking.summary import read_summary
from neuralode_exp.trainers.dynamics.collocation import BETWEEN, BLOCK, MOST, collocate, smooth
from neuralode_exp.trainers.dynamics.curvature import curvature, weight_for

T = torch.arange(120.0) / 10
CIRCLE = torch.stack([torch.cos(T), torch.sin(T)], 1)


class Square(nn.Module):
    """(x^2, y) of states (x, y)."""

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return torch.stack([z[..., 0].square(), z[..., 1]], -1)


def generator() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(0)]


def test_smooth_curves_are_nearer_to_the_truth_than_the_noise() -> None:
    noisy = CIRCLE + 0.1 * torch.randn(CIRCLE.shape, generator=torch.Generator().manual_seed(0))
    noisy[40, 1] = torch.nan
    curves = smooth([T], [noisy])
    assert curves.z.shape == curves.dz.shape == (BETWEEN * (len(T) - 1) + 1, 2)
    assert curves.rows.tolist() == list(range(len(T)))
    assert float((curves.at_rows - CIRCLE).square().mean().sqrt()) < 0.05
    slopes = torch.stack([-CIRCLE[:, 1], CIRCLE[:, 0]], 1)
    assert float((curves.dz[::BETWEEN] - slopes).square().mean().sqrt()) < 0.15


def test_long_trajectories_are_smoothed_in_blocks_that_lie_evenly() -> None:
    n = 20 * MOST
    z = torch.arange(float(n))[:, None]
    curves = smooth([z[:, 0]], [z])
    assert len(curves.rows) == pytest.approx(MOST, rel=0.01)
    assert int(curves.rows[-1]) == n - 1
    assert sorted(set(curves.rows.diff().tolist()))[0] == 1
    assert len(curves.rows) % BLOCK == 0
    torch.testing.assert_close(curves.at_rows, z[curves.rows], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(curves.dz, torch.ones_like(curves.dz), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_field_is_fitted_to_the_slopes(replicas: int) -> None:
    torch.manual_seed(0)
    some = Replicas(replicas)
    one = torch.ones(2)
    field = Scaled(stack([MLPField(2, depth=0) for _ in range(replicas)], some), Units(0 * one, one, one))
    collocate(field, smooth([T], [CIRCLE]), 800, 0.0, 0, some)
    learned = field(torch.zeros(()), some.expand(CIRCLE))
    expected = torch.stack([-CIRCLE[:, 1], CIRCLE[:, 0]], 1).expand_as(learned)
    torch.testing.assert_close(learned, expected, rtol=0.03, atol=0.03)


def test_curvature_is_that_of_a_square_and_none_of_an_affine_field() -> None:
    one = torch.ones(2, dtype=torch.float64)
    units = Units(0 * one, one, one)
    z = CIRCLE.double()
    affine = Scaled(MLPField(2, depth=0).double(), units)
    assert float(curvature(affine, z, generator(), Replicas()).detach()) == pytest.approx(0, abs=1e-20)
    # d^2/dh^2 (x + h v_x)^2 = 2 v_x^2, of which the mean square over directions is 4 E cos^4 = 3/2, over two columns.
    draws = generator()
    found = [float(curvature(Scaled(Square(), units), z, draws, Replicas())) for _ in range(20)]
    assert sum(found) / 20 == pytest.approx(0.75, rel=0.05)


def test_lynx_and_hare_are_forecast_with_half_the_error_of_persistence(tmp_path: Path, compose) -> None:
    config = compose("dataset=csv", "dataset.path=lynx-hare.csv", "trainer.max_steps=40", "threads=1")
    run(config, tmp_path, config.model_dump(mode="json"))
    metrics = read_summary(tmp_path)["metrics"]
    assert metrics["dynamics/validation_error"] < 0.55 * metrics["dynamics/persistence_error"]
    assert metrics["nfe/forward"] < 40
    assert {"dynamics-forecast.png", "dynamics-learned_field.png"} <= {x.name for x in (tmp_path / "figures").iterdir()}


def test_one_column_has_a_picture_of_its_forecast(tmp_path: Path, compose) -> None:
    config = compose(
        "dataset=csv", "dataset.path=yeast.csv", "trainer.max_steps=2", "threads=1", "trainer.collocation=5"
    )
    run(config, tmp_path, config.model_dump(mode="json"))
    assert [x.name for x in (tmp_path / "figures").iterdir()] == ["dynamics-forecast.png"]


def test_the_prior_gives_way_to_observations() -> None:
    assert weight_for(8) == weight_for(16) == 1
    assert weight_for(160) == pytest.approx(0.01)
