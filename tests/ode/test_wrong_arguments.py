"""Arguments of a wrong kind: each is refused in one line with the rule, what was got and the fix."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuralode_exp.ode import TABLEAUS, Adaptive, ExplicitRungeKutta, FixedStep, make_method, solve
from tests.ode.problems import fixed

F64: dict[str, Any] = {"dtype": torch.float64}
ONES = torch.ones(2, **F64)
DOPRI5 = make_method("dopri5")


def decay(t: Tensor, z: Tensor) -> Tensor:
    return -z


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (([0.0, 1.0], "dopri5"), {}, "`method` must be a method, got str 'dopri5'; pass make_method('dopri5', ...)"),
        (([0.0, 1.0], None), {}, "`method` must be a method, got NoneType None; pass one from make_method"),
        (([0.0, 1.0], DOPRI5, "adjoint"), {"adjoint_method": "rk4"}, "`adjoint_method` must be a method, got str"),
        ((1.0, DOPRI5), {}, "`t` must be a list of numbers, got 1.0; put it in brackets"),
        ((np.array(1.0), DOPRI5), {}, "`t` must be a list of numbers, got array(1.); put it in brackets"),
        (([0.0, 1.0], DOPRI5), {"stops": 0.5}, "`stops` must be a list of numbers, got 0.5; put it in brackets"),
        (([0.0, 1.0], DOPRI5), {"parameters": nn.Linear(2, 2)}, "of tensors, got Linear; pass module.parameters()"),
        (([0.0, 1.0], DOPRI5), {"parameters": ONES}, "`parameters` must be a sequence of tensors, got Tensor; pass "),
        (([0.0, 1.0], DOPRI5), {"parameters": [None]}, "`parameters` must be a sequence of tensors, got NoneType; "),
        (([0.0, 1.0], DOPRI5), {"parameters": 1.0}, "`parameters` must be a sequence of tensors, got float; pass "),
    ],
)  # fmt: skip
def test_of_solve(arguments: Any, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        solve(decay, ONES, *arguments, **settings)


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_listed_parameters_may_come_from_a_generator(gradient: str) -> None:
    layer = nn.Linear(2, 2, **F64)
    z = solve(lambda t, z: layer(z), ONES, [0.0, 1.0], DOPRI5, gradient, parameters=layer.parameters()).z
    z[-1].sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize(
    ("part", "got"),
    [
        (0.0, "float"),
        (None, "NoneType"),
        (torch.zeros(2, dtype=torch.int64), "(2,) int64"),
        (torch.zeros(2), "(2,) float32"),
        (torch.zeros(3, **F64), "(3,) float64"),
    ],
)
def test_parts_of_a_tuple(part: object, got: str) -> None:
    message = f"must return parts with the shapes and the dtype of z's, got {got} for part 1 of (2,) float64"
    with pytest.raises(ValueError, match=re.escape(message)):
        solve(lambda t, z: (-z[0], part), (ONES, ONES), [0.0, 1.0], DOPRI5)


def test_parts_of_a_tuple_under_autocast() -> None:
    layer, z0 = nn.Linear(2, 2), torch.ones(1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = solve(lambda t, z: (layer(z[0]), -z[1]), (z0, z0), [0.0, 1.0], make_method("rk4", step_size=0.1)).z
    assert z[0].dtype == z[1].dtype == torch.float32


@pytest.mark.parametrize(
    "stops", [[0.5, 0.6], torch.tensor([0.5, 0.6]), np.array([0.5, 0.6])], ids=["list", "tensor", "array"]
)
def test_stops_are_any_sequence(stops: Any) -> None:
    """dz/dt = 1, then 2 from t = 0.5 on."""
    z = solve(lambda t, z: torch.where(t > 0.5, 2.0, 1.0) + 0 * z, torch.zeros(1), [0.0, 1.0], DOPRI5, stops=stops).z
    assert float(z[-1]) == pytest.approx(1.5, rel=1e-6)
    for none in ([], torch.tensor([]), np.array([])):
        assert len(solve(decay, ONES, [0.0, 1.0], DOPRI5, stops=none).z) == 2


def test_a_tableau_without_an_estimate_takes_fixed_steps() -> None:
    stepper = ExplicitRungeKutta(TABLEAUS["rk4"])
    solution = solve(decay, ONES, [0.0, 1.0], FixedStep(stepper, 0.1))
    assert torch.equal(solution.z, solve(decay, ONES, [0.0, 1.0], fixed("rk4", 0.1)).z)
    assert solution.stats.nfe_forward == 40
    assert float(solution.z[-1, 0]) == pytest.approx(math.exp(-1.0), rel=1e-6)
    with pytest.raises(ValueError, match="must have a stepper with an error estimate, got one without; use FixedStep"):
        solve(decay, ONES, [0.0, 1.0], Adaptive(stepper))
