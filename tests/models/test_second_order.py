"""Positions and velocities: one is the derivative of the other, whatever has been learned, in any units."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from neuralode_exp.build import build_model
from neuralode_exp.config import Config, ConfigError
from neuralode_exp.config.preflight import preflight
from neuralode_exp.data.observed import Scale
from neuralode_exp.models.fields.mlp import MLPField
from neuralode_exp.models.fields.scaled import Scaled, Units
from neuralode_exp.models.fields.second_order import SecondOrder
from neuralode_exp.models.replicas import Replicas, stack
from neuralode_exp.models.shape import Shape
from neuralode_exp.run import run
from neuralode_exp.tracking.summary import read_summary

T0 = torch.tensor(0.0)
UNITS = Units(
    torch.tensor([0.1, -0.2, 0.3, 0.4]), torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 2.0, 1.5, 3.0])
)


def test_positions_change_by_the_velocity_in_the_units_of_the_data() -> None:
    inner, z = MLPField(4, width=8), torch.randn(7, 4)
    dz = Scaled(SecondOrder(inner, UNITS), UNITS)(T0, z)
    torch.testing.assert_close(dz[:, :2], z[:, 2:])
    torch.testing.assert_close(dz[:, 2:], Scaled(inner, UNITS)(T0, z)[:, 2:])


def test_in_a_table_positions_change_by_the_velocity_per_unit_of_its_time() -> None:
    pair = torch.tensor
    scale = Scale(list("xyvw"), pair([1.0, 2.0, 3.0, 4.0]), pair([2.0, 0.5, 4.0, 3.0]), step=0.1)
    units = Shape(4, units=UNITS, scale=scale).units_of_table
    assert units is not None
    field, z = Scaled(SecondOrder(MLPField(4, width=8), units), UNITS), torch.randn(7, 4)
    of_table = field(T0, z) * scale.unit / scale.step  # d(offset + unit z)/dt, t being step times the field's time
    torch.testing.assert_close(of_table[:, :2], (scale.offset + scale.unit * z)[:, 2:])


def test_replicas_equal_the_networks_alone() -> None:
    fields, z = [SecondOrder(MLPField(4, width=8), UNITS) for _ in range(3)], torch.randn(3, 7, 4)
    stacked = stack(copy.deepcopy(fields), Replicas(3))
    assert stacked.batched
    torch.testing.assert_close(stacked(T0, z), torch.stack([f(T0, x) for f, x in zip(fields, z, strict=True)]))


def test_a_pendulum_is_learned_by_its_acceleration(tmp_path: Path, compose: Callable[..., Config]) -> None:
    small = ("dataset.trajectories=32", "dataset.points=40", "dataset.test=2", "trainer.batch_size=64", "figures=false")
    config = compose("dataset=pendulum", "model.order=2", "solver=rk4", "trainer.max_steps=100", *small)
    (tmp_path / "run").mkdir()
    run(config, tmp_path / "run", config.model_dump(mode="json"))
    summary = read_summary(tmp_path / "run")
    assert summary is not None
    assert summary["metrics"]["dynamics/field_error"] < 0.1
    flow = build_model(config, Shape(4, units=UNITS))
    assert isinstance(flow.field, Scaled)
    assert isinstance(flow.field.field, SecondOrder)


WRONG = {
    "dataset=lorenz model.order=2": "model.order=2 has as many velocities as positions",
    "dataset=pendulum model.order=2 model.field=hamiltonian": "model.order=2 needs a field whose first half may be",
    "dataset=pendulum model.order=2 model=resnet": "model.order=2 needs a field whose first half may be",
    "dataset=annuli model.order=2": "model.order=2 is for dynamics",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_request_is_one_line(words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preflight(words.split())
    assert str(caught.value).startswith(WRONG[words])
