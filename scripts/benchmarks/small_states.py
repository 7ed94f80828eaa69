"""Rows of the table `core` for small states, where the solver's own work counts: one thread, forward, no graph.

- Lorenz's equations (three numbers, float64, dopri5 1e-8): microseconds of an evaluation beyond those of f itself,
  which is called as often on one fixed state.
- 256 van der Pol oscillators (mu = 2, t to 10, 200 observations, float32, dopri5 1e-5): time relative to torchdiffeq
  and to `bare_dopri5`, a loop with the same arithmetic and nothing else.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torchdiffeq
from torch import Tensor

from benchmarks.table import Figure
from benchmarks.timing import interleaved, ratio
from neuralode_exp.ode import TABLEAUS, Stats, make_method, solve

VectorField = Callable[[Tensor, Tensor], Tensor]
BEYOND_GOAL = 20.0  # microseconds an evaluation
FASTER_GOAL = 3.0
BARE_GOAL = 1.1


def lorenz(t: Tensor, z: Tensor) -> Tensor:
    """Lorenz, Deterministic nonperiodic flow, J. Atmos. Sci. 20, 1963, eqs. (25)-(27): sigma 10, r 28, b 8/3."""
    x, y, w = z.unbind(-1)
    return torch.stack((10.0 * (y - x), x * (28.0 - w) - y, x * y - 8.0 / 3.0 * w), -1)


def van_der_pol(t: Tensor, z: Tensor) -> Tensor:
    x, v = z[..., 0], z[..., 1]
    return torch.stack((v, 2.0 * (1.0 - x * x) * v - x), -1)


def measure(quick: bool) -> list[Figure]:
    rounds = 3 if quick else 40
    with torch.no_grad(), one_thread():
        return [*beyond_f(0.5 if quick else 5.0, rounds), *oscillators(1.0 if quick else 10.0, rounds)]


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def beyond_f(t_end: float, rounds: int) -> list[Figure]:
    """Measure the time of an evaluation beyond that of f, in our solver and in torchdiffeq."""
    z0, t = torch.ones(3, dtype=torch.float64), torch.tensor([0.0, t_end], dtype=torch.float64)
    tasks: dict[str, Callable[[], object]] = {
        "ours": partial(ours, lorenz, z0, t, 1e-8),
        "torchdiffeq": partial(theirs, lorenz, z0, t, 1e-8),
    }
    nfe = {"ours": ours(lorenz, z0, t, 1e-8).nfe_forward, "torchdiffeq": count(theirs, lorenz, z0, t, 1e-8)}
    seconds = interleaved({**tasks, "f": partial(evaluate, lorenz, z0, nfe["ours"])}, rounds)
    f_alone = [s / nfe["ours"] for s in seconds["f"]]
    figures = []
    for name, goal in (("ours", BEYOND_GOAL), ("torchdiffeq", None)):
        beyond = [1e6 * (s / nfe[name] - f) for s, f in zip(seconds[name], f_alone, strict=True)]
        low, median, high = statistics.quantiles(beyond, n=4, method="inclusive")
        details = {"nfe": nfe[name], "f_us": 1e6 * statistics.median(f_alone), "rounds": rounds}
        title = f"Lorenz, dopri5 1e-8, one thread: microseconds of an evaluation beyond f, {name}"
        figures.append(Figure(title, median, at_most=goal, spread=(low, high), details=details))
    return figures


def oscillators(t_end: float, rounds: int) -> list[Figure]:
    """Measure our time relative to torchdiffeq's and to that of the bare loop."""
    z0 = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    t, tolerance = torch.linspace(0.0, t_end, 200), 1e-5
    runs = {"ours": ours, "torchdiffeq": theirs, "bare loop": bare_dopri5}
    counts = {name: count(run, van_der_pol, z0, t, tolerance) for name, run in runs.items()}
    tasks: dict[str, Callable[[], object]] = {
        name: partial(run, van_der_pol, z0, t, tolerance) for name, run in runs.items()
    }
    tasks["f"] = partial(evaluate, van_der_pol, z0, counts["ours"])
    seconds = interleaved(tasks, rounds)
    details = {f"{name} ms": round(1e3 * statistics.median(times), 3) for name, times in seconds.items()}
    details |= {f"{name} nfe": nfe for name, nfe in counts.items()}
    print("256 oscillators: " + ", ".join(f"{name} {value:.4g}" for name, value in details.items()))
    name = "256 oscillators, dopri5 1e-5, one thread"
    faster, over = ratio(seconds["torchdiffeq"], seconds["ours"]), ratio(seconds["ours"], seconds["bare loop"])
    title = f"{name}: times faster than odeint"
    return [
        Figure(title, faster.median, at_least=FASTER_GOAL, spread=faster.quartiles, details=details),
        Figure(f"{name}: over a bare loop", over.median, at_most=BARE_GOAL, spread=over.quartiles, details=details),
    ]


def ours(f: VectorField, z0: Tensor, t: Tensor, tolerance: float) -> Stats:
    return solve(f, z0, t, make_method("dopri5", rtol=tolerance, atol=tolerance)).stats


def theirs(f: VectorField, z0: Tensor, t: Tensor, tolerance: float) -> Tensor:
    z: Tensor = torchdiffeq.odeint(
        f, z0, t, method="dopri5", rtol=tolerance, atol=tolerance, options={"step_t": t[-1:]}
    )
    return z


def evaluate(f: VectorField, z: Tensor, evaluations: int) -> None:
    """f alone."""
    t = torch.zeros((), dtype=z.dtype)
    for _ in range(evaluations):
        f(t, z)


def count(run: Callable[..., object], f: VectorField, *arguments: object) -> int:
    """Return the number of evaluations of f in one run."""
    calls = 0

    def counted(t: Tensor, z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return f(t, z)

    run(counted, *arguments)
    return calls


def bare_dopri5(f: VectorField, z0: Tensor, t: Tensor, tolerance: float) -> Tensor:
    """Take the steps that `solve` takes, for increasing times and without any check: NaN makes it run forever.

    The stages of a step lie in one buffer. Each state and the error are one product with this buffer, and all
    observations are one product after the last step.
    """
    tableau = TABLEAUS["dopri5"]
    assert tableau.e is not None
    assert tableau.dense is not None
    n, root, z, times = z0.numel(), math.sqrt(z0.numel()), z0.flatten(), t.tolist()
    rows = [z.new_tensor(row) for row in (*tableau.a[1:], tableau.b)]
    e, c, dense = (z.new_tensor(x) for x in (tableau.e, (*tableau.c[1:], 1.0), tableau.dense))
    k = z.new_empty(len(e), n)
    stages = [k[: i + 1].T for i in range(len(e))]  # row i has weights for k_0 .. k_i
    now, end, index, abs_z = times[0], times[-1], 0, z.abs()
    steps: list[tuple[Tensor, Tensor, float]] = []
    observations: list[tuple[int, float]] = []  # index of the step, fraction of the step
    k[0] = f0 = f(z.new_tensor(now), z0).flatten()
    scale = abs_z * tolerance + tolerance
    d0, d1 = (float(torch.linalg.vector_norm(x / scale)) / root for x in (z, f0))
    h0 = 0.01 * d0 / d1
    f1 = f(z.new_tensor(now + h0), torch.add(z, f0, alpha=h0).view_as(z0)).flatten()
    d2 = float(torch.linalg.vector_norm((f1 - f0) / scale)) / root / h0
    dt = min(100.0 * h0, (0.01 / max(d1, d2)) ** (1 / tableau.order))
    while now < end:
        h, t1 = (end - now, end) if end - now <= dt else (dt, now + dt)
        for i, t_i in enumerate((c * h).add_(now).unbind()):
            z1 = torch.addmv(z, stages[i], rows[i], alpha=h)
            k[i + 1] = f(t_i, z1.view_as(z0)).view(n)
        abs_z1 = z1.abs()
        error = torch.mv(stages[-1], e).div_(torch.maximum(abs_z, abs_z1).mul_(tolerance).add_(tolerance))
        ratio = h * float(torch.linalg.vector_norm(error)) / root
        dt = h * min(10.0, max(0.9 * ratio ** (-1 / tableau.order), 1.0 if ratio < 1.0 else 0.2))
        if ratio <= 1.0:
            while index < len(times) and times[index] <= t1:
                observations.append((len(steps), (times[index] - now) / h))
                index += 1
            steps.append((z, k.clone(), h))
            now, z, abs_z = t1, z1, abs_z1
            k[0] = k[-1]
    starts, buffers, sizes = zip(*steps, strict=True)
    owners, fractions = map(list, zip(*observations, strict=True))
    powers = z.new_tensor(fractions)[:, None] ** torch.arange(1, dense.shape[1] + 1)
    weights = (powers @ dense.T).mul_(z.new_tensor(sizes)[owners, None])
    observed = torch.bmm(weights[:, None], torch.stack(buffers)[owners])[:, 0].add_(torch.stack(starts)[owners])
    return observed.view(-1, *z0.shape)
