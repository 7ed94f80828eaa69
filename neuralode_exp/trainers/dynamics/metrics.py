"""How far learned dynamics are from the true ones: one number, or one for each replica.

Shapes are those of one network; replicas have R more entries in an axis before (n, d), and R results.

All is computed in float64, where the square of a float32 number cannot overflow.
"""

from itertools import permutations

import torch
from torch import Tensor

from neuralode_exp.data.observed import Scale


def relative_error(learned: Tensor, true: Tensor) -> Tensor:
    """||learned - true|| / ||true|| over all samples and components: field error, if they are values of the field.

    Args:
        learned: shape (n, d).
        true: shape (n, d).
    """
    learned, true = learned.double(), true.double()
    return torch.linalg.vector_norm(learned - true, dim=(-2, -1)) / torch.linalg.vector_norm(true)


def trajectory_error(learned: Tensor, true: Tensor) -> Tensor:
    """Mean over trajectories of the relative error ||z' - z|| / ||z||, its norms over times and components.

    So that a trajectory counts the same at any size.

    Args:
        learned: z', shape (T, n, d).
        true: z, shape (T, n, d), NaN where it is not known, which is left out.
    """
    off, true, _ = _known(learned, true)
    size = torch.linalg.vector_norm(true, dim=(0, -1))
    return (torch.linalg.vector_norm(off, dim=(0, -1)) / size).mean(dim=-1)


def spread_error(learned: Tensor, true: Tensor, scale: Scale) -> Tensor:
    """Mean over trajectories of the root mean square of z' - z over times and components.

    In standard deviations of each column of a table, so that it is 1 where nothing but the mean is known.

    Args:
        learned: z', shape (T, n, d).
        true: z, shape (T, n, d), NaN where it is not known, which is left out.
        scale: the units of both.
    """
    off, _, known = _known(scale.spreads(learned), scale.spreads(true))
    return (off.square().sum(dim=(0, -1)) / known.sum(dim=(0, -1))).sqrt().mean(dim=-1)


def valid_time(learned: Tensor, true: Tensor, t: Tensor, lyapunov: float) -> Tensor:
    """Mean over trajectories of the time until ||z' - z|| exceeds 0.4 of the spread of z, in Lyapunov times.

    The whole time of a trajectory that never exceeds it (Vlachas et al. 2020, arXiv 1910.05266, Sec. 4.3).

    Args:
        learned: z', shape (T, n, d).
        true: z, shape (T, n, d).
        t: shape (T,).
        lyapunov: the largest exponent, in 1 / time.
    """
    learned, true = learned.double(), true.double()
    spread = (true - true.mean(dim=(0, 1))).square().sum(-1).mean().sqrt()
    other = true[:, None] if learned.dim() > true.dim() else true
    good = torch.linalg.vector_norm(learned - other, dim=-1) <= 0.4 * spread
    last = good.long().cumprod(0).sum(0) - 1
    return lyapunov * t.double()[last].mean(-1)


def energy_drift(energy: Tensor) -> Tensor:
    """Mean over trajectories of the largest change of the energy since t = 0, over the mean energy then.

    Args:
        energy: along learned trajectories, shape (T, n), 0 at its least.
    """
    energy = energy.double()
    return (energy - energy[0]).abs().amax(0).mean(-1) / energy[0].mean(-1)


def _known(learned: Tensor, true: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z' - z and z in float64, 0 where z is not known, and where it is."""
    learned, true = learned.double(), true.double()
    if learned.dim() > true.dim():
        true = true[:, None]
    known = ~true.isnan()
    return torch.where(known, learned - true, 0.0), torch.where(known, true, 0.0), known


def eigenvalue_error(learned: Tensor, true: Tensor) -> Tensor:
    """max_i |lambda'_i - lambda_i| / max_i |lambda_i|, the pairs matched for the least sum of distances.

    Args:
        learned: lambda', shape (d,), complex; where one is not finite, the error is infinite.
        true: lambda, shape (d,), complex, not all 0.
    """
    true = true.to(learned)
    distances = (learned[..., :, None] - true).abs().cpu()
    largest = [
        _of_matched(d).max() if d.isfinite().all() else d.new_tensor(torch.inf)
        for d in distances.view(-1, *distances.shape[-2:])
    ]
    return torch.stack(largest).view(learned.shape[:-1]) / true.abs().max().cpu()


def _of_matched(distances: Tensor) -> Tensor:
    """Distances of the pairs, one in each row and column of (d, d), with the least sum."""
    d = len(distances)
    if d <= 3:  # without SciPy's optimisation, for which every start of a planar system would wait half a second
        orders = torch.tensor(list(permutations(range(d))))
        of_orders = distances[torch.arange(d), orders]
        return of_orders[of_orders.sum(1).argmin()]
    from scipy.optimize import linear_sum_assignment

    return distances[linear_sum_assignment(distances.numpy())]
