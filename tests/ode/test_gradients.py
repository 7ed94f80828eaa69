"""Gradients of every mode against finite differences, closed forms and each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from neuralode_exp.ode import TABLEAUS, Method, make_method, solve
from tests.ode.problems import Z0, Linear, Spy, TimeMLP, adaptive, fixed, gradients

MODES = ("backprop", "checkpoint", "adjoint")
INCREASING = torch.tensor([0.1, 0.35, 0.4, 1.0], dtype=torch.float64)
DECREASING = torch.tensor([1.0, 0.8, 0.3, 0.2], dtype=torch.float64)
ADAPTIVE = [name for name, tableau in TABLEAUS.items() if tableau.e is not None]
TIGHT = make_method("dopri5", rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("t", [INCREASING, DECREASING], ids=["increasing", "decreasing"])
@pytest.mark.parametrize("name", ["rk4", "dopri5"])
@pytest.mark.parametrize("gradient", ["backprop", "checkpoint"])
def test_gradcheck_of_fixed_steps(gradient: str, name: str, t: Tensor) -> None:
    """These modes differentiate the steps themselves, so finite differences agree at any step size."""
    method = fixed(name, 0.3)
    f = TimeMLP()
    parameters = tuple(f.parameters())

    def z_of(z0: Tensor, *_: Tensor) -> Tensor:
        return solve(f, z0, t, method, gradient).z

    assert torch.autograd.gradcheck(z_of, (Z0.clone().requires_grad_(), *parameters))


@pytest.mark.parametrize("t", [INCREASING, DECREASING], ids=["increasing", "decreasing"])
def test_gradcheck_of_the_adjoint(t: Tensor) -> None:
    f = TimeMLP()
    parameters = tuple(f.parameters())

    def z_of(z0: Tensor, *_: Tensor) -> Tensor:
        return solve(f, z0, t, TIGHT, "adjoint").z

    # Forward errors of 1e-10 over eps = 1e-4 make 1e-6 in the differences. A single cotangent excites one observation.
    assert torch.autograd.gradcheck(
        z_of, (Z0.clone().requires_grad_(), *parameters), eps=1e-4, atol=1e-5, fast_mode=True
    )


@pytest.mark.parametrize("t", [INCREASING, DECREASING], ids=["increasing", "decreasing"])
@pytest.mark.parametrize("name", ["dopri5", "tsit5", "dopri8", "rk4"])
@pytest.mark.parametrize("gradient", MODES)
def test_gradients_of_the_matrix_exponential(gradient: str, name: str, t: Tensor) -> None:
    """z0, the matrix and every time, several observations: all from autograd through exp(A (t - t0)) z0."""
    method = make_method(name, step_size=0.002) if name == "rk4" else make_method(name, rtol=1e-11, atol=1e-11)
    f, z0, t = Linear(), Z0.clone().requires_grad_(), t.clone().requires_grad_()
    inputs = (z0, t, f.matrix)
    found = gradients(solve(f, z0, t, method, gradient).z, *inputs)
    exact = gradients(f.exact(t, z0), *inputs)
    for g, g_exact in zip(found, exact, strict=True):
        # Tolerance 1e-11 over tens of steps, amplified by the quadratic loss; rk4's global error is (2 dt)^4 = 3e-10.
        assert torch.allclose(g, g_exact, rtol=1e-8, atol=1e-8)


def test_the_gradient_of_t_is_that_of_the_continuous_solution() -> None:
    """dz_i/dt_i = f(t_i, z_i) and dz_i/dt_0 = -dz_i/dz_0 f(t_0, z_0), z[0] = z0 does not depend on t_0."""
    f, z0, t = TimeMLP(), Z0.clone(), INCREASING.clone().requires_grad_()
    z = solve(f, z0, t, TIGHT).z
    adj = torch.linspace(-1, 1, z.numel(), dtype=z.dtype).reshape(z.shape)
    (found,) = torch.autograd.grad((adj * z).sum(), t)
    z0.requires_grad_()
    z = solve(f, z0, INCREASING, TIGHT).z
    (adj_z0,) = torch.autograd.grad((adj[1:] * z[1:]).sum(), z0)
    dz = torch.stack([f(t_i, z_i) for t_i, z_i in zip(INCREASING, z, strict=True)])
    expected = (adj * dz).sum((1, 2))
    expected[0] = -(adj_z0 * dz[0]).sum()
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("t", [INCREASING, DECREASING], ids=["increasing", "decreasing"])
@pytest.mark.parametrize(
    "method",
    [fixed(name, 0.13) for name in TABLEAUS] + [adaptive(name, rtol=1e-3, atol=1e-3) for name in ADAPTIVE],
    ids=[*TABLEAUS, *(f"{name}-adaptive" for name in ADAPTIVE)],
)
def test_checkpoint_equals_backprop(method: Method, t: Tensor) -> None:
    f, z0, t = TimeMLP(), Z0.clone().requires_grad_(), t.clone().requires_grad_()
    inputs = (z0, t, *f.parameters())
    exact = gradients(solve(f, z0, t, method, "backprop").z, *inputs)
    found = gradients(solve(f, z0, t, method, "checkpoint").z, *inputs)
    for g, g_exact in zip(found, exact, strict=True):
        assert torch.allclose(g, g_exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["dopri5", "tsit5", "bosh3", "dopri8", "adaptive-heun"])
def test_adjoint_converges_to_the_exact_gradient(name: str) -> None:
    f, z0 = TimeMLP(), Z0.clone().requires_grad_()
    inputs = (z0, *f.parameters())
    exact = gradients(solve(f, z0, INCREASING, TIGHT, "backprop").z, *inputs)
    errors = []
    tolerances = (1e-2, 1e-3, 1e-4) if name == "adaptive-heun" else (1e-3, 1e-5, 1e-7)
    for rtol in tolerances:
        method = make_method(name, rtol=rtol, atol=rtol)
        found = gradients(solve(f, z0, INCREASING, method, "adjoint").z, *inputs)
        errors.append(max(float((g - e).abs().max()) for g, e in zip(found, exact, strict=True)))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 30 * tolerances[2]


def test_adjoint_of_fixed_steps_converges_with_the_order() -> None:
    f, z0 = TimeMLP(), Z0.clone().requires_grad_()
    inputs = (z0, *f.parameters())
    exact = gradients(solve(f, z0, INCREASING, TIGHT, "backprop").z, *inputs)
    errors = []
    for dt in (0.1, 0.05):
        method = make_method("rk4", step_size=dt)
        found = gradients(solve(f, z0, INCREASING, method, "adjoint").z, *inputs)
        errors.append(max(float((g - e).abs().max()) for g, e in zip(found, exact, strict=True)))
    assert 8 < errors[0] / errors[1] < 32  # 2^4


@pytest.mark.parametrize("name", TABLEAUS)
def test_checkpoint_evaluates_each_stage_but_the_last_steps_once_more(name: str) -> None:
    """The first stage of the last step too where it is the closing one of the step before, which keeps no graph."""
    tableau = TABLEAUS[name]
    equal = solve(TimeMLP(), Z0, [0.0, 0.5, 1.0], fixed(name, 0.1), "checkpoint")
    equal.z.sum().backward()
    assert equal.stats.nfe_backward == tableau.stages * 9
    if tableau.e is None:
        return
    chosen = solve(TimeMLP(), Z0, [0.0, 1.0], adaptive(name, rtol=1e-5, atol=1e-5), "checkpoint")
    chosen.z.sum().backward()
    assert chosen.stats.accepted > 1
    assert chosen.stats.nfe_backward == tableau.stages * (chosen.stats.accepted - 1) + 1
    if tableau.dense is None:
        return
    # A step with observations inside, however many, needs its closing derivative too.
    method = adaptive(name, rtol=1e6, atol=1e6, first_step=0.5)
    dense = solve(TimeMLP(), Z0, [0.0, 0.1, 0.2, 0.5, 1.0], method, "checkpoint")
    dense.z.sum().backward()
    assert dense.stats.accepted == 2
    assert dense.stats.nfe_backward == len(tableau.nodes) + 1


def test_backward_evaluations_of_the_other_modes() -> None:
    method = make_method("rk4", step_size=0.1)
    adjoint = solve(TimeMLP(), Z0, [0.0, 0.5, 1.0], method, "adjoint")
    adjoint.z.sum().backward()
    assert adjoint.stats.nfe_backward == 4 * 10
    backprop = solve(TimeMLP(), Z0, [0.0, 0.5, 1.0], method, "backprop")
    backprop.z.sum().backward()
    assert backprop.stats.nfe_backward == 0


def test_each_interval_of_the_adjoint_starts_with_the_last_step_size() -> None:
    """A blind start costs a probe and short steps; after the first interval k_0 is all that is evaluated anew."""
    t = [i / 8 for i in range(9)]
    solution = solve(TimeMLP(), Z0, t, make_method("dopri5", rtol=1e-3, atol=1e-3), "adjoint")
    solution.z.sum().backward()
    assert solution.stats.nfe_backward == (2 + 2 * 6) + 7 * (1 + 6)


def test_adjoint_method_has_its_own_tolerances() -> None:
    f, z0 = TimeMLP(), Z0.clone().requires_grad_()
    loose = make_method("dopri5", rtol=1e-2, atol=1e-2)
    nfe = {}
    for name, method in {"same": None, "tight": TIGHT, "rk4": make_method("rk4", step_size=0.05)}.items():
        solution = solve(f, z0, [0.0, 1.0], loose, "adjoint", adjoint_method=method)
        solution.z.sum().backward()
        nfe[name] = solution.stats.nfe_backward
    assert nfe["tight"] > 3 * nfe["same"]
    assert nfe["rk4"] == 80


@pytest.mark.parametrize("gradient", MODES)
def test_a_function_with_parameters_given(gradient: str) -> None:
    """A lambda, with a parameter that is itself computed: gradients go on through it."""
    leaf = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    rate = leaf**2
    z = solve(lambda t, z: -rate * z, Z0, [0.0, 1.0], TIGHT, gradient, parameters=[rate]).z
    (found,) = torch.autograd.grad(z[-1].sum(), leaf)
    exact = -2 * 0.7 * float((torch.exp(-rate) * Z0.sum()).detach())
    assert float(found) == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_no_parameters_is_an_answer(gradient: str) -> None:
    z0 = Z0.clone().requires_grad_()
    z = solve(lambda t, z: -z, z0, [0.0, 1.0], TIGHT, gradient, parameters=()).z
    (found,) = torch.autograd.grad(z[-1].sum(), z0)
    assert torch.allclose(found, torch.full_like(found, -1.0).exp(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("gradient", MODES)
def test_frozen_parameters_get_no_gradient(gradient: str) -> None:
    f, z0 = TimeMLP(), Z0.clone().requires_grad_()
    f.w1.requires_grad_(False)
    solve(f, z0, INCREASING, TIGHT, gradient).z.sum().backward()
    assert f.w1.grad is None
    assert f.w2.grad is not None
    assert z0.grad is not None
    f.requires_grad_(False)
    alone = Z0.clone().requires_grad_()
    solve(f, alone, INCREASING, TIGHT, gradient).z.sum().backward()
    assert alone.grad is not None
    assert torch.allclose(alone.grad, z0.grad)


@pytest.mark.parametrize("gradient", MODES)
def test_a_state_that_needs_no_gradient(gradient: str) -> None:
    f = TimeMLP()
    solve(f, Z0, INCREASING, TIGHT, gradient).z.sum().backward()
    assert f.w1.grad is not None
    assert f.unused.grad is None or not f.unused.grad.any()


@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(gradient: str, context: Callable) -> None:
    f = TimeMLP()
    with context():
        z = solve(f, Z0, INCREASING.clone(), TIGHT, gradient).z
    assert not z.requires_grad
    # Without a graph the observations inside steps are one product: other sums of the same terms.
    assert torch.allclose(z, solve(f, Z0, INCREASING, TIGHT, gradient).z.detach(), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize("method", [TIGHT, make_method("rk4", step_size=0.1)], ids=["dopri5", "rk4"])
def test_a_field_that_depends_on_nothing(gradient: str, method: Method) -> None:
    z0 = Z0.clone().requires_grad_()
    z = solve(lambda t, z: torch.ones_like(z), z0, [0.0, 0.5, 2.0], method, gradient, parameters=()).z
    z.sum().backward()
    assert torch.allclose(z[-1], Z0 + 2)
    assert z0.grad is not None
    assert torch.equal(z0.grad, torch.full_like(Z0, 3.0))


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_double_backward_is_refused(gradient: str) -> None:
    z0 = Z0.clone().requires_grad_()
    z = solve(TimeMLP(), z0, [0.0, 1.0], TIGHT, gradient).z
    with pytest.raises(
        RuntimeError, match=f"gradient='{gradient}' can be differentiated once.*use gradient='backprop'"
    ):
        torch.autograd.grad(z.sum(), z0, create_graph=True)


def test_second_derivatives_through_backprop() -> None:
    """d^2 z / dz0^2 of dz/dt = -2 t z^2: z = z0 / (1 + z0 t^2), z'' = -2 t^2 / (1 + z0 t^2)^3."""
    z0 = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    z = solve(lambda t, z: -2 * t * z * z, z0, [0.0, 1.5], TIGHT).z[-1]
    (first,) = torch.autograd.grad(z, z0, create_graph=True)
    (second,) = torch.autograd.grad(first, z0)
    assert float(second) == pytest.approx(-2 * 1.5**2 / (1 + 0.8 * 1.5**2) ** 3, rel=1e-7)


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_backward_twice_over_a_retained_graph(gradient: str) -> None:
    f, z0 = TimeMLP(), Z0.clone().requires_grad_()
    solution = solve(f, z0, INCREASING, TIGHT, gradient)
    first = torch.autograd.grad(solution.z.sum(), (z0, f.w1), retain_graph=True)
    nfe = solution.stats.nfe_backward
    second = torch.autograd.grad(solution.z.sum(), (z0, f.w1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    # The graph that checkpoint keeps of the last step serves one backward: its stages but the first, evaluated again.
    kept = TABLEAUS["dopri5"].stages - 1 if gradient == "checkpoint" else 0
    assert solution.stats.nfe_backward == 2 * nfe + kept


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_parameters_changed_before_backward_are_noticed(gradient: str) -> None:
    f = TimeMLP()
    z = solve(f, Z0, [0.0, 1.0], TIGHT, gradient).z
    with torch.no_grad():
        f.w1.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@pytest.mark.parametrize("gradient", MODES)
def test_stages_are_evaluated_where_the_forward_solve_was(gradient: str) -> None:
    """Checkpoint repeats the stage times of the steps before the last; backprop evaluates nothing in backward."""
    f = Spy(TimeMLP())
    solution = solve(f, Z0, [0.0, 1.0], make_method("rk4", step_size=0.25), gradient)
    forward = list(f.times)
    f.times.clear()
    solution.z.sum().backward()
    if gradient == "checkpoint":
        assert sorted(f.times) == sorted(forward[:-4])
    elif gradient == "backprop":
        assert not f.times
