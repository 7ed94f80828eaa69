"""The same steps as torchdiffeq 0.2.5, where it stops at the last time instead of stepping past it."""

from __future__ import annotations

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

from neuralode_exp.ode import make_method, solve
from tests.ode.problems import Z0, TimeMLP, gradients


class Counted(nn.Module):
    """A field that counts its evaluations."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f = f
        self.nfe = 0

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        self.nfe += 1
        return self.f(t, z)


class Watched(Counted):
    """With the callbacks that torchdiffeq calls at its adaptive steps."""

    accepted = rejected = 0

    def callback_accept_step(self, t: Tensor, z: Tensor, dt: Tensor) -> None:
        self.accepted += 1

    def callback_reject_step(self, t: Tensor, z: Tensor, dt: Tensor) -> None:
        self.rejected += 1


class VanDerPol(nn.Module):
    """x'' = mu (1 - x^2) x' - x: some steps are rejected where the oscillation relaxes, and errors do not grow."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        x, v = z.unbind(-1)
        return torch.stack([v, self.mu * (1 - x * x) * v - x], -1)


START = torch.tensor([[0.1, 0.0], [0.9, 0.2]], dtype=torch.float64)


@pytest.mark.parametrize("times", [(0.0, 4.0), (1.3, 0.3)], ids=["increasing", "decreasing"])
@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
@pytest.mark.parametrize("name", ["dopri5", "bosh3", "dopri8"])
def test_steps_evaluations_and_values_agree(name: str, rtol: float, times: tuple[float, float]) -> None:
    theirs, t = Watched(VanDerPol()), torch.tensor(times, dtype=torch.float64)
    options = {"step_t": t[-1:]}
    with torch.no_grad():
        z = torchdiffeq.odeint(theirs, START, t, method=name, rtol=rtol, atol=rtol, options=options)
        ours = solve(VanDerPol(), START, t, make_method(name, rtol=rtol, atol=rtol))
    assert (ours.stats.accepted, ours.stats.rejected) == (theirs.accepted, theirs.rejected)
    assert theirs.rejected > 0 or times[1] < times[0]
    # dopri8's error estimate does not use the derivative at the end of a step: we evaluate it only where a further
    # step starts from it, torchdiffeq at the end of every trial.
    spared = theirs.rejected + 1 if name == "dopri8" else 0
    assert ours.stats.nfe_forward == theirs.nfe - spared
    # The weights of dopri8's error estimate, up to 3.8, cancel to 1e-8 of an increment: its round-off moves the steps.
    round_off = 1e-9 if name == "dopri8" else 1e-12
    assert torch.allclose(ours.z, z, rtol=round_off, atol=round_off)


def test_dense_output_agrees() -> None:
    t = torch.linspace(0.0, 2.0, 17, dtype=torch.float64)
    tolerances = {"rtol": 1e-6, "atol": 1e-6}
    with torch.no_grad():
        z = torchdiffeq.odeint(VanDerPol(), START, t, method="dopri5", options={"step_t": t[-1:]}, **tolerances)
        ours = solve(VanDerPol(), START, t, make_method("dopri5", **tolerances))
    assert torch.allclose(ours.z, z, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["euler", "midpoint", "heun2", "heun3", "rk4"])
def test_fixed_steps_agree(name: str) -> None:
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    theirs = Counted(TimeMLP())
    with torch.no_grad():
        z = torchdiffeq.odeint(theirs, Z0, t, method=name, options={"step_size": 0.125})
        ours = solve(TimeMLP(), Z0, t, make_method(name, step_size=0.125))
    assert ours.stats.nfe_forward == theirs.nfe
    assert torch.allclose(ours.z, z, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["dopri5", "bosh3", "dopri8"])
def test_the_adjoint_takes_the_same_steps_back(name: str) -> None:
    """With its seminorm torchdiffeq's backward solve of one interval is ours, step by step.

    So it is for a field without t: torchdiffeq also holds the error of dL/dt to the tolerance, asked for or not.
    """
    t, z0 = torch.tensor([0.0, 3.0], dtype=torch.float64), START.clone().requires_grad_()
    tolerances = {"rtol": 1e-4, "atol": 1e-4}
    theirs, f = Counted(VanDerPol()), VanDerPol()
    options = {"options": {"step_t": t[-1:]}, "adjoint_options": {"norm": "seminorm", "step_t": t[:1]}}
    z = torchdiffeq.odeint_adjoint(theirs, z0, t, method=name, **tolerances, **options)
    theirs.nfe = 0
    exact = gradients(z, z0, theirs.f.mu)
    ours = solve(f, z0, t, make_method(name, **tolerances), "adjoint")
    found = gradients(ours.z, z0, f.mu)
    if name == "dopri8":  # spares the closing derivatives again
        assert theirs.nfe - 10 < ours.stats.nfe_backward < theirs.nfe
    else:
        assert ours.stats.nfe_backward == theirs.nfe
    for g, g_exact in zip(found, exact, strict=True):
        assert torch.allclose(g, g_exact, rtol=1e-9, atol=1e-9)
