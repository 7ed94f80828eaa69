"""What is known of the true system, and the errors of learned dynamics against it."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuralode_exp.data.dynamics import Dynamics, NoRealLogarithm, least_squares_generator
from neuralode_exp.data.observed import Trajectories
from neuralode_exp.models.fields.scaled import Scaled
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.models.replicas import Replicas
from neuralode_exp.models.residual_flow import ResidualFlow
from neuralode_exp.ode import SolverError, make_method
from neuralode_exp.trainers.dynamics.metrics import eigenvalue_error, energy_drift, relative_error, valid_time

PERIODS, OF_A_PERIOD = 100, 10  # length of the solutions for the energy drift, and samples per period
PRECISE = 1e-8  # rtol and atol of these solutions

Flow = NeuralODE[Scaled[nn.Module]] | ResidualFlow
LeadOn = Callable[[Flow, Trajectories, Tensor, Tensor], Tensor]  # see `LearnDynamics.lead_on`

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of the true system.

    Args:
        states: noise-free training states, shape (M, d).
        field: f(t, z) at these states, or for a residual map the true displacement over its step, shape (M, d).
        fixed_point: the fixed point, shape (d,), or None.
        eigenvalues: eigenvalues of the Jacobian of f at the fixed point, shape (d,), complex, or None.
        least_squares: errors of a linear fit without a network, by tag.
        f: the true field, for pictures.
        u: the inputs at the states, shape (M, m).
        lyapunov: the largest Lyapunov exponent, in 1 / time.
        energy: a conserved quantity of the true system, from states of shape (..., d) to shape (...).
        energy_times: times of the long solutions on which its drift is measured, shape (T,), float64.
    """

    states: Tensor
    field: Tensor
    fixed_point: Tensor | None
    eigenvalues: Tensor | None
    least_squares: Mapping[str, float]
    f: Any
    u: Tensor | None = None
    lyapunov: float | None = None
    energy: Callable[[Tensor], Tensor] | None = None
    energy_times: Tensor | None = None

    def field_errors(self, flow: Flow, replicas: Replicas, *, driven: bool) -> dict[str, Tensor]:
        """Return the errors of a learned field at the states, and of its eigenvalues at the fixed point.

        Args:
            flow: the learned flow.
            replicas: its networks.
            driven: whether its field takes the inputs.
        """
        inputs = (replicas.expand(self.u),) if driven and self.u is not None else ()
        learned = flow.field(self.states.new_zeros(()), replicas.expand(self.states), *inputs)
        if isinstance(flow, ResidualFlow):
            learned = learned * flow.dt
        values = {"dynamics/field_error": relative_error(learned, self.field)}
        if self.fixed_point is not None and self.eigenvalues is not None:
            learned_eigenvalues = flow.eigenvalues(replicas.expand(self.fixed_point))
            values["dynamics/eigenvalue_error"] = eigenvalue_error(learned_eigenvalues, self.eigenvalues)
        return values

    def valid_time(self, lead_on: LeadOn, flow: Flow, known: Trajectories) -> dict[str, Tensor]:
        """Return the valid prediction time, or nothing if the system is not chaotic or the flow cannot be solved."""
        if self.lyapunov is None:
            return {}
        try:
            learned = lead_on(flow, known, known.z[0], known.t)
        except SolverError:
            return {}
        return {"dynamics/valid_time": valid_time(learned, known.z, known.t, self.lyapunov)}

    def energy_drift(self, lead_on: LeadOn, flow: Flow, known: Trajectories, replicas: Replicas) -> dict[str, Tensor]:
        """Return the energy drift over 100 periods, solved so accurately that it is due to the learned field."""
        if self.energy is None or self.energy_times is None:
            return {}
        flow = copy.deepcopy(flow).double()
        if isinstance(flow, NeuralODE):
            flow.method = make_method("dop853", rtol=PRECISE, atol=PRECISE, max_steps=100_000)
            flow.gradient = "backprop"  # `reversible` would take steps of its own
        try:
            learned = lead_on(flow, known, known.z[0].double(), self.energy_times)
        except SolverError:
            return {"dynamics/energy_drift": replicas.expand(torch.tensor(torch.inf, dtype=torch.float64))}
        return {"dynamics/energy_drift": energy_drift(self.energy(learned))}


def truth_of(data: Dynamics, flow: Flow, device: torch.device) -> Truth:
    """Return the truth: the true field at the noise-free training states, or the displacements for a residual map."""
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
    """Return the errors of the linear system that fits the observations best, or nothing for nonlinear systems."""
    system = data.system
    if system.matrix is None or system.eigenvalues is None:
        return {}
    try:
        a = least_squares_generator(data.t, data.train.noisy)
    except NoRealLogarithm as error:
        log.info("no least-squares generator: %s", error)
        return {}
    except ValueError:  # no single one-step map fits irregular times
        return {}
    states = data.train.clean.flatten(0, 1).double()
    fitted = torch.linalg.eigvals(a)
    errors = {
        "least_squares/eigenvalue_error": float(eigenvalue_error(fitted, system.eigenvalues)),
        "least_squares/field_error": float(relative_error(states @ a.T, states @ system.matrix.double().T)),
    }
    return {tag: value for tag, value in errors.items() if math.isfinite(value)}
