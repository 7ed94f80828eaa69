"""What a user's f, times and hooks may do at the edges: the right numbers, or one line that says why not."""

from __future__ import annotations

import gc
import itertools
import math
import pickle
import threading

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from neuralode_exp.ode import NonFiniteState, SolverError, StepSizeUnderflow, make_method, solve
from tests.ode.problems import Z0, Linear, Spy, TimeMLP

MODES = ("backprop", "checkpoint", "adjoint", "reversible")
TIGHT = make_method("dopri5", rtol=1e-8)
RK4 = make_method("rk4", step_size=0.1)
ONES = torch.ones(2, dtype=torch.float64)


@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize("captured", [False, True], ids=["leaf", "captured"])
def test_hooks_on_tensors_run_once(gradient: str, captured: bool) -> None:
    leaf, calls = torch.tensor(0.7, dtype=torch.float64, requires_grad=True), []
    rate = leaf * 1.0 if captured else leaf
    rate.register_hook(lambda g: calls.append(g) or 2 * g)
    z = solve(lambda t, z: rate * z, ONES, [0.0, 1.0], TIGHT, gradient).z
    (found,) = torch.autograd.grad(z[-1].sum(), leaf)
    assert len(calls) == 1
    assert float(found) == pytest.approx(2 * 2 * float(torch.exp(leaf.detach())), rel=1e-6)


@pytest.mark.parametrize("gradient", MODES)
def test_retain_grad_sees_the_whole_gradient(gradient: str) -> None:
    leaf = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    rate = leaf * 1.0
    rate.retain_grad()
    solve(lambda t, z: rate * z, ONES, [0.0, 1.0], TIGHT, gradient).z[-1].sum().backward()
    assert float(rate.grad) == pytest.approx(float(leaf.grad), rel=1e-12)


@pytest.mark.parametrize("gradient", ["checkpoint", "reversible"])
@pytest.mark.parametrize("change", [lambda c: -c, lambda c: 3 * c], ids=["sign", "size"])
def test_a_change_that_only_later_times_see_is_refused(gradient: str, change: object) -> None:
    c, rate = [1.0], torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    z = solve(lambda t, z: rate * c[0] * torch.sin(t) * z, ONES, [0.0, 2.0], TIGHT, gradient).z
    c[0] = change(c[0])
    with pytest.raises(ValueError, match="must be the same in backward as in the solve"):
        z[-1].sum().backward()


@pytest.mark.parametrize("name", ["rk4", "dopri5", "dop853"])
def test_a_stop_is_one_in_the_precision_that_f_sees(name: str) -> None:
    method = make_method(name, step_size=0.1) if name == "rk4" else make_method(name, rtol=1e-5)
    t = torch.linspace(0, 1, 11)  # its float32 of 0.3 is beside the float64
    z = solve(lambda t, z: torch.where(t > 0.3, 10.0, 1.0) + 0 * z, torch.zeros(1), t, method, stops=[0.3]).z
    assert float(z[-1]) == pytest.approx(0.3 + 7.0, rel=1e-5)


def test_the_gradient_of_t_at_a_stop_is_that_of_its_side() -> None:
    t = torch.tensor([0.5, 1.0], dtype=torch.float64, requires_grad=True)
    spy = Spy(Linear())  # only to see when f is called
    z = solve(
        lambda t, z: (spy.times.append(float(t)) or 1.0) * z * torch.where(t > 0.5, 2.0, 1.0),
        ONES,
        t,
        TIGHT,
        stops=[0.5],
    ).z
    (found,) = torch.autograd.grad(z[-1].sum(), t)
    growth = 2 * float(torch.exp(torch.tensor(1.0, dtype=torch.float64)))
    assert found.tolist() == pytest.approx([-2 * growth, 2 * growth], rel=1e-6)
    assert 0.5 not in spy.times


def test_t_can_be_differentiated_once() -> None:
    t = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    z = solve(lambda t, z: -z, ONES, t, TIGHT).z
    with pytest.raises(RuntimeError, match="can be differentiated once if t requires a gradient"):
        torch.autograd.grad(z.sum(), t, create_graph=True)


@pytest.mark.parametrize("name", ["rk4", "dopri5", "dop853"])
def test_a_part_that_the_norm_leaves_out_is_checked(name: str) -> None:
    method = make_method(name, step_size=0.1) if name == "rk4" else make_method(name)
    with pytest.raises(NonFiniteState):
        solve(
            lambda t, z: (-z[0], torch.sqrt(0.5 - t) + 0 * z[1]),
            (ONES, ONES),
            [0.0, 1.0],
            method,
            in_norm=(True, False),
        )


def test_times_and_stops_are_numbers() -> None:
    late = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(
        ValueError, match=r"`t` must hold numbers, got t\[1\], a tensor that requires a gradient; pass one"
    ):
        solve(Linear(), Z0, [torch.tensor(0.0), late], TIGHT)
    with pytest.raises(ValueError, match=r"`stops` must hold numbers, got stops\[0\].*detach it"):
        solve(Linear(), Z0, [0.0, 2.0], TIGHT, stops=[late])


@pytest.mark.parametrize("method", [RK4, TIGHT], ids=["rk4", "dopri5"])
def test_f_must_not_write_to_what_it_got_or_gave(method: object) -> None:
    buffer = torch.empty(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="must return a new tensor at each call"):
        solve(lambda t, z: torch.mul(z, -1, out=buffer), ONES, [0.0, 1.0], method)
    with pytest.raises(ValueError, match="must not change z in place"):
        solve(lambda t, z: z.neg_(), ONES.clone(), [0.0, 1.0], method)


def test_two_buffers_in_turn_are_refused() -> None:
    buffers = itertools.cycle([torch.empty_like(ONES), torch.empty_like(ONES)])
    with torch.no_grad(), pytest.raises(ValueError, match="must return a new tensor at each call"):
        solve(lambda t, z: torch.neg(z, out=next(buffers)), ONES, [0.0, 1.0], make_method("rk4", step_size=0.1))


@pytest.mark.parametrize("graph", [True, False])
def test_observations_of_a_channels_last_state(graph: bool) -> None:
    z0 = torch.rand(2, 3, 4, 5, dtype=torch.float64).to(memory_format=torch.channels_last)
    with torch.set_grad_enabled(graph):
        z = solve(lambda t, z: -z, z0, [0.0, 0.3, 0.6, 1.0], make_method("dopri5", rtol=1e-9)).z
    torch.testing.assert_close(z[2], math.exp(-0.6) * z0, rtol=1e-8, atol=0.0)
    assert z[2].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint", "reversible"])
def test_forward_mode_is_refused(gradient: str) -> None:
    z0, method = ONES.clone().requires_grad_(), make_method("rk4", step_size=0.1)
    with forward_ad.dual_level():
        w, t = forward_ad.make_dual(ONES, ONES), forward_ad.make_dual(torch.tensor([0.0, 1.0]), torch.ones(2))
        with pytest.raises(ValueError, match="forward mode"):
            solve(lambda t, z: -w * z, z0, [0.0, 1.0], method, gradient)
        with pytest.raises(ValueError, match="forward mode"):
            solve(lambda t, z: -z, z0, t, method, gradient)


@pytest.mark.parametrize("gradient", MODES)
def test_an_f_that_differentiates_itself_with_a_gradient_of_t(gradient: str) -> None:
    t = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    calls = []

    def f(t: Tensor, z: Tensor) -> Tensor:
        calls.append(t)
        return -torch.autograd.grad((z**2).sum(), z, create_graph=True)[0]

    solution = solve(f, ONES, t, TIGHT, gradient)
    assert len(calls) == solution.stats.nfe_forward
    (found,) = torch.autograd.grad(solution.z[-1].sum(), t)
    assert found.tolist() == pytest.approx(
        [4 * float(torch.exp(torch.tensor(-2.0))), -4 * float(torch.exp(torch.tensor(-2.0)))], rel=1e-5
    )


@pytest.mark.parametrize("outer", ["checkpoint", "adjoint"])
@pytest.mark.parametrize("inner", ["backprop", "checkpoint", "adjoint"])
def test_backward_of_nested_solves_in_another_thread(outer: str, inner: str) -> None:
    p = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    w = torch.exp(p)

    def f(t: Tensor, z: Tensor) -> Tensor:
        return -solve(lambda s, x: w * x, z, [0.0, 0.5], RK4, inner).z[-1]

    exact = solve(f, ONES, [0.0, 1.0], RK4).z[-1].sum()
    (wanted,) = torch.autograd.grad(exact, p, retain_graph=True)
    loss = solve(f, ONES, [0.0, 1.0], RK4, outer).z[-1].sum()
    thread = threading.Thread(target=loss.backward)
    thread.start()
    thread.join()
    assert p.grad is not None
    assert float(p.grad) == pytest.approx(float(wanted), rel=1e-12 if {outer, inner} == {"checkpoint"} else 1e-3)


@pytest.mark.parametrize("kind", [NonFiniteState, StepSizeUnderflow])
def test_errors_can_be_sent_by_a_worker(kind: type[SolverError]) -> None:
    error = kind(t=0.5, dt=0.1, steps=3, z=ONES)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert (again.t, again.dt, again.steps) == (0.5, 0.1, 3)
    assert torch.equal(again.state, ONES)


@pytest.mark.parametrize("gradient", MODES)
def test_nothing_waits_for_the_garbage_collector(gradient: str) -> None:
    f = TimeMLP()
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(x, Tensor) for x in gc.get_objects())
        for _ in range(3):
            solve(f, Z0, [0.0, 0.5, 1.0], RK4, gradient).z.sum().backward()
        after = sum(isinstance(x, Tensor) for x in gc.get_objects())
    finally:
        gc.enable()
    assert after - before <= len(list(f.parameters()))  # their gradients


def test_a_long_span_may_start_with_short_steps() -> None:
    z = solve(lambda t, z: -z * torch.exp(-t), ONES, [0.0, 1e15], make_method("dopri5", rtol=1e-6)).z[-1]
    assert z.tolist() == pytest.approx([float(torch.exp(torch.tensor(-1.0)))] * 2, rel=1e-4)
