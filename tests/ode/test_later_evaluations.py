"""What f does only at later times: writing to its z, and calling autograd itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from neuralode_exp.ode import make_method, solve

MODES = ("backprop", "checkpoint", "adjoint", "reversible")
METHODS = {"rk4": make_method("rk4", step_size=0.05), "dopri5": make_method("dopri5", rtol=1e-8)}
F64: dict[str, Any] = {"dtype": torch.float64}


def clamped(t: Tensor, z: Tensor) -> Tensor:
    return -(z.clamp_(max=0.5) if t > 0.5 else z)


@pytest.mark.parametrize("leaf", [True, False], ids=["leaf", "no gradient"])
@pytest.mark.parametrize("graph", [True, False], ids=["graph", "no_grad"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gradient", MODES)
def test_a_later_change_of_z_in_place_is_refused(gradient: str, method: str, graph: bool, leaf: bool) -> None:
    with torch.set_grad_enabled(graph), pytest.raises(ValueError, match="must not change z in place, got a z that it"):
        solve(clamped, torch.ones(2, **F64, requires_grad=leaf), [0.0, 1.0], METHODS[method], gradient)


@pytest.mark.parametrize("gradient", MODES)
def test_a_part_of_a_tuple_is_not_written_to_either(gradient: str) -> None:
    z0 = (torch.ones(2, **F64, requires_grad=True), torch.ones(1, **F64))
    with pytest.raises(ValueError, match=r"must not change z .*in place.*compute a new tensor"):
        solve(lambda t, z: (clamped(t, z[0]), -z[1]), z0, [0.0, 1.0], METHODS["rk4"], gradient)


@pytest.mark.parametrize("gradient", MODES)
def test_a_z_with_a_graph_is_not_written_to(gradient: str) -> None:
    """Torch refuses that by itself, in words that do not say which tensor."""
    z0 = torch.ones(2, **F64, requires_grad=True)
    with pytest.raises(ValueError, match=r"must not change z or a weight in place, got '.*' from torch; compute a new"):
        solve(lambda t, z: z.neg_(), z0, [0.0, 1.0], METHODS["rk4"], gradient)


def test_a_change_that_only_backward_makes_is_refused() -> None:
    z0, backwards = torch.ones(2, **F64, requires_grad=True), []
    z = solve(lambda t, z: -z.mul_(1.0) if backwards else -z, z0, [0.0, 1.0], METHODS["rk4"], "checkpoint").z
    backwards.append(True)
    with pytest.raises(ValueError, match="must not change z or a weight in place"):
        z[-1].sum().backward()


def test_states_made_in_inference_mode_have_no_versions() -> None:
    with torch.inference_mode():
        z0 = torch.ones(2, **F64)
        inside = solve(lambda t, z: -z, z0, [0.0, 1.0], METHODS["dopri5"]).z[-1]
    outside = solve(lambda t, z: -z, z0, [0.0, 1.0], METHODS["dopri5"]).z[-1]
    assert inside.tolist() == outside.tolist() == pytest.approx([math.exp(-1.0)] * 2, rel=1e-7)


@pytest.mark.parametrize("leaf", [True, False], ids=["leaf", "no gradient"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gradient", MODES)
def test_f_may_call_autograd_at_later_times_alone(gradient: str, method: str, leaf: bool) -> None:
    """dz/dt = -w z in two forms; z = exp(-w t), dz/dw = -z at t = w = 1."""
    w, z0, calls = torch.ones((), **F64, requires_grad=True), torch.ones(2, **F64, requires_grad=leaf), []

    def f(t: Tensor, z: Tensor) -> Tensor:
        calls.append(t)
        return -w * (torch.autograd.grad(z.square().sum() / 2, z, create_graph=True)[0] if t > 0.5 else z)

    solution = solve(f, z0, [0.0, 1.0], METHODS[method], gradient)
    assert solution.stats.nfe_forward == len(calls)
    solution.z[-1].sum().backward()
    assert solution.z[-1].tolist() == pytest.approx([math.exp(-1.0)] * 2, rel=1e-6)
    assert float(w.grad) == pytest.approx(-2 * math.exp(-1.0), rel=1e-6)
    assert not leaf or z0.grad.tolist() == pytest.approx([math.exp(-1.0)] * 2, rel=1e-6)
    with torch.no_grad():
        again = solve(f, z0, [0.0, 1.0], METHODS[method], gradient).z[-1]
    assert again.tolist() == pytest.approx(solution.z[-1].tolist(), rel=1e-12)


@pytest.mark.parametrize("drawn", ["always", "late"])
@pytest.mark.parametrize("gradient", ["checkpoint", "reversible"])
def test_random_numbers_of_an_evaluation_that_is_repeated(gradient: str, drawn: str) -> None:
    """They are drawn before f asks for its graph. Backward draws those of the value that counts, or f is refused."""
    found = []
    for mode in ("backprop", gradient):
        torch.manual_seed(0)
        z0 = torch.ones(2, **F64, requires_grad=True)
        values = []

        def f(t: Tensor, z: Tensor, values: list[Tensor] = values) -> Tensor:
            noise = torch.rand((), **F64) if drawn == "always" or t > 0.5 else 1.0
            values.append(noise)
            return -noise * (torch.autograd.grad(z.square().sum() / 2, z, create_graph=True)[0] if t > 0.5 else z)

        method = METHODS["rk4"]
        z = solve(f, z0, [0.0, 1.0], method, mode).z[-1]
        if drawn == "late" and mode != "backprop":
            with pytest.raises(ValueError, match="must be the same in backward as in the solve"):
                z.sum().backward()
            return
        z.sum().backward()
        found.append((z.detach(), z0.grad))
    if gradient == "checkpoint":  # the steps of `reversible` are others
        torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)
    # The field is linear in z, so that dz/dz0 = z / z0 for any noise.
    assert torch.allclose(found[1][1], found[1][0], rtol=1e-8)


def test_an_error_of_f_is_raised_as_it_is() -> None:
    def f(t: Tensor, z: Tensor) -> Tensor:
        return -z @ torch.ones(3, 3, **F64) if t > 0.5 else -z

    with pytest.raises(RuntimeError, match=r"mat1 and mat2|size mismatch|shapes"):
        solve(f, torch.ones(2, **F64), [0.0, 1.0], METHODS["rk4"])
