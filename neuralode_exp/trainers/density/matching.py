"""Flow matching: fit the field of a flow to straight lines from base to data, without solving an ODE."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

GROUP = 64  # points are paired within groups, because pairing n points takes O(n^3)


def matching_loss(field: nn.Module, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """Return the mean over the batch of |f(t, z) - (x1 - x0)|^2 / d at z = (1 - t) x0 + t x1.

    The field with the least loss is that whose flow carries the distribution of x0 to that of x1 (Lipman et al. 2022,
    https://arxiv.org/abs/2210.02747, Sec. 4.1 with sigma_min = 0). Gradients flow to the parameters of f.

    Args:
        field: f, called with a scalar t and a z of shape (d,).
        x0, x1: points of the base and of the data, shape (n, d).
        t: a time in [0, 1] for each pair, shape (n,).
    """
    velocity = torch.func.vmap(field)(t, torch.lerp(x0, x1, t[:, None]))
    return (velocity - (x1 - x0)).square().mean()


def stratified_times(n: int, generator: torch.Generator) -> Tensor:
    """Draw one time in each n-th of [0, 1], shape (n,). They are uniform as a whole, and the loss varies less."""
    return (torch.arange(n) + torch.rand(n, generator=generator, dtype=torch.float64)) / n


def optimal_pairs(x0: Tensor, x1: Tensor) -> Tensor:
    """Reorder x1, shape (n, d), so that the sum of |x1_i - x0_i|^2 is least within each group of 64 pairs.

    Straighter lines cross less, so that the learned field needs fewer evaluations (Tong et al. 2023,
    https://arxiv.org/abs/2302.00482, Sec. 3.4).
    """
    groups = zip(x0.split(GROUP), x1.split(GROUP), strict=True)
    return torch.cat([group[assignment(of_base, group)] for of_base, group in groups])


def assignment(x: Tensor, y: Tensor) -> Tensor:
    """Return the permutation p with the least sum of |y[p_i] - x_i|^2, shape (n,), for x and y of shape (n, d)."""
    return torch.from_numpy(linear_sum_assignment(torch.cdist(x, y).square().cpu().numpy())[1])
