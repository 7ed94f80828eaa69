"""Errors of learned dynamics against values worked out by hand."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from neuralode_exp.data.observed import Scale, scale_of
from neuralode_exp.trainers.dynamics.metrics import eigenvalue_error, relative_error, spread_error, trajectory_error


def test_relative_error_is_over_all_samples() -> None:
    true = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    learned = torch.stack((true, true + torch.tensor([[0.0, 0.3], [0.4, 0.0]])))
    torch.testing.assert_close(relative_error(learned, true).float(), torch.tensor([0.0, 0.1]))


def test_errors_of_huge_states_do_not_overflow() -> None:
    true = torch.full((2, 2), 1e30)
    torch.testing.assert_close(relative_error(1.01 * true[None], true).float(), torch.tensor([0.01]), rtol=1e-4, atol=0)


def test_trajectories_count_alike_at_any_size() -> None:
    true = torch.ones(5, 2, 3) * torch.tensor([1.0, 1e6])[:, None]  # two trajectories, five times
    learned = true[:, None] * torch.tensor([1.1, 1.3])[:, None]
    torch.testing.assert_close(trajectory_error([(learned, true)]).float(), torch.tensor([0.2]))


def test_eigenvalues_are_matched() -> None:
    true = torch.tensor([1 + 1j, 1 - 1j], dtype=torch.complex128)
    learned = torch.tensor([[1 - 1j, 1 + 1j], [1 - 1j, 1.1 + 1j], [2, 1]], dtype=torch.complex128)
    expected = torch.tensor([0.0, 0.1, 2**0.5], dtype=torch.float64) / 2**0.5
    torch.testing.assert_close(eigenvalue_error(learned, true), expected)


def test_eigenvalues_that_are_not_finite_are_infinitely_wrong() -> None:
    true = torch.tensor([1.0, 2.0], dtype=torch.complex128)
    learned = torch.tensor([[torch.nan, 1.0], [2.0, 1.0]], dtype=torch.complex128)
    assert eigenvalue_error(learned, true).tolist() == [torch.inf, 0.0]


def test_spread_error_is_a_root_mean_square_of_what_is_known_and_forecast() -> None:
    true = torch.tensor([[7.0, 7.0], [0.0, 1.0], [2.0, torch.nan]])[:, None]  # (T, 1, d)
    learned = torch.tensor([[7.0, 7.0], [0.0, 4.0], [6.0, 9.0]])[:, None]
    plain = Scale(["x", "y"], torch.zeros(2), torch.ones(2), 1.0)
    assert float(spread_error([(learned, true)], plain)) == pytest.approx((25 / 3) ** 0.5)
    more = (torch.full((2, 2, 2), 3.0), torch.full((2, 2, 2), 4.0))  # four forecast values, each off by 1
    unknown = (torch.zeros(2, 1, 2), torch.tensor([[0.0, 0.0], [torch.nan, torch.nan]])[:, None])
    pairs = [(learned, true), more, unknown]
    assert float(spread_error(pairs, plain)) == pytest.approx(((25 + 4) / 7) ** 0.5)
    expected = (5 / 103**0.5 + 2 / 8 + 2 / 8) / 3
    assert float(trajectory_error([(learned, true), more])) == pytest.approx(expected)
    replicas = torch.stack([learned, learned + 1], 1)
    assert spread_error([(replicas, true)], plain).shape == (2,)
    learned[1, 0, 0] = torch.nan  # a failed fit is no missing cell
    assert spread_error([(learned, true)], plain).isnan()


def test_errors_of_logarithms_are_in_spreads_of_the_columns_themselves() -> None:
    z = torch.tensor([[1.0, 5.0], [10.0, 6.0], [100.0, 7.0]], dtype=torch.float64)
    scale = scale_of([torch.arange(3.0)], [z], ["x", "y"], log=torch.tensor([True, False]))
    x = scale.inward(z)
    torch.testing.assert_close(x[:, 0], x[:, 1])  # log x and y are both even
    torch.testing.assert_close(scale.outward(x), z)
    off = z + torch.tensor([3.0, 0.0])
    expected = 3 / float(z[:, 0].std(correction=0)) / 2**0.5
    assert float(spread_error([(scale.inward(off)[:, None], x[:, None])], scale)) == pytest.approx(expected)


def test_units_of_a_table_have_gradients_beside_a_logarithm() -> None:
    z = torch.tensor([[1.0, 0.0], [10.0, 900.0]], dtype=torch.float64)  # log 0 and exp 900 are not finite
    scale = scale_of([torch.arange(2.0)], [z], ["x", "y"], log=torch.tensor([True, False]))
    x = scale.inward(z).requires_grad_()
    again = z.clone().requires_grad_()
    scale.inward(again).sum().backward()
    scale.outward(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.stack([scale.unit[0] * z[:, 0], scale.unit[1].expand(2)], 1))
    torch.testing.assert_close(again.grad, torch.stack([1 / (scale.unit[0] * z[:, 0]), 1 / scale.unit[1].expand(2)], 1))


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_eigenvalues_are_matched_for_the_least_sum_of_distances(d: int) -> None:
    torch.manual_seed(0)
    learned, true = (torch.randn(20, d, dtype=torch.complex128) for _ in range(2))
    for found, expected in zip(learned, true, strict=True):
        distances = (found[:, None] - expected).abs()
        rows, columns = linear_sum_assignment(distances.numpy())
        error = distances[rows, columns].max() / expected.abs().max()
        assert eigenvalue_error(found, expected) == pytest.approx(float(error))
