"""Recompute what a run records by other means than the package's own, and compare.

    python scripts/recompute.py dynamics density
    python scripts/recompute.py images dataset.root=data trainer.max_steps=100

One short run of each named task is trained, with a counter inside its field and a clock around its steps. Evaluations
are counted. Memory comes from the allocator and from a walk through autograd's graph. Errors come from NumPy, SciPy's
solver, plain loops and quadrature. Exit status: 0 all agree, 1 some do not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from benchmarks.compose import compose
from torch import nn

from neuralode_exp.config import Config
from neuralode_exp.run import run
from neuralode_exp.tracking.summary import read_summary
from neuralode_exp.trainers.loop import Loop

COMMON = ("model=odenet", "solver=rk4", "threads=1", "figures=false", "trainer.evaluate_every=10", "log_every=5")
RUNS = {
    "dynamics": ("dataset=circle", "trainer.max_steps=60", "dataset.trajectories=16", "dataset.points=21"),
    "density": ("dataset=eight-gaussians", "trainer.max_steps=20", "trainer.batch_size=64", "dataset.test=200"),
    "images": ("dataset=mnist", "trainer.max_steps=10", "trainer.batch_size=32", "model.channels=16"),
}


@dataclass(frozen=True)
class Check:
    """A tag: the value that the run recorded, the recomputed value, and how far apart they may be."""

    tag: str
    recorded: float
    found: float
    relative: float
    absolute: float = 0.0

    @property
    def agrees(self) -> bool:
        return abs(self.recorded - self.found) <= self.absolute + self.relative * abs(self.found)


@dataclass
class Watch:
    """Counts and times of a training, from a counter in the field and a clock.

    Attributes:
        loop: the loop, as it ended.
        forward, backward: evaluations of each step.
        seconds: of each step that was not measured; the first is the process's first.
        losses: of each step.
    """

    loop: Loop | None = None
    forward: list[int] = field(default_factory=list)
    backward: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def field_of(model: nn.Module) -> nn.Module:
    """Return the vector field of a model by its name."""
    return next(part for name, part in model.named_modules() if name.split(".")[-1] == "field")


@contextmanager
def watched() -> Iterator[Watch]:
    """Count and time the steps of the run that is trained in this context."""
    watch, calls = Watch(), 0
    patched: list[tuple[type, str, Any]] = [(Loop, "_train_step", Loop._train_step)]
    train_step = Loop._train_step

    def count(f: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            return f(*arguments)

        return counted

    def start(loop: Loop) -> None:
        watch.loop = loop
        kind, loss = type(field_of(loop.task.model)), loop.task.loss
        name = next(name for name in ("prepare", "with_trace", "forward") if hasattr(kind, name))
        original = getattr(kind, name)

        def prepare(self: nn.Module, n: int) -> Any:  # images: f is made once for each solve
            f, *others = original(self, n)
            return count(f), *others

        patched.append((kind, name, original))
        setattr(kind, name, prepare if name == "prepare" else count(original))

        def watched_loss(step: int) -> torch.Tensor:
            before = calls
            found = loss(step)
            watch.forward.append(calls - before)
            watch.losses.append(float(found.detach().mean()))
            return found

        loop.task.loss = watched_loss  # type: ignore[method-assign]

    def step(loop: Loop, *, measure_memory: bool) -> None:
        if watch.loop is None:
            start(loop)
        before, began = calls, time.perf_counter()
        train_step(loop, measure_memory=measure_memory)
        if not measure_memory:
            watch.seconds.append(time.perf_counter() - began)
        watch.backward.append(calls - before - watch.forward[-1])

    setattr(Loop, "_train_step", step)  # noqa: B010 - mypy knows its type
    try:
        yield watch
    finally:
        for kind, name, original in patched:
            setattr(kind, name, original)


def check(config: Config, folder: Path) -> list[Check]:
    """Train a run in a folder and recompute the values that it recorded."""
    from recomputed import costs, density, dynamics, images

    values = config.model_dump(mode="json")
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(values))
    with watched() as watch:
        run(config, folder, values, bar=False)
    summary = read_summary(folder)
    assert summary is not None
    assert watch.loop is not None
    metrics = summary["metrics"]
    tail = max(1, len(watch.forward) // 10)
    checks = [
        Check("nfe/forward", metrics["nfe/forward"], statistics.fmean(watch.forward[-tail:]), 0.0),
        Check("nfe/backward", metrics["nfe/backward"], statistics.fmean(watch.backward[-tail:]), 0.0),
        Check("loss/train", metrics["loss/train"], statistics.fmean(watch.losses[-5:]), 1e-5),
        Check("time/step_ms", metrics["time/step_ms"], 1e3 * statistics.median(watch.seconds[1:]), 0.05, 0.1),
        *(Check(*row) for row in costs.recompute(watch.loop, config, metrics)),
    ]
    of_task = {"dynamics": dynamics, "densities": density, "images": images}[config.dataset.kind]
    return [*checks, *(Check(*row) for row in of_task.recompute(watch.loop.task, config, metrics))]


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="TASK | KEY=VALUE", help=f"tasks: {', '.join(RUNS)}")
    args = parser.parse_args(argv)
    tasks = [word for word in args.words if "=" not in word]
    if unknown := set(tasks) - set(RUNS):
        parser.error(f"TASK must be one of {', '.join(RUNS)}, got {', '.join(sorted(unknown))}")
    agree = True
    for task in tasks:
        config = compose(*RUNS[task], *COMMON, *(word for word in args.words if "=" in word))
        with tempfile.TemporaryDirectory() as folder:
            checks = check(config, Path(folder) / "run")
        print(f"{task:<32}  {'recorded':>12}  {'recomputed':>12}  bound")
        for one in checks:
            bound = f"{one.relative:.0e} relative" + (f" + {one.absolute:g}" if one.absolute else "")
            print(f"  {one.tag:<30}  {one.recorded:>12.6g}  {one.found:>12.6g}  {bound}  {'' if one.agrees else 'NO'}")
        agree &= all(one.agrees for one in checks)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
