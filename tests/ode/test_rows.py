"""Steps of explicit methods with one time and one size for each row: each row as if it were alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from neuralode_exp.ode import TABLEAUS, ExplicitRungeKutta, Span
from neuralode_exp.ode.field import VectorField
from neuralode_exp.ode.steppers import Cotangents, Trial
from tests.ode.problems import TimeMLP

F64: dict[str, Any] = {"dtype": torch.float64}
Z = torch.tensor([[1.0, 0.5, -0.7], [-0.2, 0.9, 0.4], [0.3, -0.6, 1.2], [2.0, 0.0, -1.0]], **F64)
T = torch.tensor([[0.0], [0.7], [1.3], [-0.4]], **F64)
DT = torch.tensor([[0.2], [-0.1], [0.05], [0.4]], **F64)
FRACTIONS = (0.2, 0.75)
STEPPERS = {name: ExplicitRungeKutta(tableau, estimate=tableau.e is not None) for name, tableau in TABLEAUS.items()}
STEPPERS |= {f"{name}, fixed": ExplicitRungeKutta(TABLEAUS[name], estimate=False) for name in ("dopri5", "dop853")}


def span_of(t: Any, dt: Any) -> Span:
    return Span(t, t + dt, dt)


def prepared(f: TimeMLP, z: Tensor, t: Any) -> VectorField:
    """f as a walk has it once it knows what f depends on."""
    field = VectorField(f, z)
    field.find_dependencies(t if isinstance(t, Tensor) else torch.tensor(t, **F64), z, ())
    return field


def step(stepper: ExplicitRungeKutta, field: VectorField, span: Span, z: Tensor) -> tuple[Trial, list[Tensor]]:
    """A trial, and the states inside it."""
    trial = stepper.trial(field, span, z, stepper.start(field, span.t, z))
    if not stepper.interpolates:
        return trial, []
    trial = stepper.close(field, span, z, trial, dense=True)
    return trial, stepper.interpolate(trial, span, z, FRACTIONS)


def cotangents(stepper: ExplicitRungeKutta, z: Tensor) -> Cotangents:
    inside = [(x, torch.cos((i + 2) * z)) for i, x in enumerate(FRACTIONS)] if stepper.interpolates else []
    return Cotangents(torch.sin(3 * z), inside)


def pull_back(
    stepper: ExplicitRungeKutta, field: VectorField, span: Span, z: Tensor
) -> tuple[Tensor, dict[Tensor, Tensor]]:
    """Cotangents of z, and those of the weights of f."""
    adj_z, terms = stepper.pull_back(field, span, z, cotangents(stepper, z))
    found = {p: g for p, g in zip(field.depends_on, terms, strict=True) if g is not None}
    return adj_z, found


@pytest.mark.parametrize("name", STEPPERS)
def test_trials_of_rows(name: str) -> None:
    stepper, f = STEPPERS[name], TimeMLP()
    with torch.no_grad():
        trial, inside = step(stepper, prepared(f, Z, T), span_of(T, DT), Z)
        for i in range(len(Z)):
            row, t, dt = Z[i : i + 1], float(T[i]), float(DT[i])
            alone, inside_alone = step(stepper, prepared(f, row, t), span_of(t, dt), row)
            assert torch.allclose(trial.z1[i : i + 1], alone.z1, rtol=0, atol=1e-14)
            assert (trial.error is None) == (alone.error is None)
            if trial.error is not None and alone.error is not None:
                assert torch.allclose(trial.error[i : i + 1], alone.error, rtol=0, atol=1e-14)
            for z, z_alone in zip(inside, inside_alone, strict=True):
                assert torch.allclose(z[i : i + 1], z_alone, rtol=0, atol=1e-13)
    assert len(inside) == (len(FRACTIONS) if stepper.interpolates else 0)


@pytest.mark.parametrize("name", STEPPERS)
def test_cotangents_of_rows(name: str) -> None:
    """Those of z row by row, those of the weights summed over the rows."""
    stepper, f = STEPPERS[name], TimeMLP()
    adj_z, terms = pull_back(stepper, prepared(f, Z, T), span_of(T, DT), Z)
    sums = {p: torch.zeros_like(p) for p in terms}
    for i in range(len(Z)):
        row, t, dt = Z[i : i + 1], float(T[i]), float(DT[i])
        alone, terms_alone = pull_back(stepper, prepared(f, row, t), span_of(t, dt), row)
        assert torch.allclose(adj_z[i : i + 1], alone, rtol=0, atol=1e-13)
        for p, g in terms_alone.items():
            sums[p] += g
    assert {id(p) for p in terms} == {id(p) for p in (f.w1, f.w2, f.b)}
    for p, g in terms.items():
        assert torch.allclose(g, sums[p], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", STEPPERS)
def test_tensors_without_dimension_are_numbers(name: str) -> None:
    stepper, f = STEPPERS[name], TimeMLP()
    spans = span_of(0.3, 0.2), span_of(torch.tensor(0.3, **F64), torch.tensor(0.2, **F64))
    (number, inside), (tensor, inside_tensor) = (step(stepper, prepared(f, Z, 0.3), span, Z) for span in spans)
    for a, b in zip((number.z1, *inside), (tensor.z1, *inside_tensor), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-13)
    (adj, terms), (adj_tensor, terms_tensor) = (pull_back(stepper, prepared(f, Z, 0.3), span, Z) for span in spans)
    assert torch.allclose(adj, adj_tensor, rtol=0, atol=1e-13)
    assert all(torch.allclose(terms[p], terms_tensor[p], rtol=0, atol=1e-12) for p in terms)


@pytest.mark.parametrize("name", STEPPERS)
def test_pull_back_is_the_derivative_of_the_step(name: str) -> None:
    """Rows with sizes of their own, under autograd."""
    stepper, f, span = STEPPERS[name], TimeMLP(), span_of(T, DT)
    z = Z.clone().requires_grad_()
    trial, inside = step(stepper, VectorField(f, z), span, z)
    adj = cotangents(stepper, Z)
    weights = (f.w1, f.w2, f.b)
    exact = torch.autograd.grad([trial.z1, *inside], (z, *weights), [adj.z1, *(g for _, g in adj.inside)])
    adj_z, terms = pull_back(stepper, prepared(f, Z, T), span, Z)
    for g, g_exact in zip((adj_z, *(terms[p] for p in weights)), exact, strict=True):
        assert torch.allclose(g, g_exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", STEPPERS)
def test_a_step_reads_nothing_back_to_the_host(name: str) -> None:
    """A tensor on torch's meta device has no values, and says so when it is asked for one."""
    stepper, f = STEPPERS[name], TimeMLP().to("meta")
    z, t, dt = (x.to("meta") for x in (Z, T, DT))
    with pytest.raises(RuntimeError, match="meta"):
        float(dt.sum())
    field = VectorField(f, Z)
    field.find_dependencies(t, z, ())
    trial, inside = step(stepper, field, span_of(t, dt), z)
    assert all(x.shape == z.shape and x.is_meta for x in (trial.z1, *inside))
    assert pull_back(stepper, field, span_of(t, dt), z)[0].shape == z.shape
