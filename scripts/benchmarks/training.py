"""Whole training steps on MNIST against torchdiffeq's own MNIST example, batch 128, and the further costs of a run.

A step takes a batch and runs forward, backward and the optimiser. The peer does the same work in plain torch and
torchdiffeq, as its example does (`peer_mnist.py`). Contestants take turns in one process, two steps a turn; ratios are
medians over the turns. dopri5 has rtol = atol = 1e-3. Networks keep their random initial weights, and so both sides
keep their initial NFE: 26 forward, and 26 (peer), 19 (checkpoint) or 32 (adjoint) backward. The error of the first step
that the rule chooses is 0.006 of the tolerance. solver.first_step=previous finds one with 0.3 of it within a few steps,
and dopri5 then needs 19 and 13 (checkpoint). MNIST is read from the folder of `--data`, and fetched if it is missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.compose import ROOT, compose
from benchmarks.peer_mnist import peer_batches, peer_model
from benchmarks.table import Figure
from benchmarks.timing import interleaved, ratio
from neuralode_exp import tags
from neuralode_exp.build import build_task
from neuralode_exp.tracking.progress import Lines
from neuralode_exp.tracking.recorder import Recorder
from neuralode_exp.tracking.summary import read_summary
from neuralode_exp.trainers.classification.task import Classification
from neuralode_exp.trainers.loop import Cadence, Loop

BATCH, STEPS_A_TURN = 128, 2
CPU = torch.device("cpu")
STANDSTILL = (
    1e-9  # a learning rate that changes nothing: NFE depends on the weights, and both sides must solve the same problem
)
OURS = {
    "resnet": ("model=resnet",),
    "odenet checkpoint": ("model=odenet", "model.gradient=checkpoint", "solver=dopri5"),
    "odenet first step": ("model=odenet", "model.gradient=checkpoint", "solver=dopri5", "solver.first_step=previous"),
    "odenet adjoint": ("model=odenet", "model.gradient=adjoint", "solver=dopri5"),
    "rknet": ("model=rknet", "solver=dopri5"),
    "odenet rk4": ("model=odenet", "model.gradient=checkpoint", "solver=rk4", "solver.step_size=1"),
}
GOALS = [  # name, slower, faster, least and largest ratio
    ("resnet: peer's time over ours", "peer resnet", "resnet", 1.0, None),
    ("odenet dopri5, checkpoint: peer's adjoint over ours", "peer odenet", "odenet checkpoint", 2.0, None),
    ("odenet dopri5, adjoint: peer's adjoint over ours", "peer odenet", "odenet adjoint", 1.6, None),
    ("rknet dopri5: peer's backprop over ours", "peer rknet", "rknet", 1.4, None),
    ("odenet rk4 one step, checkpoint, over our resnet", "odenet rk4", "resnet", None, 1.05),
    ("odenet dopri5, checkpoint, over our resnet", "odenet checkpoint", "resnet", None, 2.6),
    ("odenet dopri5 with first_step=previous, checkpoint, over our resnet", "odenet first step", "resnet", None, 2.2),
]


def measure(quick: bool, data: Path) -> list[Figure]:
    on_mnist = ("dataset=mnist", f"dataset.root={data}")
    loops = {name: make_loop((*on_mnist, *words)) for name, words in OURS.items()}
    task = loops["resnet"].task
    assert isinstance(task, Classification)
    steps = {name: step_of(loop) for name, loop in loops.items()}
    steps |= {f"peer {name}": _peer_step(name, task) for name in ("resnet", "odenet", "rknet")}
    times = interleaved(
        {name: turn(step, 1 if quick else STEPS_A_TURN) for name, step in steps.items()}, 2 if quick else 6
    )
    figures = []
    for name, slower, faster, at_least, at_most in GOALS:
        found = ratio(times[slower], times[faster])
        ms = {who: 1e3 * min(times[who]) / (1 if quick else STEPS_A_TURN) for who in (slower, faster)}
        figures.append(Figure(name, found.median, at_least, at_most, found.quartiles, {"ms a step": ms}))
    rk4 = (*on_mnist, *OURS["odenet rk4"])
    figures.append(_tracking(make_loop(rk4), make_loop(rk4), 5 if quick else 10, 1 if quick else 9))
    return figures + _default_run(quick)


def make_loop(words: Sequence[str], device: torch.device = CPU) -> Loop:
    """Return the loop of a run whose weights keep their initial values."""
    config = compose(*words, f"trainer.lr={STANDSTILL}", "trainer.schedule=constant")
    torch.manual_seed(0)
    task = build_task(config, device)
    folder = Path(tempfile.mkdtemp())
    return Loop(task, config.trainer, Cadence.of(task, config.trainer, None), None, folder)


def step_of(loop: Loop) -> Callable[[], None]:
    def step() -> None:
        loop.step += 1
        loop._train_step(measure_memory=False)

    return step


def _peer_step(name: str, data: Classification) -> Callable[[], None]:
    torch.manual_seed(0)
    model = peer_model(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=STANDSTILL, momentum=0.9)
    batches = peer_batches(data.data.train.images, data.data.train.labels, BATCH)

    def step() -> None:
        images, labels = next(batches)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def turn(step: Callable[[], None], n: int, device: torch.device = CPU) -> Callable[[], None]:
    """Run n steps and wait until the device has finished them."""

    def steps() -> None:
        for _ in range(n):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return steps


def _tracking(bare: Loop, tracked: Loop, steps: int, rounds: int) -> Figure:
    """Compare steps with all the logging of a run with the same steps without it."""
    recorder, progress = Recorder(Path(tempfile.mkdtemp())), Lines(None, 0)

    def tracked_step() -> None:
        step_of(tracked)()
        if tracked._due(tracked.cadence.log):
            tracked._record(recorder, tracked._training_metrics())
        progress.update(tracked.step, tags.on_bar(tracked.metrics))

    turns = {"bare": turn(step_of(bare), steps), "tracked": turn(tracked_step, steps)}
    times = interleaved(turns, rounds)
    found = ratio(times["tracked"], times["bare"])
    return Figure("tracking: everything logged over the bare loop", found.median, None, 1.03, found.quartiles)


def _default_run(quick: bool) -> list[Figure]:
    """Run `python train.py` as a user starts it: seconds to the first training step, seconds in all, and its result."""
    folder = Path(tempfile.mkdtemp()) / "run"
    words = ["trainer.checkpoint_every=1", "trainer.max_steps=1"]
    starts = []
    for i in range(1 if quick else 3):
        first = folder.with_name(f"first{i}")
        began = time.time()
        _train(f"hydra.run.dir={first}", *words)
        # The first checkpoint follows the first step; last.pt is written again at the end, best.pt is not.
        starts.append((first / "checkpoints" / "best.pt").stat().st_mtime - began)
    began = time.time()
    _train(f"hydra.run.dir={folder}", *(["trainer.max_steps=20"] if quick else []))
    seconds = time.time() - began
    summary = read_summary(folder)
    assert summary is not None
    error = 100 * summary["metrics"]["dynamics/eigenvalue_error"]
    return [
        Figure("python train.py: seconds from start to first step, evaluation and checkpoint", min(starts), None, 5.0),
        Figure("python train.py: seconds, whole process", seconds, None, 60.0),
        Figure("python train.py: eigenvalue error, %", error, None, 2.0),
    ]


def _train(*words: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, str(ROOT / "train.py"), *words]
    subprocess.run(command, check=True, env=environment, capture_output=True)
