"""A state of several tensors: as the one tensor of all their entries, with a norm that looks at each part."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuralode_exp.ode import MaxStepsExceeded, Method, NonFiniteState, make_method, solve

MODES = ("backprop", "checkpoint", "adjoint")
F64: dict[str, Any] = {"dtype": torch.float64}
TIMES = [0.0, 0.1, 0.35, 1.0]
METHODS = {
    "rk4": make_method("rk4", step_size=0.1),
    "dopri5": make_method("dopri5", rtol=1e-6, atol=1e-6),
    "dopri8": make_method("dopri8", rtol=1e-6, atol=1e-6),
    "dop853": make_method("dop853", rtol=1e-6, atol=1e-6),
}
Parts = tuple[Tensor, ...]


class Coupled(nn.Module):
    """A matrix, a vector and a number, each of which moves the others."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w = nn.Parameter(torch.randn(3, 3, generator=generator, **F64))
        self.rate = nn.Parameter(torch.tensor(0.7, **F64))

    def forward(self, t: Tensor, z: Parts) -> Parts:
        a, b, c = z
        return torch.tanh(a @ self.w) + b, torch.sin(t + a.sum(0)) * self.rate, self.rate * c.cos() - a.mean()

    def as_one(self, t: Tensor, z: Tensor) -> Tensor:
        return flat(self(t, unflat(z)))


def flat(z: Parts) -> Tensor:
    return torch.cat([part.flatten() for part in z])


def unflat(z: Tensor) -> Parts:
    a, b, c = z.split((6, 3, 1), -1)
    leading = z.shape[:-1]
    return a.reshape(*leading, 2, 3), b, c.reshape(leading)


def start() -> Parts:
    generator = torch.Generator().manual_seed(1)
    a, b, c = (torch.randn(shape, generator=generator, **F64) for shape in ((2, 3), (3,), ()))
    return a.requires_grad_(), b.requires_grad_(), c.requires_grad_()


@pytest.mark.parametrize("times", [TIMES, TIMES[::-1]], ids=["increasing", "decreasing"])
@pytest.mark.parametrize("name", METHODS)
def test_shapes_of_any_kind(name: str, times: list[float]) -> None:
    z0 = start()
    z = solve(Coupled(), z0, times, METHODS[name]).z
    assert isinstance(z, tuple)
    assert [part.shape for part in z] == [(4, 2, 3), (4, 3), (4,)]
    assert all(torch.equal(part[0], part0) for part, part0 in zip(z, z0, strict=True))


@pytest.mark.parametrize("times", [TIMES, TIMES[::-1]], ids=["increasing", "decreasing"])
@pytest.mark.parametrize("gradient", MODES)
def test_fixed_steps_are_those_of_the_concatenated_state(gradient: str, times: list[float]) -> None:
    found, expected = [], []
    for one, results in ((False, found), (True, expected)):
        f, z0 = Coupled(), start()
        if one:
            z = unflat(solve(f.as_one, flat(z0), times, METHODS["rk4"], gradient).z)
        else:
            z = solve(f, z0, times, METHODS["rk4"], gradient).z
        loss = sum((part.square().sum() * (i + 1) for i, part in enumerate(z)), torch.zeros((), **F64))
        results += [*z, *torch.autograd.grad(loss, (*z0, f.w, f.rate))]
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["dopri5", "dopri8", "dop853"])
@pytest.mark.parametrize("gradient", MODES)
def test_adaptive_steps_agree_with_the_concatenated_state(gradient: str, name: str) -> None:
    """The norms differ, so the steps do: both are within their tolerances."""
    method, found, expected = make_method(name, rtol=1e-10, atol=1e-10), [], []
    f, z0 = Coupled(), start()
    weights = [torch.linspace(-1, 1, 4 * part.numel(), **F64).reshape(4, *part.shape) for part in z0]
    for z, results in (
        (solve(f, z0, TIMES, method, gradient).z, found),
        (unflat(solve(f.as_one, flat(z0), TIMES, method, gradient).z), expected),
    ):
        loss = torch.stack([(part * w).sum() for part, w in zip(z, weights, strict=True)]).sum()
        results += [*z, *torch.autograd.grad(loss, (*z0, f.w, f.rate))]
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", METHODS)
def test_checkpoint_equals_backprop(name: str) -> None:
    results = []
    for gradient in ("backprop", "checkpoint"):
        f, z0 = Coupled(), start()
        a, b, c = solve(f, z0, TIMES, METHODS[name], gradient).z
        loss = a[1:].square().sum() + (b[1:].sum(-1) * c[1:]).sum()
        results.append(torch.autograd.grad(loss, (*z0, f.w, f.rate)))
    assert all(torch.allclose(x, y, rtol=1e-11, atol=1e-12) for x, y in zip(*results, strict=True))


@pytest.mark.parametrize("gradient", MODES)
def test_gradients_of_the_closed_form(gradient: str) -> None:
    """da/dt = -r a, db/dt = a: a = a0 exp(-r t), b = b0 + a0 (1 - exp(-r t)) / r; the loss sees one part only."""
    rate = torch.tensor(0.7, **F64, requires_grad=True)
    a0, b0 = torch.tensor([1.0, 2.0], **F64, requires_grad=True), torch.zeros((), **F64, requires_grad=True)
    method = make_method("dopri5", rtol=1e-10, atol=1e-10)
    _, b = solve(lambda t, z: (-rate * z[0], z[0].sum()), (a0, b0), [0.0, 1.5], method, gradient).z
    found = torch.autograd.grad(b[-1], (a0, b0, rate))
    exact = torch.autograd.grad(b0 + a0.sum() * (1 - torch.exp(-1.5 * rate)) / rate, (a0, b0, rate))
    for g, g_exact in zip(found, exact, strict=True):
        assert torch.allclose(g, g_exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize("gradient", MODES)
def test_a_part_that_needs_no_gradient_and_one_that_is_not_used(gradient: str) -> None:
    f = Coupled()
    a, b, c = start()
    z = solve(f, (a, b.detach(), c), TIMES, METHODS["dopri5"], gradient).z
    z[0][-1].sum().backward()
    assert a.grad is not None
    assert f.w.grad is not None
    assert b.grad is None


@pytest.mark.parametrize("gradient", MODES)
def test_times_that_need_a_gradient(gradient: str) -> None:
    """dz_i/dt_i = f(t_i, z_i), part by part."""
    f, z0, t = Coupled(), start(), torch.tensor(TIMES, **F64, requires_grad=True)
    z = solve(f, z0, t, make_method("dopri5", rtol=1e-10, atol=1e-10), gradient).z
    (found,) = torch.autograd.grad(z[0].sum() + z[2].sum(), t)
    for i, (t_i, *z_i) in enumerate(zip(t, *z, strict=True)):
        dz = f(t_i, tuple(z_i))
        if i:
            assert float(found[i]) == pytest.approx(float((dz[0].sum() + dz[2]).detach()), abs=1e-9)


def decay(t: Tensor, z: Parts) -> Parts:
    """A slow part, and a fast one."""
    return -0.1 * z[0], -20.0 * z[1]


def steps(method: Method, sizes: tuple[int, int], **options: Any) -> int:
    z0 = torch.ones(sizes[0], **F64), torch.ones(sizes[1], **F64)
    return solve(decay, z0, [0.0, 1.0], method, **options).stats.accepted


@pytest.mark.parametrize("name", ["bosh3", "dopri5", "dopri8", "dop853"])
def test_the_norm_is_the_largest_of_the_parts(name: str) -> None:
    """A root mean square of all entries would not see two fast ones among ten thousand slow ones."""
    method = make_method(name, rtol=1e-6, atol=1e-6)
    z0 = torch.ones(10_000, **F64), torch.ones(2, **F64)
    alone = solve(lambda t, z: -20.0 * z, z0[1], [0.0, 1.0], method, record=True).stats
    both = solve(decay, z0, [0.0, 1.0], method, record=True).stats
    assert alone.records is not None
    assert both.records is not None
    # The fast part decides every step; only the first one's probe sees both.
    assert abs(both.accepted - alone.accepted) <= 2
    assert steps(method, (10_000, 2)) == steps(method, (2, 2)) == steps(method, (2, 2_000))


@pytest.mark.parametrize("name", ["bosh3", "dopri5", "dopri8", "dop853"])
def test_a_part_left_out_of_the_norm_does_not_change_the_steps(name: str) -> None:
    method = make_method(name, rtol=1e-6, atol=1e-6)
    z0 = torch.ones(3, **F64)
    alone = solve(lambda t, z: -0.1 * z, z0, TIMES, method, record=True)
    both = solve(decay, (z0, torch.ones(2, **F64)), TIMES, method, record=True, in_norm=(True, False))
    assert both.stats.records == alone.stats.records
    assert both.stats.nfe_forward == alone.stats.nfe_forward
    assert torch.equal(both.z[0], alone.z)
    counted = solve(decay, (z0, torch.ones(2, **F64)), TIMES, method)
    assert counted.stats.accepted > both.stats.accepted


@pytest.mark.parametrize("gradient", MODES)
def test_a_part_left_out_of_the_norm_has_its_gradients(gradient: str) -> None:
    """The integral of |f|^2 = r^2 z^2 beside the state, as a regulariser has it: r z0^2 (1 - exp(-2 r t)) / 2."""
    rate, z0 = torch.tensor(0.7, **F64, requires_grad=True), torch.tensor([1.5], **F64, requires_grad=True)

    def f(t: Tensor, z: Parts) -> Parts:
        dz = -rate * z[0]
        return dz, dz.square().sum()

    method = make_method("dopri5", rtol=1e-10, atol=1e-10)
    state = (z0, torch.zeros((), **F64))
    z, energy = solve(f, state, [0.0, 1.0], method, gradient, in_norm=(True, False)).z
    exact = rate * z0.square().sum() * (1 - torch.exp(-2 * rate)) / 2
    assert float(energy[-1]) == pytest.approx(float(exact), abs=1e-8)
    found = torch.autograd.grad(energy[-1] + z[-1].sum(), (rate, z0))
    expected = torch.autograd.grad(exact + (z0 * torch.exp(-rate)).sum(), (rate, z0))
    for g, g_exact in zip(found, expected, strict=True):
        assert torch.allclose(g, g_exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize("gradient", MODES)
def test_channels_last_parts_keep_their_format(gradient: str) -> None:
    net, seen = nn.Conv2d(3, 3, 3, padding=1, **F64), set()
    images = torch.randn(2, 3, 4, 4, **F64).contiguous(memory_format=torch.channels_last).requires_grad_()
    vector = torch.randn(5, **F64, requires_grad=True)

    def f(t: Tensor, z: Parts) -> Parts:
        seen.add(z[0].is_contiguous(memory_format=torch.channels_last))
        return torch.tanh(net(z[0])), -z[1]

    z, v = solve(f, (images, vector), [0.0, 0.5, 1.0], METHODS["dopri5"], gradient).z
    assert all(image.is_contiguous(memory_format=torch.channels_last) for image in z)
    (z[1:].square().sum() + v[-1].sum()).backward()
    assert seen == {True}
    assert images.grad is not None
    plain = images.detach().contiguous().requires_grad_()
    same = solve(lambda t, z: torch.tanh(net(z)), plain, [0.0, 0.5, 1.0], METHODS["dopri5"], gradient).z
    (expected,) = torch.autograd.grad(same[1:].square().sum(), plain)
    assert torch.allclose(images.grad, expected, rtol=0, atol=1e-4)  # other steps, at 1e-6


@pytest.mark.parametrize("gradient", MODES)
def test_without_gradients(gradient: str) -> None:
    with torch.no_grad():
        z = solve(Coupled(), start(), TIMES, METHODS["dopri5"], gradient).z
    assert not any(part.requires_grad for part in z)


def test_one_time_gives_the_start() -> None:
    z0 = start()
    z = solve(Coupled(), z0, [0.3], METHODS["dopri5"]).z
    assert all(torch.equal(part[0], part0) for part, part0 in zip(z, z0, strict=True))


def test_failures_are_typed() -> None:
    z0 = torch.ones(2, **F64), torch.ones((), **F64)
    with pytest.raises(NonFiniteState):
        solve(lambda t, z: (z[0] * math.nan, z[1]), z0, [0.0, 1.0], METHODS["dopri5"])
    with pytest.raises(MaxStepsExceeded):
        solve(decay, z0, [0.0, 1.0], make_method("dopri5", rtol=1e-9, max_steps=3))


BAD_RETURNS = {
    "a list": lambda t, z: list(z),
    "one tensor": lambda t, z: z[0],
    "a part too few": lambda t, z: z[:1],
    "another shape": lambda t, z: (z[0], z[1][None]),
}


@pytest.mark.parametrize("name", BAD_RETURNS)
def test_what_f_returns_is_checked(name: str) -> None:
    with pytest.raises(ValueError, match=r"f\(t, z\) must return"):
        solve(BAD_RETURNS[name], (torch.ones(2, **F64), torch.ones(3, **F64)), [0.0, 1.0], METHODS["rk4"])


@pytest.mark.parametrize(
    "z0", [(), (torch.ones(2), torch.ones(2, **F64)), (torch.ones(2), 1.0)], ids=["", "dtypes", ""]
)
def test_a_state_that_is_none_is_refused(z0: Any) -> None:
    with pytest.raises(ValueError, match="`z0` must"):
        solve(decay, z0, [0.0, 1.0], METHODS["rk4"])


@pytest.mark.parametrize("in_norm", [(True,), (True, True, True), (False, False)])
def test_one_bool_for_each_part_and_one_part_that_counts(in_norm: tuple[bool, ...]) -> None:
    with pytest.raises(ValueError, match="in_norm"):
        solve(decay, (torch.ones(2, **F64), torch.ones(2, **F64)), [0.0, 1.0], METHODS["dopri5"], in_norm=in_norm)
