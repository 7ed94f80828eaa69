"""What an evaluation of a flow's field is said to cost."""

from __future__ import annotations

import pytest
import torch

from neuralode_exp.models.flows import Flow
from neuralode_exp.ode import make_method
from neuralode_exp.trainers.density import trace_cost
from neuralode_exp.trainers.density.trace_cost import evaluation_ms

X = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))


def flow(trace: str = "exact") -> Flow:
    return Flow(3, width=4, trace=trace, method=make_method("rk4", step_size=0.5))


@pytest.mark.parametrize("training", [True, False])
def test_three_costs_and_nothing_changed(training: bool) -> None:
    made = flow().train(training)
    costs = evaluation_ms(made, X)
    assert list(costs) == ["field_ms", "trace_ms", "determinant_ms"]
    assert all(ms > 0 for ms in costs.values())
    assert made.training is training
    assert all(p.grad is None for p in made.parameters())


@pytest.mark.parametrize(("trace", "tangents"), [("exact", 3), ("hutchinson", 1)])
def test_the_trace_is_that_of_training_also_in_evaluation(
    trace: str, tangents: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, seen = flow(trace).eval(), []
    original = made.field.with_trace
    monkeypatch.setattr(made.field, "with_trace", lambda t, z, v: seen.append(len(v)) or original(t, z, v))
    evaluation_ms(made, X)
    assert set(seen) == {tangents}
    assert len(seen) > trace_cost.LEAST


def test_jacobians_that_would_fill_the_memory_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_cost, "LARGEST", 8 * 9 - 1)
    assert list(evaluation_ms(flow(), X)) == ["field_ms", "trace_ms"]
