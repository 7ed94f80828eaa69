"""Compiled steps give the numbers, counts, failures and refusals of those that are not.

What is compiled here by the backend `eager` goes through all of torch.compile but the making of C++; `make
test-compiled` compiles every use of `tests/ode/uses.py`, and some by the backend that runs use.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from neuralode_exp.models.flows import Flow
from neuralode_exp.ode import MaxStepsExceeded, Method, NonFiniteState, Solution, make_method, solve
from neuralode_exp.ode.compiled import _PROGRAMS, CompilationWarning, forget_programs
from tests.ode.problems import Z0, TimeMLP, gradients
from tests.ode.test_right_or_refused import METHODS, assert_equal, runner
from tests.ode.test_right_or_refused import gradients as of_use
from tests.ode.uses import RANDOM, USES

MODES = ("backprop", "checkpoint", "adjoint", "reversible")
DOPRI5, RK4 = make_method("dopri5", rtol=1e-4), make_method("rk4", step_size=0.3)


def compiled(method: Method, backend: str = "eager") -> Any:
    return replace(method, compile=backend)  # type: ignore[type-var]


def counts(solution: Solution) -> tuple[int, ...]:
    stats = solution.stats
    return stats.nfe_forward, stats.nfe_backward, stats.accepted, stats.rejected


def assert_same(f: nn.Module, method: Method, mode: Any, backend: str, z0: Tensor = Z0, times: Any = None) -> None:
    """States, gradients and counts, to round-off."""
    z0, results = z0.clone().requires_grad_(), []
    for way in (method, compiled(method, backend)):
        solution = solve(f, z0, times or [0.0, 0.4, 1.0], way, mode)
        results.append([solution.z.detach(), *gradients(solution.z, z0, *f.parameters()), counts(solution)])
    (*plain, counts_of_plain), (*found, counts_of_found) = results
    assert counts_of_found == counts_of_plain
    for g, exact in zip(found, plain, strict=True):
        assert torch.allclose(g, exact, rtol=1e-10, atol=1e-10)  # sums of a few hundred numbers in float64


def test_numbers_and_counts_with_one_program_for_all_steps() -> None:
    """Every step has another size; the programs are those of a step, and of f where backward begins one."""
    f = TimeMLP()
    assert_same(f, DOPRI5, "checkpoint", "eager")
    assert {program.count for program in _PROGRAMS[f].values()} == {1}
    assert_same(f, make_method("dopri5", rtol=1e-6), "checkpoint", "eager")  # no other programs
    assert {program.count for program in _PROGRAMS[f].values()} == {1}


def test_a_solve_without_a_gradient_needs_one_program() -> None:
    f = TimeMLP()
    with torch.no_grad():
        solve(f, Z0, [0.0, 0.4, 1.0], compiled(DOPRI5))
    assert [program.count for program in _PROGRAMS[f].values()] == [1]


def test_what_cannot_be_compiled_runs_as_without_and_says_why() -> None:
    def branches(t: Tensor, z: Tensor) -> Tensor:
        return -z if t < 0.5 else z

    with pytest.warns(CompilationWarning, match=r"Data-dependent branching .*return -z if t < 0.5") as warned:
        z = solve(branches, Z0, [0.0, 1.0], compiled(DOPRI5), stops=[0.5]).z
    assert len(warned) == 1
    assert torch.equal(z, solve(branches, Z0, [0.0, 1.0], DOPRI5, stops=[0.5]).z)


@pytest.mark.parametrize("mode", ["backprop", "checkpoint"])
def test_random_numbers_are_those_of_an_uncompiled_solve(mode: Any) -> None:
    results = []
    for method in (RK4, compiled(RK4)):
        torch.manual_seed(0)
        z0 = Z0.clone().requires_grad_()
        with pytest.warns(CompilationWarning, match="random numbers") if method.compile else nullcontext():
            z = solve(lambda t, z: -z * torch.rand_like(z), z0, [0.0, 1.0], method, mode).z
        results.append((z.detach(), *torch.autograd.grad(z.sum(), z0)))
    for found, exact in zip(*results, strict=True):
        assert torch.equal(found, exact)


@pytest.mark.compiled
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", [DOPRI5, RK4, make_method("dop853", rtol=1e-6), make_method("bosh3", rtol=1e-3)])
def test_every_mode(mode: Any, method: Method) -> None:
    assert_same(TimeMLP(), method, mode, "aot_eager")


@pytest.mark.compiled
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_made_into_machine_code(mode: Any, precision: torch.dtype) -> None:
    f, z0 = TimeMLP().to(precision), Z0.to(precision).requires_grad_()
    found, exact = (
        gradients(solve(f, z0, [0.0, 1.0], method, mode).z, z0, *f.parameters())
        for method in (compiled(RK4, "inductor"), RK4)
    )
    for g, g_exact in zip(found, exact, strict=True):
        assert torch.allclose(g, g_exact, rtol=0, atol=200 * torch.finfo(precision).eps)


@pytest.mark.compiled
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
@pytest.mark.parametrize("mode", ["backprop", "checkpoint", "adjoint"])
@pytest.mark.parametrize("name", USES)
@pytest.mark.filterwarnings("ignore::neuralode_exp.ode.compiled.CompilationWarning")
def test_every_use_is_right_or_refused(name: str, mode: str, method: str) -> None:
    """As without, to round-off; what is refused without is refused, and nothing else."""
    if name in RANDOM and (method == "dopri5" or mode == "adjoint"):
        pytest.skip("noise has no order of convergence")
    try:
        exact = of_use(USES[name], runner(METHODS[method], mode))
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - whatever is said without
            of_use(USES[name], runner(compiled(METHODS[method]), mode))
        return
    assert_equal(of_use(USES[name], runner(compiled(METHODS[method]), mode)), exact, 1e-8)


@pytest.mark.compiled
def test_failures_are_typed() -> None:
    with pytest.raises(NonFiniteState):
        solve(lambda t, z: torch.where(t < 0.5, -z, z * math.nan), Z0, [0.0, 1.0], compiled(DOPRI5))
    with pytest.raises(MaxStepsExceeded):
        solve(TimeMLP(), Z0, [0.0, 1.0], compiled(make_method("dopri5", rtol=1e-9, max_steps=3)))


class Counter(TimeMLP):
    calls = 0

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(t, z) + 0 * self.calls


@pytest.mark.compiled
def test_a_field_that_is_never_the_same_is_given_up() -> None:
    with pytest.warns(CompilationWarning, match="as a counter"):
        solve(Counter(), Z0, [0.0, 5.0], compiled(RK4))


@pytest.mark.compiled
def test_a_second_start_finds_its_programs_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    f, z0, found = TimeMLP(), Z0.clone().requires_grad_(), []
    for _ in range(2):
        forget_programs()
        torch._dynamo.reset()
        counters.clear()
        z = solve(f, z0, [0.0, 1.0], compiled(RK4, "inductor")).z
        found.append((z, *gradients(z, z0, *f.parameters())))
        assert counters["inductor"]["fxgraph_cache_bypass"] == 0
    assert counters["aot_autograd"]["autograd_cache_hit"] == len(_PROGRAMS[f]) > 0
    assert counters["aot_autograd"]["autograd_cache_miss"] == 0
    for second, first in zip(*found, strict=True):
        assert torch.equal(second, first)


@pytest.mark.compiled
@pytest.mark.parametrize("mode", ["backprop", "checkpoint"])
def test_a_trace_by_forward_derivatives(mode: Any) -> None:
    """Of a network whose tangents are zero in part: those have no memory of their own."""
    x, found = torch.linspace(-1.0, 1.0, 12).view(6, 2), []
    for method in (make_method("rk4", step_size=0.4), make_method("rk4", step_size=0.4, compile=True)):
        torch.manual_seed(0)
        flow = Flow(2, field=Gained(), method=method, gradient=mode)
        found.append(torch.autograd.grad(flow.log_prob(x).sum(), tuple(flow.parameters())))
    for g, exact in zip(*found, strict=True):
        assert torch.allclose(g, exact, rtol=1e-4, atol=1e-5)  # float32


class Gained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return self.net(z) * torch.cos(t)
