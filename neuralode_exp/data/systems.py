"""Dynamical systems dz/dt = f(t, z), and what is known of each: the flow, a fixed point and the eigenvalues there.

To add one, write a function that returns its `System` and give it a row in `SYSTEMS`.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Tolerances of the reference solutions: far below any noise and any trained network's error.
RTOL, ATOL = 1e-10, 1e-12

# f(t, z) -> dz/dt with z of shape (..., d). It is called with torch tensors; a stiff system's also with NumPy
# arrays, because LSODA asks for one state at a time and torch's cost per operation would be all of its time.
VectorField = Callable[[Any, Any], Any]
Box = tuple[tuple[float, float], ...]
Side = float | Sequence[float]


@dataclass(frozen=True, eq=False)
class System:
    """A system dz/dt = f(t, z) in R^d.

    Args:
        f: the vector field, on tensors of any dtype and device, shape (..., d) to (..., d).
        box: where initial states are drawn unless told otherwise, (low, high) for each dimension.
        t_max: the length of a trajectory unless told otherwise.
        matrix: A of a linear system dz/dt = A z, shape (d, d), float64.
        fixed_point: a state with f = 0 whose eigenvalues describe the dynamics, shape (d,), float64.
        stiff: whether reference solutions need an implicit method.
    """

    f: VectorField
    box: Box
    t_max: float
    matrix: Tensor | None = None
    fixed_point: Tensor | None = None
    stiff: bool = False

    @property
    def dim(self) -> int:
        return len(self.box)

    @property
    def eigenvalues(self) -> Tensor | None:
        """Eigenvalues of df/dz at the fixed point, shape (d,), complex128; None without a fixed point."""
        if self.fixed_point is None:
            return None
        jacobian = torch.autograd.functional.jacobian(partial(self.f, 0.0), self.fixed_point)
        return torch.linalg.eigvals(jacobian)

    def fastest_decay(self, z: Tensor) -> float:
        """Largest -Re(lambda) of df/dz over states z of shape (N, d), in 1 / time; 0 where nothing decays.

        Steps of an explicit Runge-Kutta method are unstable beyond about 3 / fastest_decay, however smooth the
        solution is (Hairer & Wanner II, Sec. IV.2).
        """
        with torch.enable_grad():
            z = z.detach().double().requires_grad_()  # a tensor of its own, also of float64 states
            dz = self.f(torch.zeros((), dtype=z.dtype), z)
            rows = [torch.autograd.grad(dz[:, i].sum(), z, retain_graph=True)[0] for i in range(self.dim)]
        return max(0.0, -float(torch.linalg.eigvals(torch.stack(rows, 1)).real.min()))

    def flow(self, z0: Tensor, t: Tensor) -> Tensor:
        """Follow the system from z0 at t[0] through the times t, in float64.

        Linear systems by z(t) = exp((t - t0) A) z0, others by DOP853 or, stiff, LSODA at rtol 1e-10.

        Args:
            z0: initial states, shape (N, d).
            t: increasing times, shape (T,).

        Returns:
            States of shape (T, N, d). Once a state has left float64's range, its later rows are not finite.
        """
        z0, t = z0.double(), t.double()
        if self.matrix is not None:
            return torch.einsum("tij,nj->tni", torch.linalg.matrix_exp(self.matrix * (t - t[0])[:, None, None]), z0)
        if len(z0) == 0:
            return z0.new_empty(len(t), *z0.shape)
        solve = _solve_stiff if self.stiff else _solve
        return torch.from_numpy(solve(self.f, z0.numpy(), t.numpy()))


def _solve(f: VectorField, z0: np.ndarray, t: np.ndarray) -> np.ndarray:
    """All trajectories in one vectorised explicit solve."""
    from scipy.integrate import solve_ivp  # half a second that a linear system does not need

    largest = math.sqrt(np.finfo(np.float64).max)

    def rhs(t: float, y: np.ndarray) -> np.ndarray:
        return f(t, torch.from_numpy(y).view(z0.shape)).reshape(-1).numpy()

    def leaves_range(t: float, y: np.ndarray) -> float:
        return float(np.abs(y).max()) - largest

    leaves_range.terminal = True  # type: ignore[attr-defined]
    with np.errstate(over="ignore", invalid="ignore"):  # a trial step may overflow; what is left is checked
        solution = solve_ivp(
            rhs, (t[0], t[-1]), z0.ravel(), "DOP853", t_eval=t, rtol=RTOL, atol=ATOL, events=leaves_range
        )
    z = np.full((len(t), *z0.shape), np.nan)
    z[: len(solution.t)] = solution.y.T.reshape(-1, *z0.shape)
    return z


def _solve_stiff(f: VectorField, z0: np.ndarray, t: np.ndarray) -> np.ndarray:
    """One LSODA solve for each trajectory: fast phases fall at different times, a shared step would crawl."""
    from scipy.integrate import ODEintWarning, odeint

    z = np.empty((len(t), *z0.shape))
    for n, state in enumerate(z0):
        with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
            warnings.simplefilter("ignore", ODEintWarning)  # a failure is read off the times it reached
            z[:, n], info = odeint(f, state, t, tfirst=True, rtol=RTOL, atol=ATOL, mxstep=100_000, full_output=True)
        reached = np.minimum.accumulate(np.append(True, info["tcur"] >= t[1:]))
        z[~reached, n] = np.nan
    return z


def linear(matrix: Sequence[Sequence[float]]) -> System:
    """Return z' = A z for a real square matrix A."""
    a = torch.tensor(matrix, dtype=torch.float64)
    if a.dim() != 2 or a.shape[0] != a.shape[1] or not a.isfinite().all():
        raise ValueError(f"`matrix` must be square and finite, got {matrix}; give d rows of d numbers")

    def f(t: Any, z: Tensor) -> Tensor:
        return z @ a.to(z).T

    d = len(a)
    return System(f, ((-2.0, 2.0),) * d, _linear_t_max(a), matrix=a, fixed_point=a.new_zeros(d))


def _linear_t_max(a: Tensor) -> float:
    """Four e-foldings of the dominant mode, but at most one turn of the fastest.

    Longer, a decaying system shows noise, a growing one its last few states, and the samples of a turning one
    alias.
    """
    eigenvalues = torch.linalg.eigvals(a)
    growth = eigenvalues.real.max().abs().item()
    turning = eigenvalues.imag.abs().max().item()
    rate = max(growth, 4 * turning / (2 * math.pi)) or eigenvalues.abs().max().item() or 1.0
    return 4 / rate


def two_foci() -> System:
    """Return z' = s(<z, x0>) A (z - x0) + s(-<z, x0>) B (z + x0), s the sigmoid.

    A = [[-0.1, -0.5], [0.5, -0.1]], B = [[0.2, 1], [-1, 0.2]], x0 = (-1, 0): a stable focus on the left, an unstable
    one on the right.
    """
    foci = [[-0.1, -0.5], [0.5, -0.1]], [[0.2, 1.0], [-1.0, 0.2]], [-1.0, 0.0]
    constants = [torch.tensor(constant, dtype=torch.float64) for constant in foci]

    def f(t: Any, z: Tensor) -> Tensor:
        a, b, x0 = (constant.to(z) for constant in constants)
        left = torch.sigmoid(z @ x0)[..., None]
        return left * ((z - x0) @ a.T) + (1 - left) * ((z + x0) @ b.T)

    # The unstable focus, a root of f on y = 0. The stable one, at (-1.879, 0), is not where the trajectories go.
    focus = torch.tensor([1.31139556475199, 0.0], dtype=torch.float64)
    return System(f, ((-2.0, 2.0),) * 2, 15.0, fixed_point=focus)


def lotka_volterra(alpha: float = 2 / 3, beta: float = 4 / 3, gamma: float = 1.0, delta: float = 1.0) -> System:
    """Return prey and predators, x' = alpha x - beta x y and y' = delta x y - gamma y, all rates positive."""
    for name, rate in {"alpha": alpha, "beta": beta, "gamma": gamma, "delta": delta}.items():
        if not 0 < rate < math.inf:
            raise ValueError(f"`{name}` must be a positive rate, got {rate}; 1 is a common choice")

    def f(t: Any, z: Tensor) -> Tensor:
        x, y = z.unbind(-1)
        return torch.stack((alpha * x - beta * x * y, delta * x * y - gamma * y), -1)

    # Half to twice the fixed point, for about one period of the small oscillations around it.
    x, y = gamma / delta, alpha / beta
    centre = torch.tensor([x, y], dtype=torch.float64)
    return System(f, ((x / 2, 2 * x), (y / 2, 2 * y)), 2 * math.pi / math.sqrt(alpha * gamma), fixed_point=centre)


def van_der_pol(mu: float = 1.0) -> System:
    """Return x' = v, v' = mu (1 - x^2) v - x, a limit cycle of amplitude 2; stiff for a large mu >= 0."""
    if not 0 <= mu < math.inf:
        raise ValueError(f"`mu` must be a finite number >= 0, got {mu}; 1 is a common choice")

    def f(t: Any, z: Any) -> Any:
        x, v = z[..., 0], z[..., 1]
        stack = torch.stack if isinstance(z, Tensor) else np.stack
        return stack((v, mu * (1 - x * x) * v - x), -1)

    # About one period: 2 pi at mu = 0 and (3 - 2 ln 2) mu for mu -> infinity.
    t_max = 2 * math.pi + (3 - 2 * math.log(2)) * mu
    return System(f, ((-2.0, 2.0),) * 2, t_max, fixed_point=torch.zeros(2, dtype=torch.float64), stiff=mu >= 5)


def system_of(
    f: VectorField, dim: int, *, low: Side = -2.0, high: Side = 2.0, t_max: float = 10.0, stiff: bool = False
) -> System:
    """Return the system of a function of tensors, with a fixed point where there is one near its box.

    Args:
        f: dz/dt of a scalar tensor t and a tensor z of shape (..., dim), with z's shape.
        dim: number of dimensions.
        low, high: the box of initial states, a number or one for each dimension.
        t_max, stiff: as those of `System`.
    """
    sides = [(end,) * dim if isinstance(end, (int, float)) else tuple(end) for end in (low, high)]
    if any(len(side) != dim for side in sides):
        raise ValueError(f"`low` and `high` must be one number or {dim}, one for each dimension, got {low} and {high}")

    def of_tensors(t: Any, z: Any) -> Any:
        if isinstance(z, np.ndarray):  # from a stiff solve
            return of_tensors(t, torch.from_numpy(z)).numpy()
        return f(torch.as_tensor(t, dtype=z.dtype, device=z.device), z)

    box = tuple((float(a), float(b)) for a, b in zip(*sides, strict=True))
    return System(of_tensors, box, t_max, fixed_point=_fixed_point(of_tensors, box), stiff=stiff)


def _fixed_point(f: VectorField, box: Box) -> Tensor | None:
    """Of the roots of an f that does not depend on t, the one nearest to the centre of the box, at most its size away.

    Powell's hybrid method from the centre and 32 random states of the box. None where no root is found, where f depends
    on t, or where the Jacobian is 0 there.
    """
    from scipy.optimize import root

    low, high = np.array(box).T
    centre, half = (low + high) / 2, (high - low) / 2
    starts = [centre, *(centre + half * np.random.default_rng(0).uniform(-1, 1, (32, len(box))))]

    def at(z: np.ndarray, t: float = 0.0) -> np.ndarray:
        return np.asarray(f(t, torch.from_numpy(z)))

    size = np.mean([np.linalg.norm(at(z)) for z in starts])
    found = []
    with np.errstate(all="ignore"):  # a step of the search may leave the range of f
        for start in starts:
            result = root(at, start, tol=1e-13)
            moves = max(np.linalg.norm(at(result.x, t)) for t in (0.0, 1.0, 2.7))
            if moves <= 1e-9 * size and (np.abs(result.x - centre) <= 2 * half).all():
                found.append(result.x)
    if not found:
        return None
    nearest = torch.from_numpy(min(found, key=lambda z: float(np.linalg.norm((z - centre) / half))))
    jacobian = torch.autograd.functional.jacobian(partial(f, 0.0), nearest)
    return nearest if bool(jacobian.abs().max() > 1e-6) else None


SYSTEMS: dict[str, Callable[..., System]] = {
    "spiral-stable-focus": partial(linear, matrix=((-1.0, -1.0), (1.0, -1.0))),
    "stable-node": partial(linear, matrix=((-1.0, 0.0), (0.0, -2.0))),
    "circle": partial(linear, matrix=((0.0, -1.0), (1.0, 0.0))),
    "unstable": partial(linear, matrix=((1.0, -1.0), (1.0, 1.0))),
    "two-foci": two_foci,
    "lotka-volterra": lotka_volterra,
    "van-der-pol": van_der_pol,
}


def make_system(name: str, **parameters: Any) -> System:
    """Return the system of that name, with its parameters (`matrix`, `mu`, ...) where they differ from its own.

    Raises:
        ValueError: the name is unknown, or a parameter is outside its range.
    """
    if name not in SYSTEMS:
        raise ValueError(f"system must be one of {', '.join(SYSTEMS)}, got {name!r}")
    return SYSTEMS[name](**parameters)
