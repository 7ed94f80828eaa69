"""`make_method`: names, settings and their ranges, each mistake with the rule, what was got and the fix."""

from __future__ import annotations

import pytest
import torch

from neuralode_exp.ode import SOLVERS, TABLEAUS, FixedStep, TorchdiffeqMethod, make_method, solve
from neuralode_exp.ode.control import growth
from tests.ode.problems import adaptive, fixed


@pytest.mark.parametrize("name", TABLEAUS)
def test_every_tableau_is_a_method(name: str) -> None:
    if TABLEAUS[name].e is None:
        assert make_method(name, step_size=0.1, max_steps=7) == fixed(name, 0.1, 7)
    else:
        method = make_method(name, rtol=1e-4, atol=1e-5, max_steps=7, first_step=0.1, min_step=1e-9, max_step=2.0)
        assert method == adaptive(name, rtol=1e-4, atol=1e-5, max_steps=7, first_step=0.1, min_step=1e-9, max_step=2.0)


def test_unset_values_keep_the_defaults() -> None:
    assert make_method("dopri5", rtol=None) == adaptive("dopri5")


def test_engine_methods() -> None:
    dopri5 = make_method("dopri5", rtol=1e-4, first_step=0.1, engine="torchdiffeq")
    assert dopri5 == TorchdiffeqMethod("dopri5", rtol=1e-4, first_step=0.1)
    rk4 = make_method("rk4", step_size=0.1, engine="torchdiffeq")
    assert rk4 == TorchdiffeqMethod("rk4", step_size=0.1)
    assert make_method("lsoda", engine="torchdiffeq") == TorchdiffeqMethod("lsoda")
    assert set(SOLVERS) - set(TABLEAUS) == {"explicit-adams", "implicit-adams", "lsoda", "radau", "bdf"}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dorpi5", {}, "unknown method 'dorpi5'; did you mean dopri5? the methods are euler, midpoint"),
        ("tsit5", {"engine": "torchdiffeq"}, "unknown method 'tsit5'; the torchdiffeq engine's methods are euler"),
        ("dopri5", {"engine": "jax"}, "`engine` must be native or torchdiffeq, got 'jax'"),
        ("lsoda", {}, "lsoda is a method of the torchdiffeq engine only; pass engine='torchdiffeq'"),
        ("rk4", {}, "rk4 takes fixed steps and cannot choose their size; pass step_size"),
        ("rk4", {"engine": "torchdiffeq"}, "rk4 takes fixed steps and cannot choose their size; pass step_size"),
        ("rk4", {"step_size": 0.0}, "`step_size` must be > 0, got 0.0"),
        ("rk4", {"step_size": float("nan")}, "`step_size` must be > 0, got nan"),
        ("rk4", {"step_size": 0.1, "rtol": 1e-3}, "rk4 takes fixed steps and has no rtol; it has step_size, max_steps"),
        ("dopri5", {"step_size": 0.1}, "dopri5 chooses its own steps and has no step_size; it has rtol, atol"),
        ("lsoda", {"engine": "torchdiffeq", "first_step": 1.0}, "lsoda chooses its own steps and has no first_step"),
        ("dopri5", {"rtol": -1.0}, "`rtol` must be >= 0, got -1.0"),
        ("dopri5", {"rtol": 0.0, "atol": 0.0}, "`rtol + atol` must be > 0, got 0.0"),
        ("dopri5", {"max_steps": 0}, "`max_steps` must be a whole number >= 1, got 0"),
        ("rk4", {"step_size": 0.1, "max_steps": 2.5}, "`max_steps` must be a whole number >= 1, got 2.5"),
        ("dopri5", {"max_steps": float("inf")}, "`max_steps` must be a whole number >= 1, got inf"),
        ("dopri5", {"first_step": 0.0}, "`first_step` must be a finite number > 0 or None, got 0.0"),
        ("dopri5", {"first_step": float("inf")}, "`first_step` must be a finite number > 0 or None, got inf"),
        ("dopri5", {"min_step": -1.0}, "`min_step` must be a finite number >= 0, got -1.0"),
        ("dopri5", {"min_step": float("inf")}, "`min_step` must be a finite number >= 0, got inf"),
        ("dopri5", {"engine": "torchdiffeq", "min_step": float("inf")}, "`min_step` must be a finite number >= 0, got"),
        ("dopri5", {"max_step": 0.0}, "`max_step` must be > min_step=0 or None, got 0.0"),
        ("dopri5", {"min_step": 0.2, "max_step": 0.1}, "`max_step` must be > min_step=0.2 or None, got 0.1"),
        ("rk4", {"step_size": 0.1, "max_step": 0.1}, "rk4 takes fixed steps and has no max_step; it has step_size"),
        (
            "dopri5",
            {"engine": "torchdiffeq", "max_step": 0.1},
            "dopri5 is run by code that does not bound its steps and",
        ),
        ("dopri5", {"engine": "torchdiffeq", "compile": True}, "compile=True compiles methods of ours, got dopri5 of"),
        ("lsoda", {"engine": "torchdiffeq", "max_step": 0.1}, "lsoda is run by code that does not bound its steps and"),
    ],
)
def test_mistakes_are_refused(name: str, settings: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is compared below, without escapes
        make_method(name, **settings)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("first", "last"), [(0.0, 1.0), (1.0, 0.0), (100.0, 101.0)])
@pytest.mark.parametrize("n", [4, 10, 20, 100])
def test_rounded_times_cost_no_further_steps(n: int, first: float, last: float, dtype: torch.dtype) -> None:
    t, z0 = torch.linspace(first, last, n + 1, dtype=dtype), torch.ones(2, requires_grad=True)
    solution = solve(lambda t, z: -z, z0, t, make_method("euler", step_size=1 / n), gradient="adjoint")
    solution.z.sum().backward()
    assert (solution.stats.nfe_forward, solution.stats.nfe_backward) == (n, n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("end", [0.1, 0.3, -0.7])
@pytest.mark.parametrize("n", [1, 3, 7, 50])
def test_rounded_times_cost_no_further_adaptive_steps(n: int, end: float, dtype: torch.dtype) -> None:
    method = make_method("dopri5", rtol=1e-2, first_step=abs(end) / n, max_step=abs(end) / n)
    solution = solve(lambda t, z: -z, torch.ones(2), torch.tensor([0.0, end], dtype=dtype), method)
    assert (solution.stats.accepted, solution.stats.rejected) == (n, 0)


@pytest.mark.parametrize("t", [0.0, 1.0, 1e3, 1e6])
def test_a_step_is_longer_than_its_size_by_a_thousandth_at_most(t: float) -> None:
    method = make_method("euler", step_size=0.01)
    assert isinstance(method, FixedStep)
    assert method.steps_between(t, t + 0.010011) == 2
    assert method.steps_between(t, t + 0.050011) == 6


def test_the_growth_of_the_step_size() -> None:
    assert growth(1.0, 5) == pytest.approx(0.9)  # an accepted step of ratio exactly 1 shrinks by the safety
    assert growth(0.99, 5) == 1.0  # below 1 it never shrinks
    assert growth(32.0, 5) == pytest.approx(0.45)  # 0.9 / 32^(1/5)
    assert growth(0.0, 5) == growth(1e-30, 5) == 10.0
    assert growth(float("nan"), 5) == growth(float("inf"), 5) == growth(1e30, 5) == 0.2
