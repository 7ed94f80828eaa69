"""What `solver.compile=true` gains, on one core. Contestants take turns and were compiled before the timing.

- 256 van der Pol oscillators and Lorenz's equations as in the table `core`, forward without a graph; against diffrax
  (the extra `[bench]`) with one step size for all oscillators, as here, and with one for each (`vmap`).
- Training steps, each relative to the same step without the key: that of a flow of the table `density`, whose
  uncompiled trace is the one written by hand, and that of the default run, alone and with 64 replicas.
- Forward and backward of d^2z/dt^2 of a flow's field, relative to those of the field itself.
- The first and the second start of a run of two steps: how much longer they take than one without the key.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import density, small_states
from benchmarks.compose import ROOT, compose
from benchmarks.density import Contestant
from benchmarks.table import Figure
from benchmarks.timing import interleaved, ratio
from neuralode_exp.models.fields.flow import FlowField
from neuralode_exp.ode import make_method, solve
from neuralode_exp.ode.compiled import inductor

Tasks = dict[str, Callable[[], object]]


def measure(quick: bool) -> list[Figure]:
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, also for XLA
    rounds = 3 if quick else 15
    print("load of the machine: {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()))
    with torch.no_grad():
        figures = [*oscillators(rounds), lorenz(rounds)]
    figures += [*flows(2 if quick else 6), *dynamics(3 if quick else 10), *taylor(rounds), *starts()]
    print("load of the machine: {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()))
    return figures


def figure(title: str, slow: str, fast: str, seconds: dict[str, list[float]], goal: float | None) -> Figure:
    """Times that `fast` is as fast as `slow`."""
    faster = ratio(seconds[slow], seconds[fast])
    details = {f"{name} ms": round(1e3 * statistics.median(times), 3) for name, times in seconds.items()}
    details["load"] = round(os.getloadavg()[0], 1)
    print(f"{title}: " + ", ".join(f"{name} {value:.4g}" for name, value in details.items()))
    return Figure(title, faster.median, at_least=goal, spread=faster.quartiles, details=details)


def ours(z0: Tensor, t: Tensor, f: small_states.VectorField, tolerance: float, compile: bool) -> None:
    solve(f, z0, t, make_method("dopri5", rtol=tolerance, compile=compile))


def oscillators(rounds: int) -> list[Figure]:
    z0 = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.0, 10.0, 200)
    tasks: Tasks = {
        "eager": partial(ours, z0, t, small_states.van_der_pol, 1e-5, False),
        "compiled": partial(ours, z0, t, small_states.van_der_pol, 1e-5, True),
    }
    tasks |= in_diffrax(z0, t, 1e-5)
    seconds = interleaved(tasks, rounds)
    name = "256 oscillators, dopri5 1e-5"
    figures = [figure(f"{name}: times faster than uncompiled", "eager", "compiled", seconds, 4.0)]
    for peer in list(tasks)[2:]:
        over = ratio(seconds["compiled"], seconds[peer])
        goal = 1.5 if peer == "diffrax, vmap" else None
        figures.append(Figure(f"{name}: time over {peer}'s", over.median, at_most=goal, spread=over.quartiles))
    return figures


def in_diffrax(z0: Tensor, t: Tensor, tolerance: float) -> Tasks:
    """The same in diffrax; nothing where it is not installed."""
    try:
        import diffrax
        import jax
        import jax.numpy as jnp
    except ImportError:
        print("diffrax is not installed: pip install -e '.[bench]'")
        return {}

    def f(t: object, z: jax.Array, _: object) -> jax.Array:
        x, v = z[..., 0], z[..., 1]
        return jnp.stack((v, 2.0 * (1.0 - x * x) * v - x), -1)

    states, times = jnp.asarray(z0.numpy()), jnp.asarray(t.numpy())

    def run(z0: jax.Array) -> jax.Array:
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
        saved, term = diffrax.SaveAt(ts=times), diffrax.ODETerm(f)
        return diffrax.diffeqsolve(
            term, diffrax.Dopri5(), times[0], times[-1], None, z0, saveat=saved, stepsize_controller=controller
        ).ys

    shared, alone = jax.jit(run), jax.jit(jax.vmap(run))
    return {
        "diffrax, shared step": lambda: shared(states).block_until_ready(),
        "diffrax, vmap": lambda: alone(states).block_until_ready(),
    }


def lorenz(rounds: int) -> Figure:
    z0, t = torch.ones(3, dtype=torch.float64), torch.tensor([0.0, 5.0], dtype=torch.float64)
    tasks: Tasks = {
        "compiled": partial(ours, z0, t, small_states.lorenz, 1e-8, True),
        "eager": partial(ours, z0, t, small_states.lorenz, 1e-8, False),
        "torchdiffeq": partial(small_states.theirs, small_states.lorenz, z0, t, 1e-8),
    }
    seconds = interleaved(tasks, rounds)
    return figure("Lorenz, dopri5 1e-8: times faster than torchdiffeq", "torchdiffeq", "compiled", seconds, 6.0)


def flows(rounds: int) -> list[Figure]:
    figures = []
    for way, words in (("checkpoint", density.CHECKPOINT), ("backprop", ("model=rknet",))):
        pair = {
            name: density._ours(*words, *density.DOPRI5, density.SIZED, f"solver.compile={name == 'compiled'}")
            for name in ("eager", "compiled")
        }
        seconds = interleaved(pair, rounds)
        title = f"a flow's training step, {way} (NFE {pair['eager'].nfe}): times faster"
        figures.append(figure(title, "eager", "compiled", seconds, 1.3))
        assert pair["eager"].nfe == pair["compiled"].nfe
    return figures


def dynamics(rounds: int) -> list[Figure]:
    figures = []
    for replicas in (1, 64):
        pair = {
            name: training(f"trainer.replicas={replicas}", f"solver.compile={name == 'compiled'}")
            for name in ("eager", "compiled")
        }
        seconds = interleaved(pair, rounds)
        title = f"the default run's training step, replicas {replicas}: times faster"
        figures.append(figure(title, "eager", "compiled", seconds, None))
    return figures


def training(*words: str) -> Contestant:
    from neuralode_exp.build import build_task
    from neuralode_exp.trainers.loop import Cadence, Loop

    config = compose("model=rknet", f"trainer.lr={density.STANDSTILL}", "trainer.schedule=constant", *words)
    torch.manual_seed(0)
    task = build_task(config, torch.device("cpu"))
    loop = Loop(task, config.trainer, Cadence.of(task, config.trainer, None), None, Path(tempfile.mkdtemp()))

    def step(i: int) -> tuple[int, int]:
        loop.step = i
        loop._train_step(measure_memory=False)
        return task.stats.nfe_forward, task.stats.nfe_backward

    return Contestant(step, 0)


def taylor(rounds: int) -> list[Figure]:
    """d^2z/dt^2 = df/dt + df/dz f by one forward derivative along (1, f)."""
    torch.manual_seed(0)
    field, z, t = FlowField(2, 88, 3), torch.randn(512, 2), torch.tensor(0.3)

    def second(t: Tensor, z: Tensor) -> Tensor:
        dz, s = field(t, z), torch.zeros_like(t)
        return torch.func.jvp(lambda s: field(t + s, z + s * dz), (s,), (torch.ones_like(s),))[1]

    def forward_and_backward(f: Callable[[Tensor, Tensor], Tensor]) -> None:
        f(t, z.requires_grad_()).square().sum().backward()

    programs = {
        "plain": field.forward,
        "second derivative": second,
        "plain, compiled": torch.compile(lambda t, z: field(t, z), fullgraph=True, dynamic=False, backend=inductor),
        "second derivative, compiled": torch.compile(second, fullgraph=True, dynamic=False, backend=inductor),
    }
    seconds = interleaved({name: partial(forward_and_backward, f) for name, f in programs.items()}, rounds)
    details = {f"{name} ms": round(1e3 * statistics.median(times), 3) for name, times in seconds.items()}
    figures = []
    for kind, goal in (("", None), (", compiled", 4.0)):
        over = ratio(seconds[f"second derivative{kind}"], seconds[f"plain{kind}"])
        title = f"d^2z/dt^2 of a flow's field, forward and backward{kind}: time over the field's"
        figures.append(Figure(title, over.median, at_most=goal, spread=over.quartiles, details=details))
    return figures


def starts() -> list[Figure]:
    """Seconds of a whole run of two steps beyond one that makes no programs: without a cache on disk, and with it."""
    seconds = {}
    with tempfile.TemporaryDirectory() as cache:
        for name, compile in (("uncompiled", False), ("first start", True), ("second start", True)):
            words = [
                *density.CHECKPOINT,
                *density.DOPRI5,
                "dataset=two-circles",
                "trainer.max_steps=2",
                "figures=false",
            ]
            words += [f"solver.compile={compile}", f"hydra.run.dir={tempfile.mkdtemp()}/run", "threads=1"]
            began = time.perf_counter()
            environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)}
            subprocess.run(
                [sys.executable, "train.py", *words], cwd=ROOT, env=environment, check=True, capture_output=True
            )
            seconds[name] = time.perf_counter() - began
    details = {f"{name} s": round(value, 1) for name, value in seconds.items()} | {"load": os.getloadavg()[0]}
    print(f"starts: {details}")
    return [
        Figure(
            f"a flow's {name}: seconds beyond an uncompiled one",
            seconds[name] - seconds["uncompiled"],
            at_most=goal,
            details=details,
        )
        for name, goal in (("first start", None), ("second start", 5.0))
    ]
