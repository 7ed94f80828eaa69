"""Every tableau satisfies the order conditions of its order, of its error estimate and of its interpolant."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from neuralode_exp.ode import TABLEAUS, Tableau, solve
from tests.ode.problems import adaptive, fixed, hyperbola

Tree = tuple["Tree", ...]  # a rooted tree is the sorted tuple of its subtrees

# Order of the embedded solution, with which the error estimate compares (Hairer, Nørsett & Wanner I, Sec. II.4).
EMBEDDED_ORDER = {"adaptive-heun": 1, "fehlberg2": 1, "bosh3": 2, "dopri5": 4, "tsit5": 4, "dopri8": 7, "dop853": 5}
DENSE_ORDER = {"adaptive-heun": 3, "fehlberg2": 3, "bosh3": 3, "dopri5": 4, "tsit5": 4, "dop853": 7}
INTERPOLATED = [name for name, tableau in TABLEAUS.items() if tableau.dense is not None]


@cache
def trees(order: int) -> frozenset[Tree]:
    """All rooted trees with `order` nodes: a leaf grafted onto each node of each smaller tree."""
    if order == 1:
        return frozenset({()})
    return frozenset(grown for tree in trees(order - 1) for grown in grafted(tree))


def grafted(tree: Tree) -> set[Tree]:
    found = {tuple(sorted((*tree, ())))}
    for i, child in enumerate(tree):
        found |= {tuple(sorted((*tree[:i], grown, *tree[i + 1 :]))) for grown in grafted(child)}
    return found


def size(tree: Tree) -> int:
    return 1 + sum(size(child) for child in tree)


def density(tree: Tree) -> int:
    return size(tree) * math.prod(density(child) for child in tree)


def elementary_weights(tree: Tree, a: Tensor) -> Tensor:
    """Phi_i(tree): product over the subtrees of sum_j a_ij Phi_j(subtree) (ibid., Sec. II.2)."""
    phi = torch.ones(len(a), dtype=torch.float64)
    for child in tree:
        phi = phi * (a @ elementary_weights(child, a))
    return phi


def extended_matrix(tableau: Tableau, extra: bool = False) -> Tensor:
    """a with the row b of the closing derivative, and the interpolant's own stages, square."""
    rows = (*tableau.a, tableau.b, *(tableau.extra_a if extra else ()))
    return torch.tensor([[*row, *[0.0] * (len(rows) - len(row))] for row in rows], dtype=torch.float64)


@pytest.mark.parametrize("name", TABLEAUS)
def test_order_conditions(name: str) -> None:
    tableau = TABLEAUS[name]
    a = extended_matrix(tableau)
    assert torch.allclose(a.sum(1)[:-1], torch.tensor(tableau.c, dtype=torch.float64), rtol=0, atol=1e-14)
    b = torch.tensor([*tableau.b, 0.0], dtype=torch.float64)
    for order in range(1, tableau.order + 1):
        for tree in trees(order):
            # dopri8's rationals approximate irrational coefficients to 1e-15 or so, with weights up to 40.
            assert float(b @ elementary_weights(tree, a)) == pytest.approx(1 / density(tree), abs=1e-13)
    misses = [float(b @ elementary_weights(tree, a)) - 1 / density(tree) for tree in trees(tableau.order + 1)]
    assert max(map(abs, misses)) > 1e-8  # the order is not higher than it says


@pytest.mark.parametrize("name", EMBEDDED_ORDER)
def test_error_estimate_compares_with_the_embedded_order(name: str) -> None:
    tableau, a = TABLEAUS[name], extended_matrix(TABLEAUS[name])
    assert tableau.e is not None
    e = torch.tensor(tableau.e, dtype=torch.float64)
    assert len(e) == tableau.stages + 1
    for order in range(1, EMBEDDED_ORDER[name] + 1):
        for tree in trees(order):
            assert float(e @ elementary_weights(tree, a)) == pytest.approx(0.0, abs=1e-13)
    assert max(abs(float(e @ elementary_weights(t, a))) for t in trees(EMBEDDED_ORDER[name] + 1)) > 1e-8


@pytest.mark.parametrize("name", INTERPOLATED)
@pytest.mark.parametrize("x", [0.1, 0.5, 0.8])
def test_interpolant_order_conditions(name: str, x: float) -> None:
    tableau, a = TABLEAUS[name], extended_matrix(TABLEAUS[name], extra=True)
    assert torch.allclose(a.sum(1), torch.tensor(tableau.nodes, dtype=torch.float64), rtol=0, atol=1e-14)
    w = torch.tensor(tableau.dense_weights(x), dtype=torch.float64)
    for order in range(1, min(DENSE_ORDER[name], tableau.order) + 1):
        for tree in trees(order):
            # tsit5's digits are given to 1e-15, with weights up to 90.
            assert float(w @ elementary_weights(tree, a)) == pytest.approx(x**order / density(tree), abs=1e-13)


@pytest.mark.parametrize("name", INTERPOLATED)
def test_interpolant_joins_the_steps(name: str) -> None:
    """It meets z, z1 and, with its slope, k_0 and k_s; hence it is continuously differentiable."""
    tableau = TABLEAUS[name]
    assert tableau.dense is not None
    extra = [0.0] * len(tableau.extra_c)
    start = [1.0] + [0.0] * tableau.stages + extra
    end = [0.0] * tableau.stages + [1.0] + extra
    slope = [[sum((j + 1) * p * x**j for j, p in enumerate(row)) for row in tableau.dense] for x in (0.0, 1.0)]
    assert tableau.dense_weights(0.0) == (0.0,) * len(tableau.nodes)
    assert tableau.dense_weights(1.0) == pytest.approx((*tableau.b, 0.0, *extra), abs=1e-12)
    assert slope[0] == pytest.approx(start, abs=1e-12)
    assert slope[1] == pytest.approx(end, abs=1e-12)


def slope_of(errors: list[float], sizes: list[float]) -> float:
    """Slope of log error against log size by least squares."""
    x, y = torch.tensor(sizes).log(), torch.tensor(errors).log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


# Last time and numbers of steps that keep the error between 1e-12, above round-off, and 1e-1, in the asymptotic range.
SLOPE_RUNS = {
    1: (2.0, (64, 128, 256)),
    2: (2.0, (32, 64, 128)),
    3: (2.0, (32, 64, 128)),
    4: (2.0, (16, 32, 64)),
    5: (6.0, (32, 64, 128)),
    8: (2.0, (6, 9, 12)),
}


@pytest.mark.parametrize("name", TABLEAUS)
def test_error_falls_with_the_order(name: str) -> None:
    tableau = TABLEAUS[name]
    t1, counts = SLOPE_RUNS[tableau.order]
    sizes, errors = [t1 / n for n in counts], []
    for dt in sizes:
        z = solve(lambda t, z: z * torch.cos(t), torch.ones((), dtype=torch.float64), [0.0, t1], fixed(name, dt))
        errors.append(abs(float(z.z[-1]) - math.exp(math.sin(t1))))
    assert slope_of(errors, sizes) == pytest.approx(tableau.order, abs=0.3)


@pytest.mark.parametrize("name", INTERPOLATED)
def test_interpolation_error_falls_with_its_order(name: str) -> None:
    """One step from exact data: the local error has the order of the interpolant (or of z1) plus one."""
    tableau = TABLEAUS[name]
    z0 = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    start = 0.8
    # From the seventh order on, errors of smaller steps are round-off.
    sizes, errors = [0.02, 0.01, 0.005] if DENSE_ORDER[name] < 7 else [0.05, 0.035, 0.025], []
    for dt in sizes:
        method = adaptive(name, rtol=1e6, atol=1e6, first_step=dt)  # anything is accepted: one step
        solution = solve(hyperbola, z0, [start, start + 0.4 * dt, start + dt], method)
        assert solution.stats.accepted == 1
        t = start + 0.4 * dt
        errors.append(float((solution.z[1] - 1 / (1 / z0 + t * t - start * start)).abs().max()))
    assert slope_of(errors, sizes) == pytest.approx(min(DENSE_ORDER[name], tableau.order) + 1, abs=0.3)
