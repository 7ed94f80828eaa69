"""A gradient is right in every mode, or it is refused with the reason: never a zero without a word."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from neuralode_exp.ode import Method, make_method, solve
from tests.ode.uses import DIFFERENT_TIMES, RANDOM, SPAN, USES, Field, Loss, Run, leaf, mlp, named, size
from tests.ode.uses_of_fields import Hamiltonian

MODES = ("backprop", "checkpoint", "adjoint")
TIGHT = make_method("dopri5", rtol=1e-9, atol=1e-9)
METHODS = {
    "rk4, one step": make_method("rk4", step_size=10.0),
    "rk4": make_method("rk4", step_size=0.27),
    "dopri5, one step": make_method("dopri5", rtol=1e6, atol=1e6, first_step=10.0),
    "dopri5": make_method("dopri5", rtol=1e-5, atol=1e-5),
}
CERTAIN = [name for name in USES if name not in RANDOM]


def runner(method: Method, gradient: str) -> Run:
    return lambda f, z0, t, **parameters: solve(f, z0, t, method, gradient, **parameters).z


def with_torchdiffeq(f: Callable[[Tensor, Tensor], Tensor], z0: Tensor, t: Tensor | list[float], **_: object) -> Tensor:
    z: Tensor = torchdiffeq.odeint(f, z0, torch.as_tensor(t, dtype=z0.dtype), rtol=1e-9, atol=1e-9, method="dopri5")
    return z


def gradients(case: Callable[[Run], Loss], run: Run) -> dict[str, Tensor | None]:
    torch.manual_seed(0)
    loss, leaves = case(run)
    loss.backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


def assert_equal(found: dict[str, Tensor | None], exact: dict[str, Tensor | None], tolerance: float) -> None:
    """Relative to the largest entry of each gradient; a gradient that is missing or zero where it is not fails."""
    for name, expected in exact.items():
        assert expected is not None, f"the reference has no gradient of {name}"
        assert expected.any(), f"the reference's gradient of {name} is zero"
        got = found[name]
        assert got is not None, f"the gradient of {name} is lost"
        error = float((got - expected).abs().max() / expected.abs().max())
        assert error <= tolerance, f"the gradient of {name} is off by {error:.1e}"


def assert_right_or_refused(
    case: Callable[[Run], Loss], method: Method, gradient: str, tolerance: float, reason: str
) -> None:
    """As with `backprop`, or a ValueError with its reason."""
    exact = gradients(case, runner(method, "backprop"))
    try:
        found = gradients(case, runner(method, gradient))
    except ValueError as error:
        message = str(error)
    else:
        return assert_equal(found, exact, tolerance)
    assert re.search(reason, message)
    return None


@pytest.mark.parametrize("name", [name for name in CERTAIN if name not in DIFFERENT_TIMES])
def test_backprop_agrees_with_torchdiffeq(name: str) -> None:
    """What the other modes are compared with is right itself."""
    found = gradients(USES[name], runner(TIGHT, "backprop"))
    assert_equal(found, gradients(USES[name], with_torchdiffeq), 1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", USES)
def test_checkpoint_equals_backprop(name: str, method: str) -> None:
    if name in RANDOM and "dopri5" in method:
        pytest.skip("an adaptive method has no steps for noise")
    exact = gradients(USES[name], runner(METHODS[method], "backprop"))
    assert_equal(gradients(USES[name], runner(METHODS[method], "checkpoint")), exact, 1e-8)


@pytest.mark.parametrize("name", CERTAIN)
def test_adjoint_agrees_with_backprop(name: str) -> None:
    exact = gradients(USES[name], runner(TIGHT, "backprop"))
    assert_equal(gradients(USES[name], runner(TIGHT, "adjoint")), exact, 1e-5)


@pytest.mark.parametrize("name", sorted(RANDOM))
@pytest.mark.parametrize("method", ["rk4", "rk4, one step"])
def test_adjoint_of_a_random_field_is_refused(name: str, method: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)random.*(fix|same noise).*checkpoint"):
        gradients(USES[name], runner(METHODS[method], "adjoint"))


def test_the_adjoint_of_a_field_that_is_random_later_is_refused() -> None:
    z0 = torch.ones(3, dtype=torch.float64, requires_grad=True)
    method = make_method("rk4", step_size=0.1)
    with pytest.raises(ValueError, match="got an f that draws random numbers"):
        solve(lambda t, z: -z * (torch.rand(()) if t > 0.5 else 1.0), z0, [0.0, 1.0], method, "adjoint")


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint"])
def test_random_numbers_after_backward_are_those_of_backprop(gradient: str) -> None:
    """Backward draws the masks of the forward solve again and leaves the generator where it was."""
    drawn = []
    for mode in ("backprop", gradient):
        gradients(USES["dropout"], runner(METHODS["rk4"], mode))
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


@pytest.mark.parametrize("inner", MODES)
@pytest.mark.parametrize("outer", MODES)
@pytest.mark.parametrize("method", ["rk4, one step", "rk4", "tight"])
def test_a_solve_inside_f(outer: str, inner: str, method: str) -> None:
    """f's own solve is short, so that the continuous adjoint of its five rk4 steps is theirs to 1e-8 or so."""
    step = TIGHT if method == "tight" else METHODS[method]
    if outer == "adjoint" and method != "tight":
        pytest.skip("the adjoint of coarse steps is not their derivative")
    short = make_method("rk4", step_size=0.02)

    def nested(run: Run, run_inside: Run) -> Loss:
        f, gain, z0 = Field(), leaf(2), leaf(3, 2)
        inside = Field(nn.Sequential(f.net[0], nn.Tanh(), nn.Linear(5, 2, dtype=torch.float64)))
        z = run(lambda t, z: f(t, z) + gain * run_inside(inside, gain * z, [0.0, 0.1])[-1], z0, SPAN)
        return size(z[-1]), {**named(f=f, inside=inside), "gain": gain, "z0": z0}

    def all_gradients(outer: str, inner: str) -> dict[str, Tensor | None]:
        return gradients(lambda run: nested(run, runner(short, inner)), runner(step, outer))

    exact = all_gradients("backprop", "backprop")
    assert_equal(all_gradients(outer, inner), exact, 1e-5 if "adjoint" in (outer, inner) else 1e-8)


@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize("method", METHODS)
def test_frozen_layers_stay_without_a_gradient(gradient: str, method: str) -> None:
    f, z0 = Field(), leaf(3, 2)
    f.net[0].requires_grad_(False)
    size(solve(f, z0, SPAN, METHODS[method], gradient).z[-1]).backward()
    assert f.net[0].weight.grad is None
    assert f.net[2].weight.grad is not None


@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize("method", METHODS)
def test_a_hamiltonian_field_needs_no_enable_grad_of_its_own(gradient: str, method: str) -> None:
    torch.manual_seed(0)
    f, z0 = Hamiltonian(), leaf(3, 2)
    z = solve(f, z0, SPAN, METHODS[method], gradient).z
    size(z).backward()
    weight = f.h[0].weight.grad
    f.zero_grad()
    no_gradient = solve(f, z0.detach(), SPAN, METHODS[method], gradient).z
    size(no_gradient).backward()
    equal = functools.partial(torch.allclose, z, rtol=1e-12, atol=1e-12)
    assert equal(no_gradient)
    assert torch.allclose(f.h[0].weight.grad, weight, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        assert equal(solve(f, z0, SPAN, METHODS[method], gradient).z)
        assert equal(solve(f, z0.detach(), SPAN, METHODS[method], gradient).z)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_backward_twice_over_a_retained_graph(gradient: str, method: str) -> None:
    """Both times with the encoder behind the state and the one behind the context."""
    torch.manual_seed(0)
    encoder, x = mlp(4), torch.randn(3, 4, dtype=torch.float64)
    code = encoder(x)
    z = solve(lambda t, z: torch.tanh(z * code), encoder(-x), SPAN, METHODS[method], gradient).z
    first, second = (torch.autograd.grad(size(z), tuple(encoder.parameters()), retain_graph=True) for _ in range(2))
    assert all(a.any() and torch.equal(a, b) for a, b in zip(first, second, strict=True))


def cached(run: Run) -> Loss:
    """The cache gives weights without a graph to some calls, and weights with a stale one to others."""
    f, z0 = Field(parametrizations.weight_norm(nn.Linear(2, 2, dtype=torch.float64))), leaf(3, 2)
    with parametrize.cached():
        loss = size(run(f, z0, SPAN)[-1])
    return loss, {**named(f=f), "z0": z0}


@pytest.mark.parametrize("method", METHODS)
def test_cached_parametrizations(method: str) -> None:
    exact = gradients(USES["weight_norm"], runner(METHODS[method], "backprop"))
    assert_equal(gradients(cached, runner(METHODS[method], "backprop")), exact, 1e-8)
    with pytest.raises(ValueError, match="cached"):
        gradients(cached, runner(METHODS[method], "checkpoint"))


def test_the_adjoint_of_a_cached_parametrization() -> None:
    assert_right_or_refused(cached, TIGHT, "adjoint", 1e-5, "cached")


@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize("method", METHODS)
def test_autocast_leaves_the_state_its_precision(gradient: str, method: str) -> None:
    """bfloat16 has 8 bits; backward runs outside the region and evaluates f as the forward solve did."""
    torch.manual_seed(0)
    f, z0 = Field(mlp().float()), torch.randn(3, 2, requires_grad=True)
    leaves = {**named(f=f), "z0": z0}
    exact = torch.autograd.grad(size(solve(f, z0, SPAN, METHODS[method]).z[-1]), tuple(leaves.values()))
    seen = set()
    f.net.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = solve(f, z0, SPAN, METHODS[method], gradient).z
    assert z.dtype == torch.float32
    found = torch.autograd.grad(size(z[-1]), tuple(leaves.values()))
    assert seen == {torch.bfloat16}
    assert_equal(dict(zip(leaves, found, strict=True)), dict(zip(leaves, exact, strict=True)), 0.05)


class Late(nn.Module):
    """A weight that only the second half of the time uses."""

    def __init__(self, late: Tensor) -> None:
        super().__init__()
        self.net, self.late = mlp(), late

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        dz: Tensor = self.net(z)
        return dz + self.late * z if t > 0.5 else dz


@pytest.mark.parametrize("how", ["parameter", "listed", "held", "computed"])
@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
@pytest.mark.parametrize("method", ["rk4", "dopri5, one step", "tight"])
def test_a_weight_that_only_later_times_use(method: str, gradient: str, how: str) -> None:
    """Known beforehand it is right; otherwise right, or an error that says how to list it."""
    step = TIGHT if method == "tight" else METHODS[method]
    if gradient == "adjoint" and method != "tight":
        pytest.skip("the adjoint of coarse steps is not their derivative")

    def late(run: Run) -> Loss:
        p, z0 = leaf(1, 2), leaf(3, 2)
        f = Late(p.exp() if how == "computed" else nn.Parameter(p) if how == "parameter" else p)
        z = run(f, z0, SPAN, **({"parameters": [*f.parameters(), f.late]} if how == "listed" else {}))
        return size(z[-1]), {**named(net=f.net), "late": p if how == "computed" else f.late, "z0": z0}

    reason = r"late|\(1, 2\)|parameters=" if how in ("held", "computed") else "it is known, and must be right"
    # The adjoint crosses a jump.
    assert_right_or_refused(late, step, gradient, 1e-8 if gradient == "checkpoint" else 1e-3, reason)


class Remembering(Field):
    """dz/dt = net(z) + 0.1 (the state of the call before): no vector field, and no graph of one evaluation alone."""

    before: Tensor | float = 0.0

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        dz = self.net(z) + 0.1 * self.before
        self.before = z
        return dz


class Lazy(nn.Module):
    """A weight that the first call computes and the others use again."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.randn(2, 2, dtype=torch.float64))

    @functools.cached_property
    def weight(self) -> Tensor:
        return torch.exp(self.raw)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return torch.tanh(z @ self.weight)


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_kept_from_one_call_to_the_next_is_refused(gradient: str, method: str) -> None:
    def remembering(run: Run) -> Loss:
        f, z0 = Remembering(), leaf(3, 2)
        return size(run(f, z0, SPAN)[-1]), {**named(f=f), "z0": z0}

    with pytest.raises(ValueError, match=r"call"):
        gradients(remembering, runner(METHODS[method], gradient))


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
@pytest.mark.parametrize("method", [*METHODS, "tight"])
def test_a_weight_computed_by_the_first_call_is_right_or_refused(gradient: str, method: str) -> None:
    step = TIGHT if method == "tight" else METHODS[method]
    if gradient == "adjoint" and method != "tight":
        pytest.skip("the adjoint of coarse steps is not their derivative")

    def lazy(run: Run) -> Loss:
        f, z0 = Lazy(), leaf(3, 2)
        return size(run(f, z0, SPAN)[-1]), {**named(f=f), "z0": z0}

    assert_right_or_refused(lazy, step, gradient, 1e-8 if gradient == "checkpoint" else 1e-5, "call")
