"""Which cells of model x dataset x solver have a meaning, and what each solver reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from neuralode_exp.config.errors import Mistake
from neuralode_exp.config.later import is_neutral
from neuralode_exp.config.schema import Config, Csv, Dynamics, Solver

FIXED_STEP = ("step_size", "max_steps")
ADAPTIVE = ("rtol", "atol", "max_steps", "first_step", "min_step", "max_step")
SCIPY = ("rtol", "atol", "max_steps")


@dataclass(frozen=True)
class Solves:
    """A solver: the keys that it reads, the engines that have it, whether its steps can be differentiated."""

    keys: tuple[str, ...]
    engines: tuple[str, ...] = ("native", "torchdiffeq")
    differentiable: bool = True


SOLVERS: dict[str, Solves] = {
    "euler": Solves(FIXED_STEP),
    "midpoint": Solves(FIXED_STEP),
    "heun2": Solves(FIXED_STEP),
    "heun3": Solves(FIXED_STEP),
    "rk4": Solves(FIXED_STEP),
    "bosh3": Solves(ADAPTIVE),
    "fehlberg2": Solves(ADAPTIVE),
    "adaptive-heun": Solves(ADAPTIVE),
    "dopri5": Solves(ADAPTIVE),
    "tsit5": Solves(ADAPTIVE, engines=("native",)),
    "dopri8": Solves(ADAPTIVE),
    "explicit-adams": Solves(FIXED_STEP, engines=("torchdiffeq",)),
    "implicit-adams": Solves(("rtol", "atol", *FIXED_STEP), engines=("torchdiffeq",)),
    "lsoda": Solves(SCIPY, engines=("torchdiffeq",), differentiable=False),
    "radau": Solves(SCIPY, engines=("torchdiffeq",), differentiable=False),
    "bdf": Solves(SCIPY, engines=("torchdiffeq",), differentiable=False),
}
IMPLICIT = tuple(name for name, solves in SOLVERS.items() if solves.keys is SCIPY)


def read_by_solver(solver: Solver) -> dict[str, Any]:
    """Return name, engine and the keys that the solver reads; an atol of null is the rtol that it stands for."""
    read = solver.model_dump(include={"name", "engine", *SOLVERS[solver.name].keys})
    return read | {"atol": solver.atol or solver.rtol} if "atol" in read else read


def solver_arguments(solver: Solver) -> dict[str, Any]:
    """Return the arguments of `neuralode_exp.ode.make_method`: what the solver reads.

    `first_step=previous` is left out: it is no number, the model keeps the size from one solve to the next.
    """
    return {
        key: value
        for key, value in read_by_solver(solver).items()
        if value != "previous" and not is_neutral(f"solver.{key}", value)
    }


def solves_ode(config: Config) -> bool:
    """Whether the model is an ODE; the others read no solver key."""
    return config.model.name in ("rknet", "odenet")


def _reads(config: Config, key: str) -> bool:
    return solves_ode(config) and key in SOLVERS[config.solver.name].keys


@dataclass(frozen=True)
class Gap:
    """Cells without a meaning: which they are, and what to say of them, with {c} for the config."""

    has: Callable[[Config], bool]
    what: str
    why: str
    got: str
    instead: str


GAPS = (
    Gap(
        lambda c: c.model.name in ("mlp", "stem") and c.dataset.kind != "images",
        "model={c.model.name}",
        "is for images",
        "dataset={c.dataset.name}",
        "pick model=odenet or model=rknet",
    ),
    Gap(
        lambda c: c.model.name == "resnet" and c.dataset.kind == "densities",
        "model=resnet",
        "has no density, its blocks need not be invertible",
        "dataset={c.dataset.name}",
        "pick model=odenet or model=rknet",
    ),
    Gap(
        lambda c: c.model.name == "resnet" and isinstance(c.dataset, Dynamics) and c.dataset.sampling == "random",
        "model=resnet",
        "maps one time of a regular grid to the next",
        "dataset.sampling=random",
        "pick dataset.sampling=regular or model=odenet",
    ),
    Gap(
        lambda c: c.model.name == "resnet" and isinstance(c.dataset, Csv),
        "model=resnet",
        "maps one time of a regular grid to the next",
        "dataset=csv, which may have any times",
        "pick model=odenet or model=rknet",
    ),
    Gap(
        lambda c: isinstance(c.dataset, Csv) and c.trainer.shooting == "single",
        "trainer.shooting=single",
        "solves all trajectories at the same times",
        "dataset=csv, where each has its own",
        "pick trainer.shooting=multiple",
    ),
    Gap(
        lambda c: solves_ode(c) and c.solver.name in IMPLICIT and c.dataset.kind == "images",
        "solver={c.solver.name}",
        "is implicit and needs a Jacobian of all features of a batch at once, terabytes",
        "dataset={c.dataset.name}",
        "pick solver=dopri5",
    ),
    Gap(
        lambda c: c.model.name == "rknet" and c.model.gradient != "backprop",
        "model=rknet",
        "is the ODE block with model.gradient=backprop",
        "model.gradient={c.model.gradient}",
        "pick model=odenet",
    ),
    Gap(
        lambda c: c.model.name == "odenet" and c.model.gradient == "backprop",
        "model=odenet",
        "is the ODE block with model.gradient=adjoint or checkpoint",
        "model.gradient=backprop",
        "pick model=rknet",
    ),
    Gap(
        lambda c: solves_ode(c) and c.solver.engine not in SOLVERS[c.solver.name].engines,
        "solver={c.solver.name}",
        "is not in this engine",
        "solver.engine={c.solver.engine}",
        "pick the other engine or solver=dopri5",
    ),
    Gap(
        lambda c: _reads(c, "max_step") and c.solver.engine == "torchdiffeq" and c.solver.max_step is not None,
        "solver.max_step",
        "limits the steps of the native engine",
        "solver.engine=torchdiffeq",
        "pick solver.engine=native or solver.max_step=null",
    ),
    Gap(
        lambda c: _reads(c, "first_step") and c.solver.engine == "torchdiffeq" and c.solver.first_step == "previous",
        "solver.first_step=previous",
        "is known of the native engine's steps alone",
        "solver.engine=torchdiffeq",
        "pick solver.engine=native or solver.first_step=null",
    ),
    Gap(
        lambda c: solves_ode(c) and not SOLVERS[c.solver.name].differentiable and c.model.gradient != "adjoint",
        "solver={c.solver.name}",
        "gives gradients through the adjoint only",
        "model={c.model.name} with model.gradient={c.model.gradient}",
        "pick model=odenet model.gradient=adjoint or solver=dopri5",
    ),
    Gap(
        lambda c: solves_ode(c) and c.solver.engine == "torchdiffeq" and c.model.gradient == "checkpoint",
        "solver.engine=torchdiffeq",
        "has no checkpointed gradient",
        "model.gradient=checkpoint",
        "pick solver.engine=native with a solver of its own, or model.gradient=adjoint",
    ),
)


def without_meaning(config: Config) -> Mistake | None:
    """Return what is wrong with a cell of model x dataset x solver, None for one that can be run."""
    for gap in GAPS:
        if gap.has(config):
            return Mistake(*(text.format(c=config) for text in (gap.what, gap.why, gap.got, gap.instead)))
    return None


def meaning(config: Config) -> str | None:
    """Return None for a cell that can be run, else one line of why not and what to pick instead."""
    mistake = without_meaning(config)
    return None if mistake is None else str(mistake)
