"""Training steps of a flow on two circles against torchdiffeq's own example of one (`peer_cnf.py`), batch 512.

A step draws a batch and runs forward, backward and Adam. Both sides draw from the same two circles, have an exact
trace, a standard normal base, and about as many parameters (ours: three layers of 88). Contestants take turns in one
process; ratios are medians over the turns. dopri5 has rtol = atol = 1e-5. Networks keep their random initial weights,
and so their initial NFE. That of the peer is about twice ours: its weights change with t from 10 to 0, while ours have
t from 1 to 0 as an input. The rows with 8 steps of rk4 compare equal NFE. The rows with one layer of 64 evaluate a
network as small as the peer's, whose parameters are nearly all in the network that makes its weights from t.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.compose import compose
from benchmarks.peer_cnf import END, PeerFlow
from benchmarks.table import Figure
from benchmarks.timing import interleaved, ratio
from neuralode_exp.build import build_task
from neuralode_exp.data.densities import make_density
from neuralode_exp.trainers.loop import Cadence, Loop
from neuralode_exp.trainers.task import seeded

DATASET, BATCH, STEPS = "two-circles", 512, 8
STANDSTILL = 1e-9  # a learning rate that changes nothing: NFE depends on the weights, which must not change
SIZED, ONE_LAYER = "model.width=88", ("model.width=64", "model.depth=1")
TOLERANCE = 1e-5  # of both sides, relative and absolute
DOPRI5 = ("solver=dopri5", f"solver.rtol={TOLERANCE}", f"solver.atol={TOLERANCE}")
RK4 = ("solver=rk4", f"solver.step_size={1 / STEPS}")
CHECKPOINT, ADJOINT = ("model=odenet", "model.gradient=checkpoint"), ("model=odenet", "model.gradient=adjoint")
OURS = {
    "checkpoint": (*CHECKPOINT, *DOPRI5, SIZED),
    "adjoint": (*ADJOINT, *DOPRI5, SIZED),
    "rknet": ("model=rknet", *DOPRI5, SIZED),
    "checkpoint, one layer": (*CHECKPOINT, *DOPRI5, *ONE_LAYER),
    "checkpoint, rk4": (*CHECKPOINT, *RK4, SIZED),
    "adjoint, rk4": (*ADJOINT, *RK4, SIZED),
    "rknet, rk4": ("model=rknet", *RK4, SIZED),
    "checkpoint, rk4, one layer": (*CHECKPOINT, *RK4, *ONE_LAYER),
}
PEER_DOPRI5 = {"method": "dopri5", "rtol": TOLERANCE, "atol": TOLERANCE}
PEER_RK4 = {"method": "rk4", "options": {"step_size": END / STEPS}}
GOAL = 5.0
ROWS = [  # theirs, ours, least speed-up
    ("odeint_adjoint", "checkpoint", GOAL),
    ("odeint_adjoint", "adjoint", GOAL),
    ("odeint_adjoint", "rknet", GOAL),
    ("odeint", "rknet", None),
    ("odeint_adjoint", "checkpoint, one layer", None),
    ("odeint_adjoint, rk4", "checkpoint, rk4", None),
    ("odeint_adjoint, rk4", "adjoint, rk4", None),
    ("odeint, rk4", "rknet, rk4", None),
    ("odeint_adjoint, rk4", "checkpoint, rk4, one layer", None),
]


@dataclass
class Contestant:
    """A training step, and what its last call evaluated.

    Args:
        step: takes the number of the step.
        nfe: evaluations of the field in the last step, forward and backward.
        parameters: of the network.
    """

    step: Callable[[int], tuple[int, int]]
    parameters: int
    nfe: tuple[int, int] = (0, 0)
    steps: int = field(default=0, init=False)

    def __call__(self) -> None:
        self.steps += 1
        self.nfe = self.step(self.steps)


def measure(quick: bool) -> list[Figure]:
    contestants = {name: _ours(*words) for name, words in OURS.items()}
    for name, adjoint in (("odeint_adjoint", True), ("odeint", False)):
        contestants[name] = _theirs(adjoint, PEER_DOPRI5)
        contestants[f"{name}, rk4"] = _theirs(adjoint, PEER_RK4)
    times = interleaved(contestants, 2 if quick else 20)
    return [_figure(theirs, ours, goal, contestants, times) for theirs, ours, goal in ROWS]


def _figure(
    theirs: str, ours: str, goal: float | None, contestants: dict[str, Contestant], times: dict[str, list[float]]
) -> Figure:
    faster = ratio(times[theirs], times[ours])
    details = {}
    names = []
    for side, name in (("ours", ours), ("torchdiffeq", theirs)):
        ms, (forward, backward) = 1e3 * statistics.median(times[name]), contestants[name].nfe
        details[side] = {
            "ms_a_step": round(ms, 2),
            "ms_an_evaluation": round(ms / (forward + backward), 3),
            "nfe_forward": forward,
            "nfe_backward": backward,
            "parameters": contestants[name].parameters,
        }
        names.append(f"{name.replace(', rk4', '')} (NFE {forward} + {backward})")
    solver = f"rk4, {STEPS} steps" if "rk4" in ours else f"dopri5 {TOLERANCE:g}"
    name = f"{solver}: {names[0]}, times faster than {names[1]}"
    return Figure(name, faster.median, at_least=goal, spread=faster.quartiles, details=details)


def _ours(*words: str) -> Contestant:
    still = (f"trainer.lr={STANDSTILL}", "trainer.schedule=constant", f"trainer.batch_size={BATCH}")
    config = compose(f"dataset={DATASET}", "dataset.validation=1", "dataset.test=1", *still, *words)
    torch.manual_seed(0)
    task = build_task(config, torch.device("cpu"))
    folder = Path(tempfile.mkdtemp())
    loop = Loop(task, config.trainer, Cadence.of(task, config.trainer, None), None, folder)

    def step(i: int) -> tuple[int, int]:
        loop.step = i
        loop._train_step(measure_memory=False)
        return task.stats.nfe_forward, task.stats.nfe_backward

    return Contestant(step, sum(p.numel() for p in task.module.parameters()))


def _theirs(adjoint: bool, solver: dict[str, Any]) -> Contestant:
    torch.manual_seed(0)
    flow = PeerFlow(2, adjoint, **solver)
    optimizer = torch.optim.Adam(flow.parameters(), lr=STANDSTILL)
    target = make_density(DATASET)

    def step(i: int) -> tuple[int, int]:
        optimizer.zero_grad()
        flow.field.nfe = 0
        loss = -flow.log_prob(target.sample(BATCH, seeded(0, "batch", i), torch.float32)).mean()
        forward = flow.field.nfe
        loss.backward()
        optimizer.step()
        loss.item()  # as the example does, for its running mean
        return forward, flow.field.nfe - forward

    return Contestant(step, sum(p.numel() for p in flow.parameters()))
