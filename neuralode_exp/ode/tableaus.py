"""Tableaus of the explicit Runge-Kutta methods, each with its source. A new method is one more entry of `TABLEAUS`."""

from __future__ import annotations

from collections.abc import Sequence

from neuralode_exp.ode.tableau import Row, Tableau, minus
from neuralode_exp.ode.tableaus_order8 import DOP853, DOPRI8


def _hermite(b: Row) -> tuple[Row, ...]:
    """Return the weights of the cubic Hermite interpolant (Hairer, Nørsett & Wanner I, Sec. II.6)."""
    rows = [[0.0, 3.0 * b_i, -2.0 * b_i] for b_i in b] + [[0.0, -1.0, 1.0]]
    rows[0] = [rows[0][0] + 1.0, rows[0][1] - 2.0, rows[0][2] + 1.0]
    return tuple(tuple(row) for row in rows)


def _quartic(b: Row, mid: Sequence[float]) -> tuple[Row, ...]:
    """Return the weights of the quartic through z, k_0, z1, k_s and the midpoint state z + dt sum_i mid_i k_i."""
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


# Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I (2nd ed.), Sec. II.1.
_EULER = Tableau(order=1, c=(0.0,), a=((),), b=(1.0,))
_MIDPOINT = Tableau(order=2, c=(0.0, 1 / 2), a=((), (1 / 2,)), b=(0.0, 1.0))
_HEUN2 = Tableau(order=2, c=(0.0, 1.0), a=((), (1.0,)), b=(1 / 2, 1 / 2))
_HEUN3 = Tableau(order=3, c=(0.0, 1 / 3, 2 / 3), a=((), (1 / 3,), (0.0, 2 / 3)), b=(1 / 4, 0.0, 3 / 4))
# Kutta's 3/8 rule, which torchdiffeq's rk4 is too. It has the order of the classical method and a smaller error
# constant.
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
)

# Bogacki & Shampine, A 3(2) pair of Runge-Kutta formulas, Appl. Math. Lett. 2(4), 1989.
_BOSH3_B = (2 / 9, 1 / 3, 4 / 9)
_BOSH3 = Tableau(
    order=3,
    c=(0.0, 1 / 2, 3 / 4),
    a=((), (1 / 2,), (0.0, 3 / 4)),
    b=_BOSH3_B,
    e=minus(_BOSH3_B, (7 / 24, 1 / 4, 1 / 3, 1 / 8)),
    dense=_hermite(_BOSH3_B),
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
    e=minus(_DOPRI5_B, (1951 / 21600, 0.0, 22642 / 50085, 451 / 720, -12231 / 42400, 649 / 6300, 1 / 60)),
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
)

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
    "dopri8": DOPRI8,
    "dop853": DOP853,
}
