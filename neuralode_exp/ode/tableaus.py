"""Butcher tableaus of the explicit Runge-Kutta methods, each with its source.

A step from (t, z) of size dt evaluates, for i = 0 .. s-1,

    k_i = f(t + c_i dt, z + dt sum_{j<i} a_ij k_j),    z1 = z + dt sum_i b_i k_i,

and, where it is needed, the closing derivative k_s = f(t + dt, z1). Error estimate and dense output are
combinations of k_0 .. k_s too, so that everything a step gives back is z + dt sum_i w_i k_i:

    error = dt sum_i e_i k_i,    z(t + x dt) = z + dt sum_i w_i(x) k_i,    w_i(x) = sum_j P_ij x^(j+1).

A new method is one more entry of `TABLEAUS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Row = tuple[float, ...]


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method with s stages.

    Args:
        order: order of z1 (the propagated solution); the error test uses it as exponent, as torchdiffeq does.
        c: stage times, s entries, c[0] = 0.
        a: rows a[i] with i entries (a[0] is empty).
        b: weights of z1, s entries.
        e: weights of the error estimate over k_0 .. k_s (s + 1 entries), or None for a method without one.
        dense: P, s + 1 rows of polynomial coefficients of x, x^2, ..., or None: observations are then stepped onto.
        dense_order: order of the interpolant, 0 without one.
    """

    order: int
    c: Row
    a: tuple[Row, ...]
    b: Row
    e: Row | None = None
    dense: tuple[Row, ...] | None = None
    dense_order: int = 0

    @property
    def stages(self) -> int:
        """s: evaluations that z1 needs (the closing derivative is the next step's k_0, or not needed)."""
        return len(self.b)

    @property
    def closes_before_test(self) -> bool:
        """Whether the error estimate uses k_s = f(t + dt, z1) ("first same as last")."""
        return self.e is not None and self.e[-1] != 0.0

    def dense_weights(self, x: float) -> Row:
        """w_i(x), i = 0 .. s, of the interpolant at the fraction x of the step."""
        assert self.dense is not None
        return tuple(sum(p * x ** (j + 1) for j, p in enumerate(row)) for row in self.dense)


def _hermite(b: Row) -> tuple[Row, ...]:
    """Cubic Hermite interpolant of (z, k_0) and (z1, k_s) as weights (Hairer, Nørsett & Wanner I, Sec. II.6)."""
    rows = [[0.0, 3.0 * b_i, -2.0 * b_i] for b_i in b] + [[0.0, -1.0, 1.0]]
    rows[0] = [rows[0][0] + 1.0, rows[0][1] - 2.0, rows[0][2] + 1.0]
    return tuple(tuple(row) for row in rows)


def _quartic(b: Row, mid: Sequence[float]) -> tuple[Row, ...]:
    """Quartic through z, k_0, z1, k_s and the state z + dt sum_i mid_i k_i at the middle of the step."""
    rows = []
    for i, m in enumerate(mid):
        b_i = b[i] if i < len(b) else 0.0
        first, last = float(i == 0), float(i == len(b))
        rows.append(
            (
                first,
                last - 4.0 * first - 5.0 * b_i + 16.0 * m,
                5.0 * first - 3.0 * last + 14.0 * b_i - 32.0 * m,
                2.0 * (last - first) - 8.0 * b_i + 16.0 * m,
            )
        )
    return tuple(rows)


def _minus(b: Row, b_hat: Row) -> Row:
    """Error weights b - b_hat over k_0 .. k_s; b has no closing derivative."""
    return tuple(x - y for x, y in zip((*b, 0.0), b_hat, strict=True))


# Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I (2nd ed.), Sec. II.1.
_EULER = Tableau(order=1, c=(0.0,), a=((),), b=(1.0,))
_MIDPOINT = Tableau(order=2, c=(0.0, 1 / 2), a=((), (1 / 2,)), b=(0.0, 1.0))
_HEUN2 = Tableau(order=2, c=(0.0, 1.0), a=((), (1.0,)), b=(1 / 2, 1 / 2))
_HEUN3 = Tableau(order=3, c=(0.0, 1 / 3, 2 / 3), a=((), (1 / 3,), (0.0, 2 / 3)), b=(1 / 4, 0.0, 3 / 4))
# Kutta's 3/8 rule, as torchdiffeq's rk4: the same order as the classical method, with a smaller error constant.
_RK4 = Tableau(
    order=4,
    c=(0.0, 1 / 3, 2 / 3, 1.0),
    a=((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
    b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
)

# Heun's method with Euler embedded. torchdiffeq treats it as first-same-as-last and carries the stage k_1 over to the
# next step, though k_1 was evaluated at z + dt k_0 and not at z1; here f is evaluated at the accepted state.
_ADAPTIVE_HEUN = Tableau(
    order=2,
    c=_HEUN2.c,
    a=_HEUN2.a,
    b=_HEUN2.b,
    e=(1 / 2, -1 / 2, 0.0),
    dense=_hermite(_HEUN2.b),
    dense_order=3,
)

# Fehlberg, NASA TR R-315 (1969), Table XIV: RK1(2); the second-order solution is propagated. As above, f is evaluated
# at the accepted state, where torchdiffeq carries k_2 over.
_FEHLBERG2_B = (1 / 512, 255 / 256, 1 / 512)
_FEHLBERG2 = Tableau(
    order=2,
    c=(0.0, 1 / 2, 1.0),
    a=((), (1 / 2,), (1 / 256, 255 / 256)),
    b=_FEHLBERG2_B,
    e=(-1 / 512, 0.0, 1 / 512, 0.0),
    dense=_hermite(_FEHLBERG2_B),
    dense_order=3,
)

# Bogacki & Shampine, A 3(2) pair of Runge-Kutta formulas, Appl. Math. Lett. 2(4), 1989.
_BOSH3_B = (2 / 9, 1 / 3, 4 / 9)
_BOSH3 = Tableau(
    order=3,
    c=(0.0, 1 / 2, 3 / 4),
    a=((), (1 / 2,), (0.0, 3 / 4)),
    b=_BOSH3_B,
    e=_minus(_BOSH3_B, (7 / 24, 1 / 4, 1 / 3, 1 / 8)),
    dense=_hermite(_BOSH3_B),
    dense_order=3,
)

# Dormand & Prince, A family of embedded Runge-Kutta formulae, J. Comput. Appl. Math. 6(1), 1980. The embedded weights
# and the middle of the step are Shampine's, Some practical Runge-Kutta formulas, Math. Comp. 46(173), 1986, which
# torchdiffeq uses too; the usual pair of ode45 and SciPy has 71/57600 ... instead.
_DOPRI5_B = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
_DOPRI5 = Tableau(
    order=5,
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    ),
    b=_DOPRI5_B,
    e=_minus(_DOPRI5_B, (1951 / 21600, 0.0, 22642 / 50085, 451 / 720, -12231 / 42400, 649 / 6300, 1 / 60)),
    dense=_quartic(
        _DOPRI5_B,
        (
            6025192743 / 30085553152 / 2,
            0.0,
            51252292925 / 65400821598 / 2,
            -2691868925 / 45128329728 / 2,
            187940372067 / 1594534317056 / 2,
            -1776094331 / 19743644256 / 2,
            11237099 / 235043384 / 2,
        ),
    ),
    dense_order=4,
)

# Tsitouras, Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption, Comput. Math.
# Appl. 62(2), 2011; digits and the free fourth-order interpolant as in OrdinaryDiffEq.jl and diffrax.
_TSIT5 = Tableau(
    order=5,
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0),
    a=(
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
    ),
    b=(
        0.09646076681806523,
        0.01,
        0.4798896504144996,
        1.379008574103742,
        -3.290069515436081,
        2.324710524099774,
    ),
    e=(
        -0.00178001105222577714,
        -0.0008164344596567469,
        0.007880878010261995,
        -0.1447110071732629,
        0.5823571654525552,
        -0.45808210592918697,
        1 / 66,
    ),
    dense=(
        (1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216),
        (0.0, 0.13169999999999998, -0.2234, 0.1017),
        (0.0, 3.9302962368947516, -5.941033872131505, 2.490627285651253),
        (0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902),
        (0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928),
        (0.0, -27.896526289197286, 65.09189467479366, -34.87065786149661),
        (0.0, 1.5, -4.0, 2.5),
    ),
    dense_order=4,
)

# Prince & Dormand, High order embedded Runge-Kutta formulae, J. Comput. Appl. Math. 7(1), 1981: RK8(7)13M, with the
# rational approximations that torchdiffeq uses. It steps onto observations: its interpolant is of order 4 only there.
_DOPRI8_B = (
    14005451 / 335480064,
    0.0,
    0.0,
    0.0,
    0.0,
    -59238493 / 1068277825,
    181606767 / 758867731,
    561292985 / 797845732,
    -1041891430 / 1371343529,
    760417239 / 1151165299,
    118820643 / 751138087,
    -528747749 / 2220607170,
    1 / 4,
)
_DOPRI8_B_HAT = (
    13451932 / 455176623,
    0.0,
    0.0,
    0.0,
    0.0,
    -808719846 / 976000145,
    1757004468 / 5645159321,
    656045339 / 265891186,
    -3867574721 / 1518517206,
    465885868 / 322736535,
    53011238 / 667516719,
    2 / 45,
    0.0,
    0.0,
)
# fmt: off
_DOPRI8 = Tableau(
    order=8,
    c=(
        0.0, 1 / 18, 1 / 12, 1 / 8, 5 / 16, 3 / 8, 59 / 400, 93 / 200,
        5490023248 / 9719169821, 13 / 20, 1201146811 / 1299019798, 1.0, 1.0,
    ),
    a=(
        (),
        (1 / 18,),
        (1 / 48, 1 / 16),
        (1 / 32, 0.0, 3 / 32),
        (5 / 16, 0.0, -75 / 64, 75 / 64),
        (3 / 80, 0.0, 0.0, 3 / 16, 3 / 20),
        (29443841 / 614563906, 0.0, 0.0, 77736538 / 692538347, -28693883 / 1125000000, 23124283 / 1800000000),
        (16016141 / 946692911, 0.0, 0.0, 61564180 / 158732637, 22789713 / 633445777, 545815736 / 2771057229,
         -180193667 / 1043307555),
        (39632708 / 573591083, 0.0, 0.0, -433636366 / 683701615, -421739975 / 2616292301, 100302831 / 723423059,
         790204164 / 839813087, 800635310 / 3783071287),
        (246121993 / 1340847787, 0.0, 0.0, -37695042795 / 15268766246, -309121744 / 1061227803,
         -12992083 / 490766935, 6005943493 / 2108947869, 393006217 / 1396673457, 123872331 / 1001029789),
        (-1028468189 / 846180014, 0.0, 0.0, 8478235783 / 508512852, 1311729495 / 1432422823,
         -10304129995 / 1701304382, -48777925059 / 3047939560, 15336726248 / 1032824649,
         -45442868181 / 3398467696, 3065993473 / 597172653),
        (185892177 / 718116043, 0.0, 0.0, -3185094517 / 667107341, -477755414 / 1098053517,
         -703635378 / 230739211, 5731566787 / 1027545527, 5232866602 / 850066563, -4093664535 / 808688257,
         3962137247 / 1805957418, 65686358 / 487910083),
        (403863854 / 491063109, 0.0, 0.0, -5068492393 / 434740067, -411421997 / 543043805, 652783627 / 914296604,
         11173962825 / 925320556, -13158990841 / 6184727034, 3936647629 / 1978049680, -160528059 / 685178525,
         248638103 / 1413531060, 0.0),
    ),
    b=_DOPRI8_B,
    e=_minus(_DOPRI8_B, _DOPRI8_B_HAT),
)
# fmt: on

TABLEAUS: dict[str, Tableau] = {
    "euler": _EULER,
    "midpoint": _MIDPOINT,
    "heun2": _HEUN2,
    "heun3": _HEUN3,
    "rk4": _RK4,
    "adaptive-heun": _ADAPTIVE_HEUN,
    "fehlberg2": _FEHLBERG2,
    "bosh3": _BOSH3,
    "dopri5": _DOPRI5,
    "tsit5": _TSIT5,
    "dopri8": _DOPRI8,
}
