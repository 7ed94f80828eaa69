"""The numerical core against torchdiffeq 0.2.5 and against the vector field alone.

Both sides solve the same problem with the same field, tolerances, observations and loss (mean square of the states),
forward and backward. They take turns in one process, and speed-ups are medians of the ratios within a round.
torchdiffeq gets `step_t`, the last time forwards and each interval's end backwards, because otherwise the last step of
each solve goes past the end. `odeint_adjoint` has its default norm, or its seminorm where the row says so. The bare
time is that of the same number of evaluations of the field and nothing else, some without a graph and some with a graph
and its vector-Jacobian product. The ODE-Net's field is solved on contiguous and on channels_last images. Small states,
for which the solver's own work counts, are in `small_states`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torchdiffeq
from torch import Tensor, nn

from benchmarks import small_states
from benchmarks.table import Figure
from benchmarks.timing import interleaved, ratio
from neuralode_exp.models.images import ConvField
from neuralode_exp.ode import Method, Stats, make_method, solve
from neuralode_exp.tracking.memory import AllocatedBytes, SavedTensors

Mode = Literal["backprop", "checkpoint", "adjoint", "reversible"]
MODES: tuple[Mode, ...] = ("backprop", "checkpoint", "adjoint")
Task = Callable[[], object]


class MLPField(nn.Module):
    """Two inputs, 50 tanh units, two outputs, without t: the field of a small dynamical system."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        dz: Tensor = self.net(z)
        return dz


@dataclass
class Problem:
    """A training step to be timed: f, what it depends on, its start, its observations, and dopri5's tolerances."""

    name: str
    f: Callable[[Tensor, Tensor], Tensor]
    parameters: tuple[Tensor, ...]
    z0: Tensor
    t: Tensor
    rtol: float
    atol: float

    def differentiate(self, z: Tensor, z0: Tensor) -> None:
        torch.autograd.grad(z[1:].square().mean(), (z0, *self.parameters))

    def ours(self, gradient: Mode) -> Stats:
        z0 = self.z0.detach().requires_grad_()
        method = make_method("dopri5", rtol=self.rtol, atol=self.atol)
        solution = solve(self.f, z0, self.t, method, gradient, parameters=self.parameters)
        self.differentiate(solution.z, z0)
        return solution.stats

    def theirs(self, solver: Callable[..., Tensor], **options: Any) -> None:
        z0 = self.z0.detach().requires_grad_()
        tolerances = {"rtol": self.rtol, "atol": self.atol}
        z = solver(self.f, z0, self.t, method="dopri5", options={"step_t": self.t[-1:]}, **tolerances, **options)
        self.differentiate(z, z0)

    def bare(self, evaluations: int, products: int) -> None:
        """`evaluations` of f without a graph, and `products` with one and the vector-Jacobian product through it."""
        t, adj = self.t[0], torch.ones_like(self.z0)
        with torch.no_grad():
            for _ in range(evaluations):
                self.f(t, self.z0)
        for _ in range(products):
            z = self.z0.detach().requires_grad_()
            torch.autograd.grad(self.f(t, z), (z, *self.parameters), adj)

    def tasks(self) -> dict[str, Task]:
        adjoint = partial(self.theirs, torchdiffeq.odeint_adjoint, adjoint_params=self.parameters)
        to_starts = {"step_t": self.t[:-1]}
        return {
            **{gradient: partial(self.ours, gradient) for gradient in MODES},
            "odeint": partial(self.theirs, torchdiffeq.odeint),
            "odeint_adjoint": partial(adjoint, adjoint_options=to_starts),
            "odeint_adjoint, seminorm": partial(adjoint, adjoint_options={**to_starts, "norm": "seminorm"}),
        }

    def bare_task(self, gradient: Mode, stats: Stats) -> Task:
        """The evaluations and products that a training step made, by themselves."""
        if gradient == "adjoint":
            return partial(self.bare, stats.nfe_forward, stats.nfe_backward)
        # The evaluations of dopri5 that accepted steps use; a closing one counts as an evaluation, used or not.
        products = 6 * stats.accepted
        return partial(self.bare, stats.nfe_forward + stats.nfe_backward - products, products)


# Goals: (ours, theirs) -> least speed-up.
CONV_GOALS = {
    ("checkpoint", "odeint_adjoint"): 2.2,
    ("checkpoint", "odeint_adjoint, seminorm"): None,
    ("backprop", "odeint"): 1.6,
    ("adjoint", "odeint_adjoint, seminorm"): 1.8,
}
MLP_GOALS = {
    ("backprop", "odeint"): 2.2,
    ("checkpoint", "odeint_adjoint"): 10.0,
    ("checkpoint", "odeint_adjoint, seminorm"): None,
    ("adjoint", "odeint_adjoint, seminorm"): None,
}
# Goals: mode -> largest time relative to its bare evaluations.
ODE_NET_OVERHEAD: dict[Mode, float] = {"backprop": 1.10, "checkpoint": 1.06, "adjoint": 1.09}
CHANNELS_LAST_OVERHEAD = dict.fromkeys(MODES, 1.10)
MLP_OVERHEAD: dict[Mode, float] = {"backprop": 1.25}


def measure(quick: bool) -> list[Figure]:
    torch.manual_seed(0)
    batch, rounds = (8, 3) if quick else (128, 15)
    images = torch.randn(batch, 64, 6, 6)
    return [
        *speed(ode_net_problem(images), CONV_GOALS, ODE_NET_OVERHEAD, rounds),
        *speed(ode_net_problem(images, torch.channels_last), CONV_GOALS, CHANNELS_LAST_OVERHEAD, rounds),
        *speed(mlp_problem(), MLP_GOALS, MLP_OVERHEAD, rounds=10 if quick else 200),
        *small_states.measure(quick),
        *memory(images[: batch // 4]),
        *reversible(images, 3 if quick else 9),
    ]


def ode_net_problem(images: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> Problem:
    f = ConvField(64).to(memory_format=memory_format)  # type: ignore[call-overload]
    z0, t = images.contiguous(memory_format=memory_format), torch.tensor([0.0, 1.0])
    name = "ODE-Net's field" if memory_format is torch.contiguous_format else "channels_last field"
    return Problem(f"{name}, dopri5 1e-3", f, tuple(f.parameters()), z0, t, rtol=1e-3, atol=1e-3)


def mlp_problem() -> Problem:
    """20 windows of 10 observations."""
    f, z0, t = MLPField(), 1.5 * torch.randn(20, 2), torch.linspace(0.0, 1.0, 10)
    return Problem("MLP 2-50-2, dopri5 1e-3, 1e-6", f, tuple(f.parameters()), z0, t, rtol=1e-3, atol=1e-6)


def speed(
    problem: Problem, goals: dict[tuple[str, str], float | None], overhead_goals: Mapping[Mode, float], rounds: int
) -> list[Figure]:
    """Speed-ups over torchdiffeq, and the time over that of the bare evaluations."""
    stats = {gradient: problem.ours(gradient) for gradient in MODES}
    tasks = problem.tasks()
    tasks |= {f"bare {gradient}": problem.bare_task(gradient, stats[gradient]) for gradient in MODES}
    seconds = interleaved(tasks, rounds)
    ms = {name: round(1e3 * statistics.median(times), 3) for name, times in seconds.items()}
    print(f"{problem.name}, ms: " + ", ".join(f"{name} {value:.4g}" for name, value in ms.items()))

    figures = []
    for (ours, theirs), goal in goals.items():
        faster = ratio(seconds[theirs], seconds[ours])
        details = {"ms": ms[ours], "torchdiffeq_ms": ms[theirs], "rounds": rounds}
        name = f"{problem.name}: {ours}, times faster than {theirs}"
        figures.append(Figure(name, faster.median, at_least=goal, spread=faster.quartiles, details=details))
    for gradient in MODES:
        over = ratio(seconds[gradient], seconds[f"bare {gradient}"])
        counts = stats[gradient]
        details = {
            "ms": ms[gradient],
            "bare_ms": ms[f"bare {gradient}"],
            "nfe_forward": counts.nfe_forward,
            "nfe_backward": counts.nfe_backward,
            "rounds": rounds,
        }
        name = f"{problem.name}: {gradient}, over its bare evaluations"
        figures.append(
            Figure(name, over.median, at_most=overhead_goals.get(gradient), spread=over.quartiles, details=details)
        )
    return figures


def memory(images: Tensor) -> list[Figure]:
    """Bytes that autograd holds as rk4 goes from 2 to 16 steps, parameters left out."""
    f, z0 = ConvField(64), images
    state = z0.numel() * z0.element_size()

    def held(steps: int, gradient: Mode) -> tuple[int, int]:
        with SavedTensors(exclude=f) as probe:
            z = solve(f, z0.clone().requires_grad_(), [0.0, 1.0], make_method("rk4", step_size=1 / steps), gradient).z
            loss = z[-1].square().mean()
            probe.backward_starts()
            loss.backward()
        return probe.saved_bytes, probe.peak_bytes

    few, many = ({gradient: held(steps, gradient) for gradient in MODES} for steps in (2, 16))
    details = {
        gradient: {"bytes_nfe_8": few[gradient], "bytes_nfe_64": many[gradient], "state_bytes": state}
        for gradient in MODES
    }
    saved = {gradient: many[gradient][0] / few[gradient][0] for gradient in MODES}
    per_state = (many["checkpoint"][0] - few["checkpoint"][0]) / (14 * state)
    stages = [peak - n * state for n, (_, peak) in ((2, few["checkpoint"]), (16, many["checkpoint"]))]
    start, peak = "bytes held when backward starts", "most bytes held through backward"
    return [
        Figure(f"{start}, NFE 64 over 8: adjoint", saved["adjoint"], at_most=1.0, details=details["adjoint"]),
        Figure(
            f"{start}, states for each further step: checkpoint", per_state, at_most=1.0, details=details["checkpoint"]
        ),
        Figure(f"{start}, NFE 64 over 8: backprop", saved["backprop"], details=details["backprop"]),
        Figure(f"{peak}, NFE 64 over 8: adjoint", many["adjoint"][1] / few["adjoint"][1], at_most=1.0),
        Figure(f"{peak} without the states, NFE 64 over 8: checkpoint", stages[1] / stages[0], at_most=1.0),
    ]


def reversible(images: Tensor, rounds: int) -> list[Figure]:
    """Its step's time over checkpoint's, and its memory as rk4 goes from 1 to 8 steps of 8 evaluations."""
    f = ConvField(64)

    def step(method: Method, gradient: Mode, probe: SavedTensors | None = None) -> None:
        f.zero_grad(set_to_none=True)
        loss = solve(f, images.clone().requires_grad_(), [0.0, 1.0], method, gradient).z[-1].square().mean()
        if probe is not None:
            probe.backward_starts()
        loss.backward()

    def held(steps: int) -> tuple[int, int]:
        method = make_method("rk4", step_size=1 / steps)
        with AllocatedBytes() as allocated:
            step(method, "reversible")
        with SavedTensors(exclude=f) as probe:
            step(method, "reversible", probe)
        return probe.saved_bytes, allocated.peak_bytes

    figures = []
    for name, method in (
        ("rk4, 4 steps", make_method("rk4", step_size=0.25)),
        ("dopri5 1e-3", make_method("dopri5", rtol=1e-3)),
    ):
        modes: tuple[Mode, ...] = ("checkpoint", "reversible")
        seconds = interleaved({gradient: partial(step, method, gradient) for gradient in modes}, rounds)
        over = ratio(seconds["reversible"], seconds["checkpoint"])
        name = f"ODE-Net's field, {name}: reversible over checkpoint"
        figures.append(Figure(name, over.median, at_most=2.1, spread=over.quartiles, details={"rounds": rounds}))
    (saved_8, _), (saved_16, peak_16), (saved_64, peak_64) = map(held, (1, 2, 8))
    details = {"saved_bytes": [saved_8, saved_16, saved_64], "peak_bytes": [peak_16, peak_64]}
    return [
        *figures,
        Figure("bytes held when backward starts, NFE 64 over 8: reversible", saved_64 / saved_8, at_most=1.0),
        # With one step nothing further is undone; a second pair of states is held from two steps on.
        Figure("peak of a step, NFE 64 over 16: reversible", peak_64 / peak_16, at_most=1.02, details=details),
    ]
