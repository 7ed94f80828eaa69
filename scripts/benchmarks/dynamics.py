"""Hidden dynamics: `python train.py` to 1 % field error against two peers, and what a stack of 64 replicas costs.

Each contestant is a process of its own. It is timed from its start, with imports and compilation, to its first
evaluation with a field error of at most 1 %; all evaluate equally often. They take turns; ratios are medians over the
rounds. `peer_diffrax.py` trains the same loss in JAX. `peer_ode_demo.py` is the recipe of torchdiffeq's demo, stopped
after 75 s; if that is not enough, its ratio is an upper bound, and the name of the row says so. Both read the data from
a file that was written before, and each round has its own seed. torch uses one thread, as a run with small networks
does; XLA uses all cores. JAX and diffrax come with `pip install -e ".[bench]"`, or from the interpreter that the
variable JAX_PYTHON names. The times of replicas are those of training steps within one process, with the threads that
such a run chooses.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.compose import ROOT, compose
from benchmarks.race import Contestant, Finish, race
from benchmarks.table import Figure
from benchmarks.timing import interleaved, ratio
from neuralode_exp.build import build_task
from neuralode_exp.config import Config
from neuralode_exp.data.dynamics import make_dynamics
from neuralode_exp.run import default_threads, keep_freed_memory
from neuralode_exp.trainers.dynamics.shooting import MultipleShooting
from neuralode_exp.trainers.dynamics.task import LearnDynamics
from neuralode_exp.trainers.loop import Cadence, Loop

HERE = Path(__file__).parent
TARGET, LIMIT, ROUNDS = 0.01, 75.0, 3
# With --quick: a tenth of the training, to an error that all but the demo reach.
QUICK_WORDS, QUICK_TARGET, QUICK_LIMIT = ("trainer.max_steps=100", "trainer.evaluate_every=20"), 0.3, 8.0
OURS = "python train.py"
PEERS = {"diffrax": 0.5, "torchdiffeq's demo": 0.2}  # goals of our time over theirs
JAX_LIBRARIES = ("jax", "diffrax", "equinox", "optax")
REPLICAS, REPLICAS_GOAL = 64, 3.0


def measure(quick: bool) -> list[Figure]:
    words, target, limit = (QUICK_WORDS, QUICK_TARGET, QUICK_LIMIT) if quick else ((), TARGET, LIMIT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        problem = folder / "problem.npz"
        write_problem(problem, compose(*words))
        entered = contestants(problem, words, limit, os.environ.get("JAX_PYTHON", sys.executable))
        finishes = race(entered, folder, target, 1 if quick else ROUNDS)
    return [
        *to_target(finishes, target),
        replicas(steps=2 if quick else 10, rounds=2 if quick else 20),
    ]


def write_problem(path: Path, config: Config) -> None:
    """Write a file with what the peers need: data, loss, schedule, solver and the truth for their field error."""
    torch.manual_seed(config.seed)
    task = build_task(config, torch.device("cpu"))
    assert isinstance(task, LearnDynamics)
    assert task.truth is not None
    assert isinstance(task.shooting, MultipleShooting)
    shooting, field, trainer, solver = task.shooting, task.flow.field, config.trainer, config.solver
    assert (trainer.optimizer, trainer.schedule, trainer.weight_decay) == ("adam", "one-cycle", 0.0)
    tensors = {name: getattr(shooting, name) for name in ("z", "sigma", "start", "end", "duration")}
    tensors |= {"centre": field.centre, "scale": field.scale, "rate": field.rate, "chances": shooting._chances}
    tensors |= {"states": task.truth.states, "field": task.truth.field}
    data = make_dynamics(config.dataset.name, **config.dataset.arguments())
    tensors |= {"t": data.t, "observed": data.train.noisy}
    numbers = {
        "width": config.model.width,
        "depth": config.model.depth or 2,
        "batch_size": trainer.batch_size,
        "steps": Cadence.of(task, trainer, None).total,
        "evaluate_every": Cadence.of(task, trainer, None).evaluate,
        "lr": trainer.lr,
        "rise": trainer.rise,
        "clip": trainer.clip,
        "rtol": solver.rtol,
        "atol": solver.atol or solver.rtol,
        "first_step": solver.first_step,
    }
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    arrays |= {name: np.asarray(number) for name, number in numbers.items() if number is not None}
    np.savez(path, allow_pickle=False, **arrays)


def contestants(problem: Path, words: Sequence[str], limit: float, jax_python: str) -> dict[str, Contestant]:
    """By name; a peer whose libraries are missing is left out, with a line that says so."""
    train = [sys.executable, str(ROOT / "train.py"), "hydra.run.dir={folder}", "seed={round}", *words]
    arguments = [str(problem), "{folder}/metrics.csv", "{round}"]
    demo = [sys.executable, "-P", str(HERE / "peer_ode_demo.py"), *arguments]
    jax = [jax_python, "-P", str(HERE / "peer_diffrax.py"), *arguments]
    found = {OURS: Contestant(train), "diffrax": Contestant(jax), "torchdiffeq's demo": Contestant(demo, limit)}
    if missing := missing_libraries(jax_python):
        print(f'diffrax: not measured, {jax_python} lacks {", ".join(missing)}; pip install -e ".[bench]"')
        del found["diffrax"]
    return found


def missing_libraries(python: str) -> list[str]:
    """Return those of JAX_LIBRARIES that an interpreter does not find."""
    look = "import importlib.util, sys; print(*(n for n in sys.argv[1:] if importlib.util.find_spec(n) is None))"
    found = subprocess.run([python, "-c", look, *JAX_LIBRARIES], check=True, capture_output=True, text=True)
    return found.stdout.split()


def versions(python: str) -> dict[str, str]:
    """Return the versions of the libraries of the diffrax peer."""
    look = "import importlib.metadata as m, sys; print(*(m.version(n) for n in sys.argv[1:]))"
    found = subprocess.run([python, "-c", look, *JAX_LIBRARIES], check=True, capture_output=True, text=True)
    return dict(zip(JAX_LIBRARIES, found.stdout.split(), strict=True))


def to_target(finishes: Mapping[str, Sequence[Finish]], target: float) -> list[Figure]:
    """Measure our seconds, and their ratio to each peer's."""
    unreached = [finish for finish in finishes[OURS] if not finish.reached]
    if unreached:
        raise RuntimeError(f"{OURS} ended at a field error of {unreached[0].error:.3g}, the target is {target}")
    goal = f"{OURS} to {100 * target:g} % field error"
    seconds = [finish.seconds for finish in finishes[OURS]]
    details = {"seconds": seconds, "steps": [finish.step for finish in finishes[OURS]]}
    figures = [Figure(f"{goal}, whole process: s", statistics.median(seconds), details=details)]
    for peer, at_most in PEERS.items():
        if peer not in finishes:
            continue
        theirs = finishes[peer]
        found = ratio(seconds, [finish.seconds for finish in theirs])
        name = f"{goal}: our time over {peer}"
        if not all(finish.reached for finish in theirs):
            best = min(finish.error for finish in theirs)
            stopped = max(finish.seconds for finish in theirs if not finish.reached)
            name += f", at most (stopped after {stopped:.0f} s at {100 * best:.3g} %)"
        details = {
            "seconds": [finish.seconds for finish in theirs],
            "steps": [finish.step for finish in theirs],
            "field_errors": [finish.error for finish in theirs],
        }
        if peer == "diffrax":
            details["versions"] = versions(os.environ.get("JAX_PYTHON", sys.executable))
        figures.append(Figure(name, found.median, at_most=at_most, spread=found.quartiles, details=details))
    return figures


def replicas(steps: int, rounds: int) -> Figure:
    """A training step of many replicas over one of a single network, both as they come from the default config."""
    keep_freed_memory()  # as a run does
    available = torch.get_num_threads()
    turns: dict[str, Callable[[], None]] = {}
    details = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in (1, REPLICAS):
            config = compose(f"trainer.replicas={n}")
            threads = default_threads(config, available)
            turns[str(n)] = turn(config, Path(folder), threads, steps)
            details[f"threads_{n}"] = float(threads)
        seconds = interleaved(turns, rounds)
    torch.set_num_threads(available)
    ms = {name: 1e3 * statistics.median(times) / steps for name, times in seconds.items()}
    print("ms a training step: " + ", ".join(f"{name} replicas {value:.3g}" for name, value in ms.items()))
    details |= {f"step_ms_{name}": value for name, value in ms.items()}
    found = ratio(seconds[str(REPLICAS)], seconds["1"])
    name = f"{REPLICAS} replicas: time of a training step over that of one"
    return Figure(name, found.median, at_most=REPLICAS_GOAL, spread=found.quartiles, details=details)


def turn(config: Config, folder: Path, threads: int, steps: int) -> Callable[[], None]:
    """Run some training steps with this number of threads, going on where the last turn ended."""
    torch.manual_seed(config.seed)
    task = build_task(config, torch.device("cpu"))
    loop = Loop(task, config.trainer, Cadence.of(task, config.trainer, None), None, folder)

    def run() -> None:
        torch.set_num_threads(threads)
        for _ in range(steps):
            loop.step += 1
            loop._train_step(measure_memory=False)

    return run
