"""On a CUDA device: the same results, and no synchronisation but the error norm of each step."""

from __future__ import annotations

import warnings

import pytest
import torch

from neuralode_exp.ode import make_method, solve
from tests.ode.problems import Z0, TimeMLP, gradients

pytestmark = pytest.mark.cuda
MODES = ("backprop", "checkpoint", "adjoint")
TIMES = [0.0, 0.3, 1.0]


def method_of(name: str):  # type: ignore[no-untyped-def]
    if name == "rk4":
        return make_method(name, step_size=0.1)
    return make_method(name, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize("name", ["rk4", "dopri5", "dopri8"])
def test_values_and_gradients_equal_those_of_the_cpu(name: str, gradient: str) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        f, z0 = TimeMLP().to(device), Z0.to(device).requires_grad_()
        z = solve(f, z0, TIMES, method_of(name), gradient).z
        loss = (z[1:] ** 2).sum()
        found[device] = [z.detach().cpu(), *(g.cpu() for g in torch.autograd.grad(loss, (z0, f.w1, f.w2, f.b)))]
    for a, b in zip(found["cpu"], found["cuda"], strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def test_time_may_need_a_gradient_on_the_device() -> None:
    t = torch.tensor(TIMES, dtype=torch.float64, device="cuda", requires_grad=True)
    z = solve(TimeMLP().cuda(), Z0.cuda(), t, method_of("dopri5"), "checkpoint").z
    (found,) = gradients_on_device(z, t)
    on_cpu = torch.tensor(TIMES, dtype=torch.float64, requires_grad=True)
    (expected,) = gradients(solve(TimeMLP(), Z0, on_cpu, method_of("dopri5"), "checkpoint").z, on_cpu)
    assert torch.allclose(found.cpu(), expected, rtol=1e-9, atol=1e-9)


def gradients_on_device(z: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    weights = torch.linspace(-1.0, 1.0, z[1:].numel(), dtype=z.dtype, device=z.device).reshape(z[1:].shape)
    return list(torch.autograd.grad((weights * z[1:]).sum() + (z[1:] ** 2).sum(), inputs))


def synchronisations(run) -> int:  # type: ignore[no-untyped-def]
    """Number of times that the host waits for the device."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing CUDA operation" in str(w.message) for w in caught)


def test_the_host_waits_for_one_norm_per_step() -> None:
    f, z0 = TimeMLP().cuda(), Z0.cuda().requires_grad_()
    adaptive = make_method("dopri5", rtol=1e-6, atol=1e-6, first_step=0.1)
    solve(f, z0, TIMES, adaptive, "checkpoint").z.sum().backward()  # warm up: cuBLAS allocates at its first use
    kept = []
    assert synchronisations(lambda: kept.append(solve(f, z0, TIMES, adaptive, "checkpoint"))) == kept[0].stats.trials
    loss = kept[0].z.sum()
    assert synchronisations(loss.backward) == 0
    # Fixed steps: whether the last state is finite, nothing else.
    assert synchronisations(lambda: solve(f, z0, TIMES, make_method("rk4", step_size=0.1))) == 1


@pytest.mark.parametrize("name", ["dopri5", "rk4", "lsoda"])
def test_the_torchdiffeq_engine(name: str) -> None:
    settings = {"step_size": 0.01} if name == "rk4" else {"rtol": 1e-7, "atol": 1e-7}
    method = make_method(name, engine="torchdiffeq", **settings)
    f, z0 = TimeMLP().cuda(), Z0.cuda().requires_grad_()
    z = solve(f, z0, TIMES, method, "adjoint").z
    z.sum().backward()
    expected = solve(TimeMLP(), Z0, TIMES, make_method("dopri5")).z
    assert torch.allclose(z.cpu(), expected, rtol=0, atol=1e-5)
    assert z0.grad is not None
