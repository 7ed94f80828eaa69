"""The systems of dysts: all that are offered compose, and have its own right-hand side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from neuralode_exp.config import Config, ConfigError
from neuralode_exp.config.preflight import preflight
from neuralode_exp.data.dynamics import make_dynamics
from neuralode_exp.data.dysts_systems import facts
from neuralode_exp.data.systems import known_system
from neuralode_exp.trainers.settings import registered_data

NAMES = list(facts())


@pytest.mark.extras
@pytest.mark.skipif(not NAMES, reason="needs the extra dysts")
def test_every_system_composes_and_has_the_right_hand_side_of_dysts(compose: Callable[..., Config]) -> None:
    from dysts import flows

    assert len(NAMES) == 113
    for name in NAMES:
        x = np.random.default_rng(0).normal(size=(4, facts()[name]["embedding_dimension"]))
        config = compose("dataset=system", f"dataset.system={name}")
        system, known = known_system(*registered_data(config)), facts()[name]
        dx = system.f(0.0, torch.from_numpy(x)).numpy()
        model = getattr(flows, name.removeprefix("dysts/"))()
        for row, got in zip(x, dx, strict=True):
            z = np.array(known["mean"]) + np.array(known["std"]) * row
            exact = known["period"] * np.array(model.rhs(z, 0.0)) / np.array(known["std"])
            np.testing.assert_allclose(got, exact, rtol=1e-9, atol=1e-9 * np.abs(exact).max(), err_msg=name)


@pytest.mark.extras
@pytest.mark.skipif(not NAMES, reason="needs the extra dysts")
def test_initial_states_are_on_the_attractor_and_parameters_are_options(compose: Callable[..., Config]) -> None:
    config = compose("dataset=system", "dataset.system=dysts/Lorenz", "dataset.options.rho=26")
    data = make_dynamics(known_system(*registered_data(config)), trajectories=32, dtype=torch.float64)
    assert data.train.clean[0].abs().max() < 4  # standard deviations
    assert data.system.lyapunov is None  # known for rho=28 alone
    plain = known_system(*registered_data(compose("dataset=system", "dataset.system=dysts/Lorenz")))
    assert plain.lyapunov == pytest.approx(0.89 * 1.5, rel=0.05)
    with pytest.raises(ConfigError, match=r"dataset.options.rh is not a key; did you mean dataset.options.rho"):
        preflight(["dataset=system", "dataset.system=dysts/Lorenz", "dataset.options.rh=1"])
    with pytest.raises(ConfigError, match="must be a system of dysts, got dysts/Lorentz; did you mean dysts/Lorenz"):
        preflight(["dataset=system", "dataset.system=dysts/Lorentz"])


@pytest.mark.extras
@pytest.mark.skipif(not NAMES, reason="needs the extra dysts")
def test_the_experiment_validates_in_every_cell() -> None:
    assert str(preflight(["-m", "experiment=chaos", "check=true"]).answer).startswith("ok: 12 cells, 12 runs")


@pytest.mark.skipif(bool(NAMES), reason="the extra is installed")
def test_without_the_extra_it_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        preflight(["dataset=system", "dataset.system=dysts/Lorenz"])
    assert str(caught.value) == (
        "dataset.system needs an optional dependency, got dysts/Lorenz; pip install 'neuralode-exp[dysts]' brings it"
    )
