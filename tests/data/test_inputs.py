"""Inputs of driven systems: read as they should be, trajectories against closed forms, windows against whole solves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicHermiteSpline
from torch import Tensor, nn

from neuralode_exp.config.preflight import preflight
from neuralode_exp.data.dynamics import make_dynamics
from neuralode_exp.data.inputs import HELD_FOR, READINGS, Input
from neuralode_exp.data.systems import system_of
from neuralode_exp.load import load_run
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.ode import make_method
from neuralode_exp.tracking.summary import read_summary
from neuralode_exp.trainers.dynamics.segments import cut
from tests.conftest import train

T = torch.tensor([0.0, 0.5, 1.5, 2.0], dtype=torch.float64)
U = torch.tensor([[1.0], [3.0], [-1.0], [2.0]], dtype=torch.float64)


def test_samples_are_held_joined_or_bent() -> None:
    held, joined, bent = (Input.of(T, U, reading) for reading in READINGS)
    for t in (0.0, 0.2, 0.7, 1.9):
        i = int(np.searchsorted(T, t, side="right")) - 1
        assert held(t).item() == U[i].item()
        assert joined(t).item() == pytest.approx(np.interp(t, T, U[:, 0]))
        slopes = np.diff(U[:, 0]) / np.diff(T)
        spline = CubicHermiteSpline(T, U[:, 0], [slopes[0], *slopes])
        assert bent(t).item() == pytest.approx(spline(t))
    assert list(held.stops) == [0.5, 1.5]
    assert joined.stops == bent.stops == ()


def test_times_that_do_not_increase_are_refused() -> None:
    """A decreasing list cannot be searched for the piece of a time."""
    for t, got in ((T.flip(0), r"t\[1\]=1\.5 after 2"), (T[[0, 1, 1, 2]], r"t\[2\]=0\.5 after 0\.5")):
        with pytest.raises(ValueError, match=f"`t` must increase where inputs are read, got {got}"):
            Input.of(t, U, "linear")


def decay(t: Tensor, z: Tensor, u: Tensor) -> Tensor:
    return u - z


@pytest.mark.parametrize("reading", READINGS)
def test_trajectories_of_a_driven_system_are_those_of_the_closed_form(reading: str) -> None:
    system = system_of(decay, 1, inputs=[(-1.0, 1.0)])
    z = system.flow(torch.zeros(1, 1), T, Input.of(T, U[:, None], reading))[:, 0, 0]
    u = Input.of(T, U, reading)
    s = torch.linspace(0, 2, 200_001, dtype=torch.float64)  # the integral of exp(s - t) u(s)
    values = torch.tensor([float(u(x)) for x in s[:-1:50] + 25e-5])  # midpoints of 4,000 cells
    weights = torch.exp(s[:-1:50] + 25e-5 - 2.0) * 5e-4
    assert float(z[-1]) == pytest.approx(float((weights * values).sum()), abs=1e-5)


class Driven(nn.Module):
    def forward(self, t: Tensor, z: Tensor, u: Tensor) -> Tensor:
        return torch.sin(z) + u


def test_a_window_of_irregular_times_is_the_solve_over_them() -> None:
    """Every state of a batch at its own pace, against a solve of each alone."""
    generator = torch.Generator().manual_seed(0)
    times = [torch.rand(6, generator=generator, dtype=torch.float64).cumsum(0) for _ in range(2)]
    inputs = [torch.rand(6, 1, generator=generator, dtype=torch.float64) for _ in times]
    states = [torch.rand(6, 1, generator=generator, dtype=torch.float64) for _ in times]
    for reading in READINGS:
        segments = cut(times, states, [3], inputs, reading)
        ode = NeuralODE(Driven(), make_method("dopri5", rtol=1e-10, atol=1e-12), input=reading)
        assert segments.dt is not None
        assert segments.pieces is not None
        at = segments.start + torch.arange(3)[:, None]
        together = ode.advance_driven(segments.z[segments.start], segments.dt[at], segments.pieces[at].movedim(-2, 1))
        for n, start in enumerate(segments.start.tolist()):
            k, i = divmod(start, 6)
            whole = Input.of(times[k], inputs[k], reading)
            f = lambda t, z, whole=whole: torch.sin(z) + whole(t)  # noqa: E731
            stops = [float(x) for x in times[k]]
            exact = ode._solve(states[k][i : i + 1], times[k][i : i + 4], f, stops=stops)[-1]
            torch.testing.assert_close(together[n : n + 1], exact, rtol=1e-7, atol=1e-8)


def test_every_trajectory_has_an_input_of_its_own_that_is_held_for_a_while() -> None:
    data = make_dynamics("two-tanks", trajectories=3, points=20, validation=1, test=2, test_horizon=1.0)
    u = data.train.u
    assert u is not None
    assert u.shape == (20, 3, 1)
    assert ((u >= 0.2) & (u <= 1.0)).all()
    assert (u[:HELD_FOR] == u[0]).all()
    assert u[:, 0].unique().numel() == 4
    assert not torch.equal(u[:, 0], u[:, 1])
    # Both are uniform on [0.2, 1], so the same random numbers would give the same values.
    assert (data.train.clean[0].flatten()[:, None] - u.flatten()).abs().min() > 1e-6


def test_a_driven_table_is_learned_loaded_and_led_on_by_other_inputs(tmp_path: Path) -> None:
    data = make_dynamics("two-tanks", trajectories=6, points=30, noise=0.0)
    u = data.train.u
    assert u is not None
    rows = ["trajectory,t,level,lower,pump"]
    for n in range(6):
        for i, t in enumerate(data.t.tolist()):
            level, lower = data.train.clean[i, n].tolist()
            rows.append(f"{n},{t},{level},{lower},{float(u[i, n])}")
    (tmp_path / "tanks.csv").write_text("\n".join(rows))
    words = ("dataset=csv", "dataset.path=tanks.csv", "dataset.inputs=[pump]", "solver=rk4", "figures=false")
    done = train(*words, "trainer.max_steps=30", "trainer.replicas=2", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'states "level", "lower", inputs "pump"' in done.stdout + done.stderr
    summary = read_summary(tmp_path / "run")
    assert summary is not None
    assert summary["metrics"]["dynamics/validation_error"] < summary["metrics"]["dynamics/persistence_error"]
    model, _ = load_run(tmp_path / "run")
    z0, t = torch.full((2, 1, 2), 0.5), torch.tensor([0.0, 1.0, 2.0])
    high, low = (model(z0, t, torch.full((3, 2, 1, 1), pump)) for pump in (1.0, 0.2))
    assert (high[-1] > low[-1]).all()
    with pytest.raises(ValueError, match="`u` must be given"):
        model(z0, t)
    no = preflight(["dataset=two-tanks", "model=resnet", "dataset.input=none", "check=true"]).answer
    assert str(no).startswith("ok")
