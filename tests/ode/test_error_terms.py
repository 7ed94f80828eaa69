"""`solve(errors=True)`: the steps' error estimates as terms of a loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from neuralode_exp.ode import make_method, solve
from tests.ode.problems import Z0, TimeMLP

F64: dict[str, Any] = {"dtype": torch.float64}


def equal_steps(name: str, size: float = 0.25) -> Any:
    """No step is longer, and none of this size is rejected: perturbed states are solved by the same steps."""
    return make_method(name, rtol=1e-12, first_step=size, min_step=size, max_step=1.001 * size)


def test_they_are_what_the_method_estimates() -> None:
    """Heun's estimate for dz/dt = -z is dt |k_0 - k_1| / 2 = dt^2 |z| / 2; a step multiplies z by 1 - dt + dt^2 / 2."""
    z0 = torch.tensor([3.0], **F64)
    found = solve(lambda t, z: -z, z0, [0.0, 1.0], equal_steps("adaptive-heun"), errors=True).errors
    h, growth = 0.25, 1 - 0.25 + 0.25**2 / 2
    assert found is not None
    assert found.tolist() == pytest.approx([h * h**2 * 3.0 * growth**n / 2 for n in range(4)], rel=1e-12)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["forwards", "backwards"])
@pytest.mark.parametrize("gradient", ["backprop", "checkpoint"])
@pytest.mark.parametrize("name", ["fehlberg2", "bosh3", "dopri5", "dop853"])
def test_gradients(name: str, gradient: Any, sign: float) -> None:
    """Of z0 and of a parameter, beside those of the states; dop853's estimate is not linear in its stages."""
    gain = torch.tensor([0.8, -1.3], **F64, requires_grad=True)
    z0 = torch.tensor([[0.5, -0.2], [0.1, 0.9]], **F64, requires_grad=True)

    def outputs(z0: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        def f(t: Tensor, z: Tensor) -> Tensor:
            return torch.sin(3 * gain * z.flip(-1) + t) - z

        solution = solve(f, z0, [0.0, 0.3 * sign, 0.75 * sign], equal_steps(name), gradient, errors=True)
        assert solution.errors is not None
        return solution.z, 1e3 * solution.errors

    assert torch.autograd.gradcheck(outputs, (z0, gain))


@pytest.mark.parametrize("name", ["dopri5", "dop853"])
def test_a_state_at_rest_has_no_error_and_no_gradient(name: str) -> None:
    for gradient in ("backprop", "checkpoint"):
        z0 = torch.zeros(2, **F64, requires_grad=True)
        terms = solve(lambda t, z: -z, z0, [0.0, 1.0], make_method(name), gradient, errors=True).errors
        assert terms is not None
        assert torch.autograd.grad(terms.sum(), z0)[0].tolist() == [0.0, 0.0]


def test_checkpoint_equals_backprop_at_steps_of_its_own() -> None:
    """One step's term alone, as a random one would be, and the sum of all with nothing of the states."""
    for of_terms in (lambda e: e[1], torch.sum):
        found = []
        for gradient in ("backprop", "checkpoint"):
            f, z0 = TimeMLP(), Z0.clone().requires_grad_()
            terms = solve(f, z0, [0.0, 2.0], make_method("dopri5", rtol=1e-4), gradient, errors=True).errors
            found.append(torch.autograd.grad(of_terms(terms), (z0, *f.parameters()), allow_unused=True))
        for g, exact in zip(*found, strict=True):
            assert (g is None) == (exact is None)
            assert g is None or torch.allclose(g, exact, rtol=1e-9, atol=1e-15)


def test_refused_where_they_would_be_wrong() -> None:
    dopri5, rk4 = make_method("dopri5"), make_method("rk4", step_size=0.1)
    for arguments, message in (
        ((TimeMLP(), Z0, [0.0, 1.0], dopri5, "adjoint"), "knows states alone"),
        ((TimeMLP(), Z0, [0.0, 1.0], dopri5, "reversible"), "knows states alone"),
        ((TimeMLP(), Z0, [0.0, 1.0], rk4), "fixed steps"),
        ((TimeMLP(), Z0, [0.0, 1.0], make_method("dopri5", engine="torchdiffeq")), "dopri5 of torchdiffeq"),
        ((TimeMLP(), Z0, torch.tensor([0.0, 1.0], requires_grad=True), dopri5), "a t that requires one"),
    ):
        with pytest.raises(ValueError, match=message):
            solve(*arguments, errors=True)
