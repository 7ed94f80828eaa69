"""On one CUDA device: memory against NFE, step times against torchdiffeq's MNIST example, and training on MNIST.

Memory is the most MiB of tensors alive at once in a training step of an ODE-Net (batch 128, rk4, 8 to 64 evaluations
forward), beyond those alive before it, as CUDA's allocator counts them. A timed step is forward, backward and SGD on
one batch that is already on the device, so that only networks and solvers are compared. Steps are plain, compiled
(`torch.compile` of the stem, the blocks and the field) and channels_last by turns, in float32 as torch computes it
(TF32 in convolutions) and under autocast to bfloat16. dopri5 has rtol = atol = 1e-3; weights stay at their initial
values. Then come flows, 1,024 networks of dynamics at once, and `experiment=mnist-table` with ten epochs, one seed
after the other until the minutes are used up.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.compose import ROOT
from benchmarks.peer_mnist import peer_model
from benchmarks.table import Figure
from benchmarks.timing import interleaved, ratio
from benchmarks.training import STANDSTILL, make_loop, step_of, turn
from neuralode_exp.models.classifier import ODEBlock
from neuralode_exp.models.images import ConvNet, image_model
from neuralode_exp.ode import Gradient, Method, make_method
from neuralode_exp.report.runs import find_runs
from neuralode_exp.tracking.memory import Peaks

DOPRI5, ONE_STEP = make_method("dopri5", rtol=1e-3, atol=1e-3), make_method("rk4", step_size=1.0)
# Name: the network, its method, its gradient, and whether it is compiled too.
NETWORKS: dict[str, tuple[str, Method | None, Gradient | None, bool]] = {
    "resnet": ("resnet", None, None, True),
    "rknet": ("rknet", DOPRI5, None, True),
    "odenet": ("odenet", DOPRI5, "adjoint", True),
    "odenet (checkpoint)": ("odenet", DOPRI5, "checkpoint", False),
    "odenet (checkpoint), one step of rk4": ("odenet", ONE_STEP, "checkpoint", True),
}
PEERS = ("resnet", "rknet", "odenet")
OTHERS = {
    "eight-gaussians, rknet": ("dataset=eight-gaussians", "model=rknet"),
    "eight-gaussians, odenet": ("dataset=eight-gaussians", "model=odenet"),
    "spiral, 1 network": (),
    "spiral, 1 network, solver.compile": ("solver.compile=true",),
    "spiral, 1,024 networks": ("trainer.replicas=1024",),
}
GRADIENTS: tuple[Gradient, ...] = ("backprop", "checkpoint", "adjoint", "reversible")
COMPILING = 0.4  # fraction of the minutes; what is not compiled by then stays uncompiled
SPARE = 1.15  # a seed starts only if this many times the duration of the last one is left


class Clock:
    """The minutes that the benchmark may use."""

    def __init__(self, minutes: float) -> None:
        self.began, self.seconds = time.monotonic(), 60 * minutes

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.began)

    def is_past(self, fraction: float) -> bool:
        return self.left < (1 - fraction) * self.seconds


def measure(quick: bool, device: str, data: Path, minutes: float) -> list[Figure]:
    clock, on = Clock(minutes), torch.device(device)
    return [
        *memory(on, quick),
        *step_times(on, quick, clock),
        *other_tasks(on, quick),
        *mnist_table(device, data, quick, clock),
    ]


def memory(device: torch.device, quick: bool) -> list[Figure]:
    """Measure the peak MiB of a training step for each gradient, with more and more steps of rk4."""
    batch, channels, counts = (2, 8, (8, 64)) if quick else (128, 64, (8, 16, 32, 64))
    figures = []
    for gradient in GRADIENTS:
        mib: dict[int, float] = {}
        for evaluations in counts:
            step_size = (8 if gradient == "reversible" else 4) / evaluations  # it solves for two states
            model = network("odenet", make_method("rk4", step_size=step_size), gradient, device, channels)
            step = training_step(model, *a_batch(batch, device))
            step()  # the optimiser's state, and libraries' own memory
            peaks = Peaks(device)
            with peaks.of_step():
                step()
            assert peaks.step_mib is not None
            mib[model.stats.nfe_forward] = peaks.step_mib
        name = f"{gradient}: peak of a training step, 64 evaluations over 8"
        flat = 1.05 if gradient in ("adjoint", "reversible") else None
        figures.append(Figure(name, mib[64] / mib[8], at_most=flat, details={"MiB by evaluations": mib}))
    return figures


def step_times(device: torch.device, quick: bool, clock: Clock) -> Iterator[Figure]:
    """Time each network in its forms and torchdiffeq's, by turns."""
    batch = a_batch(4 if quick else 128, device)
    rounds, steps = (2, 1) if quick else (8, 5)
    for name, (model, method, gradient, is_compiled) in NETWORKS.items():
        for precision in ("float32", "bf16"):
            bf16 = precision == "bf16"
            forms = {form: network(model, method, gradient, device) for form in ("plain", "channels_last")}
            forms["channels_last"].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if is_compiled and not clock.is_past(COMPILING):
                forms["compiled"] = compiled(network(model, method, gradient, device), quick)
            tasks = {form: training_step(module, *batch, bf16=bf16) for form, module in forms.items()}
            if not bf16 and name in PEERS:
                tasks["torchdiffeq"] = training_step(peer_model(name).to(device), *batch)
            turns = {form: turn(step, steps, device) for form, step in tasks.items()}
            yield from _of_forms(f"{name}, {precision}", interleaved(turns, rounds), steps)
            torch.compiler.reset()  # each network's own graphs, of which torch keeps only so many


def _of_forms(name: str, seconds: dict[str, list[float]], steps: int) -> Iterator[Figure]:
    ms = {form: 1e3 * statistics.median(times) / steps for form, times in seconds.items()}
    yield Figure(f"{name}: ms a step", ms["plain"], details={"ms a step": ms})
    for form in [form for form in seconds if form != "plain"]:
        found = ratio(seconds[form], seconds["plain"])
        at_least = 1.0 if form == "torchdiffeq" else None
        yield Figure(f"{name}: {form} over plain", found.median, at_least=at_least, spread=found.quartiles)


def network(
    name: str, method: Method | None, gradient: Gradient | None, device: torch.device, channels: int = 64
) -> ConvNet:
    torch.manual_seed(0)
    model = image_model(name, method=method, gradient=gradient, channels=channels)
    assert isinstance(model, ConvNet)
    return model.to(device)


def compiled(model: ConvNet, quick: bool) -> ConvNet:
    """Compile the parts of the network in place; with `quick` their graphs are traced but run uncompiled."""
    parts: list[nn.Module] = [model.stem, model.body.ode.field if isinstance(model.body, ODEBlock) else model.body]
    for part in parts:
        part.compile(backend="aot_eager" if quick else "inductor")
    return model


def a_batch(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 1, 28, 28, device=device), torch.randint(10, (n,), device=device)


def training_step(model: nn.Module, images: Tensor, labels: Tensor, *, bf16: bool = False) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=STANDSTILL, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def other_tasks(device: torch.device, quick: bool) -> Iterator[Figure]:
    """Time whole training steps of flows, and of one and many networks of dynamics."""
    rounds, steps = (1, 1) if quick else (5, 10)
    small = ("trainer.batch_size=32",) if quick else ()
    for name, words in OTHERS.items():
        if quick and "solver.compile=true" in words:  # compiling takes longer than all else
            continue
        few = ("trainer.replicas=4",) if quick and "1,024" in name else ()
        loop = make_loop((*words, *small, *few), device)
        seconds = interleaved({name: turn(step_of(loop), steps, device)}, rounds)[name]
        yield Figure(f"{name}: ms a step", 1e3 * statistics.median(seconds) / steps)


def mnist_table(device: str, data: Path, quick: bool, clock: Clock) -> list[Figure]:
    """Test errors after ten epochs, mean over the seeds that fit into the minutes; times are of cells side by side."""
    folder, seed, took = Path(tempfile.mkdtemp()), 0, 0.0
    short = ("trainer.epochs=null", "trainer.max_steps=2", "trainer.batch_size=8", "dataset.test=8") if quick else ()
    while (seed == 0 or clock.left > SPARE * took) and not (quick and seed):
        began = time.monotonic()
        words = ("-m", "experiment=mnist-table", f"seed={seed}", f"device={device}", f"dataset.root={data}")
        launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=6", f"hydra.sweep.dir={folder}")
        command = [sys.executable, str(ROOT / "train.py"), *words, *launcher, "threads=1", "figures=false", *short]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            process.wait(max(60.0, clock.left))
        except subprocess.TimeoutExpired:
            process.terminate()  # runs stop with a checkpoint, and finished ones count
            process.wait()
        seed, took = seed + 1, time.monotonic() - began
    rows: dict[str, list[dict[str, float]]] = {}
    for run in find_runs([folder]):
        if run.completed:
            values = {"error": run.metrics["error/test"], "seconds": run.metrics["seconds"]}
            rows.setdefault(str(run.settings["model"]), []).append(values)
    figures = []
    for row, runs in rows.items():
        errors = [run["error"] for run in runs]
        name = f"mnist-table, {row}: test error, %, seeds: {len(runs)}"
        figures.append(Figure(name, statistics.fmean(errors), details={"runs": runs}))
    return figures
