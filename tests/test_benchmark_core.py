"""The table `core`: what its figures compare does the same work."""

from __future__ import annotations

import pytest
import torch
from benchmarks import small_states
from benchmarks.small_states import bare_dopri5, count, ours, theirs, van_der_pol

from neuralode_exp.ode import make_method, solve


def test_the_bare_loop_takes_the_steps_of_solve() -> None:
    z0 = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.0, 3.0, 40, dtype=torch.float64)
    with torch.no_grad():
        bare = bare_dopri5(van_der_pol, z0, t, 1e-6)
        solution = solve(van_der_pol, z0, t, make_method("dopri5", rtol=1e-6, atol=1e-6))
    assert torch.allclose(bare, solution.z, rtol=1e-9, atol=1e-9)  # the sums have another order
    assert count(bare_dopri5, van_der_pol, z0, t, 1e-6) == solution.stats.nfe_forward


def test_the_oscillators_cost_all_sides_the_same_evaluations() -> None:
    z0 = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.0, 1.0, 20)
    with torch.no_grad():
        counts = {run: count(run, van_der_pol, z0, t, 1e-5) for run in (bare_dopri5, ours, theirs)}
    assert len(set(counts.values())) == 1


def test_small_states_are_measured_with_one_thread_and_leave_the_others() -> None:
    torch.set_num_threads(2)
    figures = small_states.measure(quick=True)
    assert torch.get_num_threads() == 2
    assert torch.is_grad_enabled()
    values = {figure.name.rpartition(", ")[2]: figure.value for figure in figures}
    assert values["ours"] < values["torchdiffeq"]
    assert values["one thread: over a bare loop"] == pytest.approx(1.0, abs=1.0)
