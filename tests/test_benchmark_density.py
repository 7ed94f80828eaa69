"""The benchmark's table `density`: the peer is a density, both sides evaluate as often, and are about as large."""

from __future__ import annotations

import pytest
import torch
from benchmarks import compose, density, peer_cnf


def test_the_peers_trace_is_that_of_its_jacobian() -> None:
    torch.manual_seed(0)
    field, z, t = peer_cnf.CNF(2), torch.randn(5, 2), torch.tensor(3.0)
    _, change = field(t, (z.clone(), torch.zeros(5, 1)))
    of_all = torch.autograd.functional.jacobian(lambda z: field(t, (z, torch.zeros(5, 1)))[0].sum(0), z)
    torch.testing.assert_close(change[:, 0], -of_all.permute(1, 0, 2).diagonal(dim1=1, dim2=2).sum(1))


def test_the_peers_density_integrates_to_one() -> None:
    torch.manual_seed(0)
    flow = peer_cnf.PeerFlow(2, adjoint=False, **density.PEER_RK4)
    axis = torch.linspace(-6, 6, 61)
    with torch.no_grad():
        log_prob = flow.log_prob(torch.cartesian_prod(axis, axis))
    # The rectangle rule in float32, for a density that has decayed at the edges.
    assert log_prob.exp().sum().item() * 0.2**2 == pytest.approx(1.0, abs=1e-3)


def test_a_row_names_evaluations_and_compares_equal_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    row = ("odeint_adjoint, rk4", "checkpoint, rk4", None)
    monkeypatch.setattr(density, "BATCH", 16)
    monkeypatch.setattr(density, "OURS", {row[1]: density.OURS[row[1]]})
    monkeypatch.setattr(density, "ROWS", [row])
    (figure,) = density.measure(quick=True)
    assert figure.name == ("rk4, 8 steps: checkpoint (NFE 32 + 28), times faster than odeint_adjoint (NFE 32 + 32)")
    ours, theirs = figure.details["ours"], figure.details["torchdiffeq"]
    assert (ours["parameters"], theirs["parameters"]) == (16_194, 15_904)
    assert figure.value > 0


@pytest.mark.parametrize("name", ["checkpoint", "adjoint", "rknet"])
def test_both_sides_have_one_tolerance(name: str) -> None:
    solver = compose.compose(f"dataset={density.DATASET}", *density.OURS[name]).solver
    assert {solver.rtol, solver.atol, density.PEER_DOPRI5["rtol"], density.PEER_DOPRI5["atol"]} == {1e-5}
