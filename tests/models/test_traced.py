"""The trace of any field against the fast form for an MLP and against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from neuralode_exp.models.fields.flow import FlowField
from neuralode_exp.models.fields.traced import Traced
from neuralode_exp.models.flows import Flow
from neuralode_exp.models.regularisers import taylor
from neuralode_exp.ode import make_method

T = torch.tensor(0.3, dtype=torch.float64)


class Plain(nn.Module):
    """A `FlowField` that keeps its own form to itself."""

    def __init__(self, field: FlowField) -> None:
        super().__init__()
        self.inner = field

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return self.inner(t, z)


def pair(dim: int = 3) -> tuple[FlowField, Traced]:
    torch.manual_seed(0)
    field = FlowField(dim, 5, 2).double()
    return field, Traced(Plain(field))


@pytest.mark.parametrize("rows", [1, 4])
def test_trace_and_jacobian_equal_the_fast_form(rows: int) -> None:
    field, traced = pair()
    z = torch.randn(4, 3, dtype=torch.float64)
    probes = torch.randn(2, rows, 3, dtype=torch.float64)
    for ours, fast in zip(traced.with_trace(T, z, probes), field.with_trace(T, z, probes), strict=True):
        # The fast form takes tanh from a sigmoid, to round-off.
        torch.testing.assert_close(ours, fast, rtol=1e-12, atol=1e-13)
    for ours, fast in zip(traced.with_jacobian(T, z), field.with_jacobian(T, z), strict=True):
        torch.testing.assert_close(ours, fast, rtol=1e-12, atol=1e-13)


def test_gradients_are_those_of_the_trace() -> None:
    _, traced = pair()
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    probes = torch.randn(1, 4, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z, *_: traced.with_trace(T, z, probes), (z, *traced.parameters()))


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint", "adjoint"])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_a_flow_of_any_field_has_the_likelihood_and_the_gradients_of_the_fast_form(gradient: str, trace: str) -> None:
    field, _ = pair(2)
    method = make_method("rk4", step_size=0.1)
    x = torch.randn(6, 2, dtype=torch.float64)
    results = []
    for given in (None, Plain(field)):
        flow = Flow(2, field=given, width=5, depth=2, trace=trace, method=method, gradient=gradient).double()  # type: ignore[arg-type]
        if given is None:
            flow.ode.field = field
        torch.manual_seed(1)  # of the probes
        loss = -flow.log_prob(x).mean()
        gradients = torch.autograd.grad(loss, list(flow.parameters()))
        results.append((loss, *gradients))
    for fast, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, fast, rtol=1e-9, atol=1e-11)


def test_a_constant_field_has_no_trace() -> None:
    class Constant(nn.Module):
        def forward(self, t: Tensor, z: Tensor) -> Tensor:
            return torch.ones(z.shape, dtype=z.dtype)

    dz, change = Traced(Constant()).with_trace(T, torch.zeros(4, 3), torch.eye(3)[:, None])
    assert dz.shape == (4, 3)
    assert torch.equal(change, torch.zeros(4))


class Potential(nn.Module):
    """The gradient of a potential, which detaches a state without a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[1.0, 0.5], [0.5, -2.0]], dtype=torch.float64))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            return torch.autograd.grad((z @ self.matrix * z).sum() / 2, z, create_graph=True)[0]


@pytest.mark.parametrize("graph", [True, False])
def test_a_field_that_differentiates_itself_has_its_trace_and_second_derivative(graph: bool) -> None:
    t, z = torch.tensor(0.0, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    unit_vectors, f = torch.eye(2, dtype=torch.float64)[:, None], Potential()
    with torch.set_grad_enabled(graph):
        trace = Traced(f).with_trace(t, z, unit_vectors)[1]
        bend = taylor(f, z)(t, z, f(t, z))
    matrix = f.matrix.detach()
    torch.testing.assert_close(trace.detach(), torch.full((5,), 1.0, dtype=torch.float64))  # -tr A
    torch.testing.assert_close(bend.detach(), (z @ matrix @ matrix).square().sum(1))
    assert trace.requires_grad == bend.requires_grad == graph
