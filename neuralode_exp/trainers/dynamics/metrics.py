"""Errors of learned dynamics against the true ones: one number, or one for each replica.

Shapes are given for one network. R replicas have an axis of length R before (n, d), and R results. All errors are
computed in float64, where the square of a float32 number cannot overflow.
"""

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor

from neuralode_exp.data.observed import Scale

Pair = tuple[
    Tensor, Tensor
]  # learned and true trajectories, (T, n, d); NaN for unknown true values, which do not count


def relative_error(learned: Tensor, true: Tensor) -> Tensor:
    """Return ||learned - true|| / ||true|| over all samples and components. Of values of f it is the field error.

    Args:
        learned: shape (n, d).
        true: shape (n, d).
    """
    learned, true = learned.double(), true.double()
    return torch.linalg.vector_norm(learned - true, dim=(-2, -1)) / torch.linalg.vector_norm(true)


def trajectory_error(pairs: Sequence[Pair]) -> Tensor:
    """Return the mean over all trajectories of ||z' - z|| / ||z||, with norms over times and components.

    Dividing by each trajectory's norm weights small and large trajectories alike.
    """
    errors = []
    for learned, true in pairs:
        off, known, _ = _known(learned, true)
        size = torch.linalg.vector_norm(known, dim=(0, -1))
        errors.append(torch.linalg.vector_norm(off, dim=(0, -1)) / size)
    return torch.cat(errors, -1).mean(dim=-1)


def spread_error(pairs: Sequence[Pair], scale: Scale) -> Tensor:
    """Return the root mean square of z' - z over all forecast values.

    The first state of a trajectory does not count, because the forecast starts from it. The unit is the standard
    deviation of each column of the table.

    Args:
        pairs: learned and true trajectories.
        scale: the units of both.
    """
    squares, counts = [], []
    for learned, true in pairs:
        off, _, known = _known(scale.spreads(learned[1:]), scale.spreads(true[1:]))
        squares.append(off.square().sum(dim=(0, -2, -1)))
        counts.append(known.sum())
    return (torch.stack(squares).sum(0) / torch.stack(counts).sum()).sqrt()


def valid_time(learned: Tensor, true: Tensor, t: Tensor, lyapunov: float) -> Tensor:
    """Return the mean over trajectories of the time until ||z' - z|| exceeds 0.4 of the spread of z, in Lyapunov times.

    A trajectory that never exceeds it counts with its whole time (Vlachas et al. 2020, arXiv 1910.05266, Sec. 4.3).

    Args:
        learned: z', shape (T, n, d).
        true: z, shape (T, n, d).
        t: times, shape (T,).
        lyapunov: the largest exponent, in 1 / time.
    """
    learned, true = learned.double(), true.double()
    spread = (true - true.mean(dim=(0, 1))).square().sum(-1).mean().sqrt()
    other = true[:, None] if learned.dim() > true.dim() else true
    good = torch.linalg.vector_norm(learned - other, dim=-1) <= 0.4 * spread
    last = good.long().cumprod(0).sum(0) - 1
    return lyapunov * t.double()[last].mean(-1)


def energy_drift(energy: Tensor) -> Tensor:
    """Return the mean over trajectories of the largest change of energy since t = 0, over the mean |energy| then.

    Args:
        energy: energy along learned trajectories, shape (T, n). Its least possible value is 0.
    """
    energy = energy.double()
    return (energy - energy[0]).abs().amax(0).mean(-1) / energy[0].abs().mean(-1)


def _known(learned: Tensor, true: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return z' - z and z in float64, with 0 for unknown z, and a mask of the known z."""
    learned, true = learned.double(), true.double()
    if learned.dim() > true.dim():
        true = true[:, None]
    known = ~true.isnan()
    return torch.where(known, learned - true, 0.0), torch.where(known, true, 0.0), known


def eigenvalue_error(learned: Tensor, true: Tensor) -> Tensor:
    """Return max_i |lambda'_i - lambda_i| / max_i |lambda_i|, with pairs that have the least sum of distances.

    Args:
        learned: lambda', shape (d,), complex. If one is not finite, the error is infinite.
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
    """Return the distances of the best pairs: one in each row and column of (d, d), with the least sum."""
    d = len(distances)
    if d <= 3:  # importing SciPy's optimisation takes half a second
        orders = torch.tensor(list(permutations(range(d))))
        of_orders = distances[torch.arange(d), orders]
        return of_orders[of_orders.sum(1).argmin()]
    from scipy.optimize import linear_sum_assignment

    return distances[linear_sum_assignment(distances.numpy())]
