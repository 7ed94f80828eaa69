"""Measure how far samples of a flow are from the data, how straight its paths are, and the cost of sampling."""

from __future__ import annotations

import copy
import math

from torch import Tensor

from neuralode_exp.models.density_model import BASE, DATA
from neuralode_exp.models.flows import Flow
from neuralode_exp.models.regularisers import kinetic
from neuralode_exp.ode import make_method
from neuralode_exp.trainers.density.matching import assignment

TOLERANCE = 1e-5  # rtol and atol of sampling by dopri5


def wasserstein(x: Tensor, y: Tensor) -> float:
    """Return the 2-Wasserstein distance, min over p of (mean_i |y[p_i] - x_i|^2)^(1/2), of points of shape (n, d)."""
    return float((y[assignment(x, y)] - x).square().sum(1).mean().sqrt())


def sampling(flow: Flow, z0: Tensor) -> dict[str, float]:
    """Carry base points to data with dopri5 at 1e-5 in float64: `nfe/sample`, `density/path_energy`.

    The path energy is normalised, (E int |dz/dt|^2 dt - W^2) / W^2, where W is the 2-Wasserstein distance of the base
    points and the points that the flow carries them to. It is 0 for the straight lines of an optimal transport and for
    a flow that moves nothing, and never negative (Tong et al. 2023, https://arxiv.org/abs/2302.00482, Sec. 5). They
    take W to data instead, which for a few points is far above the distance of the two distributions in many
    dimensions.

    Args:
        flow: the flow, which is not changed.
        z0: points of the base, shape (n, d).
    """
    accurate = copy.deepcopy(flow).double()
    accurate.ode.method = make_method("dopri5", rtol=TOLERANCE, atol=TOLERANCE, max_steps=100_000)
    x = accurate.ode(z0, [BASE, DATA])[-1]
    nfe = accurate.stats.nfe_forward
    accurate.ode.integrals = (kinetic,)
    accurate.ode(z0, [BASE, DATA])
    energy, least = float(accurate.ode.values[0].mean()), wasserstein(z0, x) ** 2
    if least == 0.0:  # every point ends where it began
        return {"nfe/sample": float(nfe), "density/path_energy": math.inf if energy else 0.0}
    return {"nfe/sample": float(nfe), "density/path_energy": (energy - least) / least}
