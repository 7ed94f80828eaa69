"""Dynamical systems dz/dt = f(t, z), each with its flow, and a fixed point with eigenvalues if there is one."""

import functools
import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralode_exp.data import named_systems as named_systems  # the import registers them
from neuralode_exp.data.inputs import Input
from neuralode_exp.data.numbers import complete
from neuralode_exp.registry import Registered, own

# Tolerances of the reference solutions. They are far below the noise and the errors of trained networks.
RTOL, ATOL = 1e-10, 1e-12
# In units of t_max: the time until a trajectory is on the attractor, and the time that it is followed there.
SETTLES, SPREADS = 1.0, 10.0

# f(t, z) -> dz/dt with z of shape (..., d). It is called with torch tensors. f of a stiff system is also called with
# NumPy arrays, because LSODA asks for one state at a time, and torch's overhead per operation would dominate.
VectorField = Callable[..., Any]
Box = tuple[tuple[float, float], ...]
Side = float | Sequence[float]


@dataclass(frozen=True, eq=False)
class System:
    """A system dz/dt = f(t, z) in R^d.

    Args:
        f: the vector field, for tensors of any dtype and device, from shape (..., d) to (..., d).
        box: default box of initial states, (low, high) for each dimension.
        t_max: default length of a trajectory.
        matrix: A of a linear system dz/dt = A z, shape (d, d), float64.
        fixed_point: a state with f = 0 whose eigenvalues describe the dynamics, shape (d,), float64.
        stiff: whether reference solutions need an implicit method.
        inputs: range of each input u of a driven system. Its f takes (t, z, u).
        start: a state whose trajectory goes to an attractor, shape (d,). Initial states are drawn on the attractor.
        lyapunov: the largest Lyapunov exponent, in 1 / time.
        energy: a conserved quantity whose least value is 0, from states of shape (..., d) to shape (...).
    """

    f: VectorField
    box: Box
    t_max: float
    matrix: Tensor | None = None
    fixed_point: Tensor | None = None
    stiff: bool = False
    inputs: Box = ()
    start: Tensor | None = None
    lyapunov: float | None = None
    energy: Callable[[Any], Any] | None = None

    @property
    def dim(self) -> int:
        return len(self.box)

    @property
    def eigenvalues(self) -> Tensor | None:
        """Return the eigenvalues of df/dz at the fixed point, shape (d,), complex128, or None without a fixed point."""
        if self.fixed_point is None:
            return None
        jacobian = torch.autograd.functional.jacobian(partial(self.f, 0.0), self.fixed_point)
        return torch.linalg.eigvals(jacobian)

    def fastest_decay(self, z: Tensor) -> float:
        """Return the largest -Re(lambda) of df/dz over states z of shape (N, d), in 1 / time, or 0 if nothing decays.

        Steps of an explicit Runge-Kutta method are unstable beyond about 3 / fastest_decay, however smooth the
        solution is (Hairer & Wanner II, Sec. IV.2).
        """
        with torch.enable_grad():
            z = z.detach().double().requires_grad_()  # a new tensor, also for float64 states
            dz = self.f(torch.zeros((), dtype=z.dtype), z)
            rows = [torch.autograd.grad(dz[:, i].sum(), z, retain_graph=True)[0] for i in range(self.dim)]
        return max(0.0, -float(torch.linalg.eigvals(torch.stack(rows, 1)).real.min()))

    def flow(self, z0: Tensor, t: Tensor, u: Input | None = None) -> Tensor:
        """Follow the system from z0 at t[0] through the times t, in float64.

        Linear systems use z(t) = exp((t - t0) A) z0. Others are solved at rtol 1e-10, by DOP853 or, if stiff, by LSODA.

        Args:
            z0: initial states, shape (N, d).
            t: increasing times, shape (T,).
            u: the input of a driven system. Its knots are among t.

        Returns:
            States of shape (T, N, d). After a state has left the range of float64, its rows are not finite.
        """
        z0, t = z0.double(), t.double()
        if self.matrix is not None:
            return torch.einsum("tij,nj->tni", torch.linalg.matrix_exp(self.matrix * (t - t[0])[:, None, None]), z0)
        if len(z0) == 0:
            return z0.new_empty(len(t), *z0.shape)
        solve = _solve_stiff if self.stiff else _solve
        if u is None:
            return torch.from_numpy(solve(self.f, z0.numpy(), t.numpy()))
        states, times = [z0.numpy()], t.numpy()
        for start, end in itertools.pairwise(times):  # u may jump at each time
            states.append(solve(self._driven(u, start, end), states[-1], np.array((start, end)))[-1])
        return torch.from_numpy(np.stack(states))

    def initial(self, box: Tensor, uniform: Tensor) -> Tensor:
        """Return initial states, shape (n, d), in a box, shape (2, d), or on the attractor, from n uniform draws."""
        if self.start is None:
            return box[0] + (box[1] - box[0]) * uniform
        return self._attractor[(uniform[:, 0] * len(self._attractor)).long()]

    @functools.cached_property
    def _attractor(self) -> Tensor:
        """Return states of a trajectory on the attractor, shape (n, d)."""
        assert self.start is not None
        times = self.t_max * torch.linspace(0, SETTLES + SPREADS, 2001, dtype=torch.float64)
        return self.flow(self.start[None], times)[times > self.t_max * SETTLES, 0]

    def _driven(self, u: Input, start: float, end: float) -> VectorField:
        """Return f with the input between two knots. At the later knot the input has not jumped yet."""
        inside = (start + (end - start) * 1e-9, end - (end - start) * 1e-9)
        return lambda t, z: self.f(t, z, u(min(max(float(t), inside[0]), inside[1])))


def _solve(f: VectorField, z0: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Solve for all trajectories in one vectorised explicit solve."""
    from scipy.integrate import solve_ivp  # the import takes half a second, and linear systems do not need it

    largest = math.sqrt(np.finfo(np.float64).max)
    if not bool(torch.isfinite(f(float(t[0]), torch.from_numpy(z0))).all()):  # SciPy would look for a step for ever
        raise ValueError(
            f"dz/dt of the system must be finite at its initial states, got NaN or infinity at t={t[0]:g}; correct it, "
            "or draw the states from another box (low, high)"
        )

    def rhs(t: float, y: np.ndarray) -> np.ndarray:
        return f(t, torch.from_numpy(y).view(z0.shape)).reshape(-1).numpy()

    def leaves_range(t: float, y: np.ndarray) -> float:
        return float(np.abs(y).max()) - largest

    leaves_range.terminal = True  # type: ignore[attr-defined]
    with np.errstate(over="ignore", invalid="ignore"):  # a trial step may overflow; the result is checked
        solution = solve_ivp(
            rhs, (t[0], t[-1]), z0.ravel(), "DOP853", t_eval=t, rtol=RTOL, atol=ATOL, events=leaves_range
        )
    z = np.full((len(t), *z0.shape), np.nan)
    z[: len(solution.t)] = solution.y.T.reshape(-1, *z0.shape)
    return z


def _solve_stiff(f: VectorField, z0: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Solve each trajectory by LSODA alone: their fast phases differ in time, so that shared steps would be tiny."""
    from scipy.integrate import ODEintWarning, odeint

    z = np.empty((len(t), *z0.shape))
    for n, state in enumerate(z0):
        with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
            warnings.simplefilter("ignore", ODEintWarning)  # a failure is seen from the times that it reached
            z[:, n], info = odeint(f, state, t, tfirst=True, rtol=RTOL, atol=ATOL, mxstep=100_000, full_output=True)
        reached = np.minimum.accumulate(np.append(True, info["tcur"] >= t[1:]))
        z[~reached, n] = np.nan
    return z


def system_of(
    f: VectorField,
    dim: int,
    *,
    low: Side = -2.0,
    high: Side = 2.0,
    t_max: float = 10.0,
    stiff: bool = False,
    numpy: bool = False,
    inputs: Sequence[tuple[float, float]] = (),
    start: Sequence[float] | None = None,
    lyapunov: float | None = None,
) -> System:
    """Return the system of a function of tensors, with a fixed point if there is one near its box.

    Args:
        f: takes a scalar tensor t and a tensor z of shape (..., dim), and returns dz/dt with the shape of z.
        dim: number of dimensions.
        low, high: the box of initial states, one number or one for each dimension.
        t_max, stiff: as in `System`.
        numpy: whether f also takes NumPy arrays.
        inputs, start, lyapunov: as in `System`.

    Raises:
        ValueError: `low` or `high` has another number of dimensions.
    """
    sides = [(end,) * dim if isinstance(end, (int, float)) else tuple(end) for end in (low, high)]
    if any(len(side) != dim for side in sides):
        raise ValueError(f"`low` and `high` must be one number or {dim}, one for each dimension, got {low} and {high}")

    def of_tensors(t: Any, z: Any, *u: Any) -> Any:
        if isinstance(z, np.ndarray):  # a stiff solve passes arrays
            return f(t, z, *u) if numpy else of_tensors(t, torch.from_numpy(z), *u).numpy()
        return f(torch.as_tensor(t, dtype=z.dtype, device=z.device), z, *u)

    box = tuple((float(a), float(b)) for a, b in zip(*sides, strict=True))
    if inputs:
        return System(of_tensors, box, t_max, stiff=stiff, inputs=tuple(inputs))
    if start is not None:
        at = torch.tensor(start, dtype=torch.float64)
        return System(of_tensors, box, t_max, stiff=stiff, start=at, lyapunov=lyapunov)
    if (matrix := _matrix(of_tensors, dim)) is not None:
        return System(of_tensors, box, t_max, matrix, matrix.new_zeros(dim))
    fixed_point = _fixed_point(of_tensors, box)
    return System(of_tensors, box, t_max, fixed_point=fixed_point, stiff=stiff, lyapunov=lyapunov)


def _matrix(f: VectorField, dim: int) -> Tensor | None:
    """Return A, shape (d, d), if f(t, z) = A z at some random t and z, else None."""
    matrix = f(0.0, torch.eye(dim, dtype=torch.float64)).T
    generator = torch.Generator().manual_seed(0)
    for t in (0.0, 1.3, 7.1):
        z = torch.randn(8, dim, generator=generator, dtype=torch.float64)
        if not torch.allclose(f(t, z), z @ matrix.T, rtol=1e-12, atol=1e-12):
            return None
    return matrix


def _fixed_point(f: VectorField, box: Box) -> Tensor | None:
    """Return the root of f that is nearest to the centre of the box, and at most the size of the box away.

    Powell's hybrid method starts from the centre and from 32 random states of the box. Return None if f depends on t,
    if no root is found, or if the Jacobian at the root is 0.
    """
    from scipy.optimize import root

    low, high = np.array(box).T
    centre, half = (low + high) / 2, (high - low) / 2
    starts = [centre, *(centre + half * np.random.default_rng(0).uniform(-1, 1, (32, len(box))))]

    def at(z: np.ndarray, t: float = 0.0) -> np.ndarray:
        return np.asarray(f(t, torch.from_numpy(z)))

    size = np.mean([np.linalg.norm(at(z)) for z in starts])
    found = []
    with np.errstate(all="ignore"):  # the search may leave the domain of f
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


def make_system(name: str, **options: Any) -> System:
    """Return the package's system with this name. `options` (`matrix`, `mu`, ...) replace its defaults.

    Raises:
        ValueError: the name is unknown, or an option is outside its range.
    """
    return known_system(own("system", name), options)


def known_system(entry: Registered, options: Mapping[str, Any]) -> System:
    """Return the system of a registered function."""
    options = complete(entry, options)
    settings = {key: entry.setting(key, options) for key in entry.settings}
    energy = settings.pop("energy")
    return replace(system_of(partial(entry.make, **options), **settings), energy=energy)
