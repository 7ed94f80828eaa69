"""Butcher tableaus: the coefficients of an explicit Runge-Kutta method, as plain numbers.

A step from (t, z) of size dt evaluates, for i = 0 .. s-1,

    k_i = f(t + c_i dt, z + dt sum_{j<i} a_ij k_j),    z1 = z + dt sum_i b_i k_i,

and, if it is needed, the closing derivative k_s = f(t + dt, z1). The error estimate and the dense output are
combinations of the stages too:

    error = dt sum_i e_i k_i,    z(t + x dt) = z + dt sum_i w_i(x) k_i,    w_i(x) = sum_j P_ij x^(j+1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

Row = tuple[float, ...]
Sparse = tuple[tuple[int, float], ...]  # (index, weight) of the weights that are not zero


def sparse(weights: Row) -> Sparse:
    """Return the weights that are not zero, each with its index."""
    return tuple((i, w) for i, w in enumerate(weights) if w != 0.0)


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method with s stages.

    Args:
        order: order of z1 (the propagated solution); the step size control uses it as exponent, as torchdiffeq does.
        c: stage times, s entries, c[0] = 0.
        a: rows a[i] with i entries (a[0] is empty).
        b: weights of z1, s entries.
        e: weights of the error estimate over k_0 .. k_s (s + 1 entries); None for a method without one.
        e_low: weights of a second estimate of lower order. With the estimates E and E_low the error is then
            E |E| / sqrt(E^2 + (E_low / 10)^2) in each entry (Hairer, Nørsett & Wanner, Solving ODEs I, 2nd ed.,
            Sec. II.10, there with norms).
        dense: P, a row of polynomial coefficients of x, x^2, ... for each of k_0 .. k_s and the extra stages. None:
            there is no interpolant, and a step ends at every observation.
        extra_c, extra_a: stages after the closing derivative that only the interpolant needs.
    """

    order: int
    c: Row
    a: tuple[Row, ...]
    b: Row
    e: Row | None = None
    e_low: Row | None = None
    dense: tuple[Row, ...] | None = None
    extra_c: Row = ()
    extra_a: tuple[Row, ...] = ()

    @property
    def stages(self) -> int:
        """s, the number of evaluations for z1. The closing derivative does not count: it is the next step's k_0."""
        return len(self.b)

    @property
    def closes_before_test(self) -> bool:
        """Whether the error estimate uses k_s = f(t + dt, z1) ("first same as last")."""
        return self.e is not None and self.e[-1] != 0.0

    @cached_property
    def rows(self) -> tuple[Sparse, ...]:
        """The weights of the states at which k_0 .. k_s and the extra stages are evaluated; row s is b."""
        return tuple(sparse(row) for row in (*self.a, self.b, *self.extra_a))

    @cached_property
    def columns(self) -> tuple[Sparse, ...]:
        """For each stage i, the stages l that use it, with their weights a_li."""
        n = len(self.rows)
        return tuple(tuple((j, w) for j in range(n) for i, w in self.rows[j] if i == column) for column in range(n))

    @cached_property
    def nodes(self) -> Row:
        """The times of k_0 .. k_s and the extra stages, as fractions of the step."""
        return (*self.c, 1.0, *self.extra_c)

    @cached_property
    def error_rows(self) -> tuple[Sparse, ...]:
        """The weights e, and e_low if there is one."""
        return tuple(sparse(row) for row in (self.e, self.e_low) if row is not None)

    def dense_weights(self, x: float) -> Row:
        """Return the weights w_i(x) of the interpolant at the fraction x of the step."""
        assert self.dense is not None
        weights = []
        for row in self.dense:
            w = 0.0
            for p in reversed(row):
                w = (w + p) * x
            weights.append(w)
        return tuple(weights)


def minus(b: Row, b_hat: Row) -> Row:
    """Return the error weights b - b_hat over k_0 .. k_s, where b has weight 0 for the closing derivative."""
    return tuple(x - y for x, y in zip((*b, 0.0), b_hat, strict=True))
