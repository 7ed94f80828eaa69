"""What is known of the true system, in the form that the dynamics trainer compares with."""

from __future__ import annotations

import logging
import math

import torch

from neuralode_exp.data.dynamics import Dynamics, NoRealLogarithm, least_squares_generator
from neuralode_exp.models.residual_flow import ResidualFlow
from neuralode_exp.trainers.dynamics.metrics import eigenvalue_error, relative_error
from neuralode_exp.trainers.dynamics.task import Flow, Truth

PERIODS, OF_A_PERIOD = 100, 10  # of the solutions whose energy is looked at, and how often

log = logging.getLogger(__name__)


def truth_of(data: Dynamics, flow: Flow, device: torch.device) -> Truth:
    """Values of the true field at the noise-free training states, or the displacements that a residual map learns."""
    system = data.system
    states = data.train.clean.flatten(0, 1)
    zero = states.new_zeros((), dtype=torch.float64)
    u = None if data.train.u is None else data.train.u.flatten(0, 1)
    if isinstance(flow, ResidualFlow):
        end = system.flow(states.double(), torch.tensor([0.0, flow.dt], dtype=torch.float64))[1]
        field = end - states.double()
    else:
        field = system.f(zero, states.double(), *([] if u is None else [u.double()]))
    energy_times = None
    if system.energy is not None:
        dt = float(data.t[-1]) / (len(data.t) - 1)  # a residual map knows no other times
        stride = 1 if isinstance(flow, ResidualFlow) else max(1, round(system.t_max / dt / OF_A_PERIOD))
        energy_times = dt * torch.arange(0, round(PERIODS * system.t_max / dt) + 1, stride, dtype=torch.float64)
    return Truth(
        states=states.to(device),
        field=field.to(device),
        fixed_point=None if system.fixed_point is None else system.fixed_point.to(states).to(device),
        eigenvalues=None if system.eigenvalues is None else system.eigenvalues.to(device),
        least_squares=least_squares_errors(data),
        f=system.f,
        u=None if u is None else u.to(device),
        lyapunov=system.lyapunov,
        energy=system.energy,
        energy_times=energy_times,
    )


def least_squares_errors(data: Dynamics) -> dict[str, float]:
    """Errors of the linear system that fits the observations best, without a network; none for other systems."""
    system = data.system
    if system.matrix is None or system.eigenvalues is None:
        return {}
    try:
        a = least_squares_generator(data.t, data.train.noisy)
    except NoRealLogarithm as error:
        log.info("no least-squares generator: %s", error)
        return {}
    except ValueError:  # irregular times have no one one-step map
        return {}
    states = data.train.clean.flatten(0, 1).double()
    fitted = torch.linalg.eigvals(a)
    errors = {
        "least_squares/eigenvalue_error": float(eigenvalue_error(fitted, system.eigenvalues)),
        "least_squares/field_error": float(relative_error(states @ a.T, states @ system.matrix.double().T)),
    }
    return {tag: value for tag, value in errors.items() if math.isfinite(value)}
