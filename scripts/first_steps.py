"""Train each kind of task and model for 20 steps, and compare the losses with those of other code.

    python scripts/first_steps.py before.json
    python scripts/first_steps.py after.json --against before.json
    python scripts/first_steps.py after.json --against before.json --only dynamics

If code was only moved, every largest relative difference is 0: the losses are equal bit for bit. The runs use one
thread of the CPU, and the small sample of images of the tests. With --against the exit status is 1 if a difference
exceeds --rtol.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from opening import ROOT, largest_difference, opening

COMMON = ("seed=1",)
IMAGES = (
    "dataset=mnist",
    f"dataset.root={ROOT / 'tests' / 'assets' / 'mnist-sample'}",
    "dataset.validation=64",
    "dataset.test=32",
    "trainer.batch_size=32",
    "model.channels=8",
)
DYNAMICS = ("dataset=two-foci", "dataset.trajectories=8", "dataset.points=30", "model.width=16")
DENSITIES = ("dataset=two-moons", "dataset.validation=100", "dataset.test=100", "trainer.batch_size=64")
CASES: dict[str, tuple[str, ...]] = {
    "images, mlp": (*IMAGES, "model=mlp"),
    "images, stem": (*IMAGES, "model=stem"),
    "images, resnet": (*IMAGES, "model=resnet", "model.blocks=2"),
    "images, rknet": (*IMAGES, "model=rknet"),
    "images, odenet": (*IMAGES, "model=odenet"),
    "images, odenet (checkpoint)": (*IMAGES, "model=odenet", "model.gradient=checkpoint"),
    "images, odenet (checkpoint), rk4": (*IMAGES, "model=odenet", "model.gradient=checkpoint", "solver=rk4"),
    "dynamics, resnet": (*DYNAMICS, "model=resnet"),
    "dynamics, rknet": (*DYNAMICS, "model=rknet"),
    "dynamics, odenet": (*DYNAMICS, "model=odenet"),
    "dynamics, odenet (checkpoint)": (*DYNAMICS, "model=odenet", "model.gradient=checkpoint"),
    "dynamics, odenet, linear": (*DYNAMICS, "model=odenet", "model.field=linear"),
    "dynamics, rknet, rk4": (*DYNAMICS, "model=rknet", "solver=rk4"),
    "dynamics, odenet, rk4": (*DYNAMICS, "model=odenet", "solver=rk4"),
    "dynamics, rknet, 3 replicas": (*DYNAMICS, "model=rknet", "solver=rk4", "trainer.replicas=3"),
    "dynamics, odenet, 3 replicas": (*DYNAMICS, "model=odenet", "trainer.replicas=3"),
    "dynamics, rknet, single shooting": (*DYNAMICS, "model=rknet", "trainer.shooting=single"),
    "dynamics, odenet, tsit5": (*DYNAMICS, "model=odenet", "solver=tsit5"),
    "dynamics, odenet, dopri8": (*DYNAMICS, "model=odenet", "solver=dopri8"),
    "dynamics, odenet, torchdiffeq": (*DYNAMICS, "model=odenet", "solver.engine=torchdiffeq"),
    "densities, planar": (*DENSITIES, "model=planar"),
    "densities, rknet": (*DENSITIES, "model=rknet", "model.width=16"),
    "densities, odenet": (*DENSITIES, "model=odenet", "model.width=16"),
    "densities, odenet (checkpoint)": (*DENSITIES, "model=odenet", "model.gradient=checkpoint", "model.width=16"),
    "densities, odenet, hutchinson": (*DENSITIES, "model=odenet", "model.trace=hutchinson", "model.width=16"),
}


def first_losses(words: tuple[str, ...], steps: int) -> list[float]:
    """Return the training loss of each of the first `steps` steps of the run that the words ask for."""
    from benchmarks.compose import compose  # imported here, so that --help need not wait for torch

    losses: list[float] = opening(compose(*COMMON, *words).model_dump(mode="json"), steps)["losses"]
    return losses


def compare(now: Mapping[str, list[float]], before: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the largest relative difference of each case of `now`; infinity where `before` lacks it."""
    return {name: largest_difference(losses, before.get(name, [])) for name, losses in now.items()}


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    description, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="FILE", help="JSON file to write the losses to")
    parser.add_argument("--against", type=Path, metavar="FILE", help="such a file of other code, to compare with")
    parser.add_argument("--only", default="", metavar="TEXT", help="run only the cases whose name contains this")
    parser.add_argument("--steps", type=int, default=20, help="training steps, default: 20")
    parser.add_argument("--rtol", type=float, default=0.0, help="largest relative difference allowed, default: 0")
    args = parser.parse_args(argv)
    before = json.loads(args.against.read_text()) if args.against else None
    now = {}
    for name in (name for name in CASES if args.only in name):
        now[name] = first_losses(CASES[name], args.steps)
        after = "" if before is None else f"  {compare({name: now[name]}, before)[name]:.3g}"
        print(f"{name:<34}{now[name][0]:>12.6g}{now[name][-1]:>12.6g}{after}", flush=True)
    args.out.write_text(json.dumps(now, indent=1) + "\n")
    return int(before is not None and any(value > args.rtol for value in compare(now, before).values()))


if __name__ == "__main__":
    sys.exit(main())
