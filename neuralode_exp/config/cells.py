"""Which cells of model x dataset x solver have a meaning, and what the solver of a cell is given."""

from __future__ import annotations

from typing import Any

from neuralode_exp.config.errors import Mistake
from neuralode_exp.config.kinds import KINDS, ODE_MODELS, Gap, unfit
from neuralode_exp.config.options import has_inputs
from neuralode_exp.config.schema import Config, Solver
from neuralode_exp.ode.solvers import SOLVERS

REGULARISERS = ("kinetic", "jacobian", "taylor", "steer", "error")  # keys of `trainer`


def read_by_solver(solver: Solver, gradient: str | None = None) -> dict[str, Any]:
    """Return name, engine and the keys that the solver reads; an atol of null is the rtol that it stands for.

    With `gradient`, also those that this way to differentiate reads.
    """
    of_gradient = ("coupling", "stored_states") if gradient == "reversible" else ()
    read = solver.model_dump(include={"name", "engine", *SOLVERS[solver.name].keys, *of_gradient})
    return read | {"atol": solver.atol or solver.rtol} if "atol" in read else read


def solver_arguments(solver: Solver) -> dict[str, Any]:
    """Return the arguments of `neuralode_exp.ode.make_method`: what the solver reads.

    `first_step=previous` is left out: it is no number, the model keeps the size from one solve to the next.
    """
    return {key: value for key, value in read_by_solver(solver).items() if value != "previous"}


def solves_ode(config: Config) -> bool:
    """Whether the model is an ODE; the others read no solver key."""
    return config.model.name in ODE_MODELS


def _reads(config: Config, key: str) -> bool:
    return solves_ode(config) and key in SOLVERS[config.solver.name].keys


def _estimates_errors(config: Config) -> bool:
    solver = config.solver
    steps = SOLVERS[solver.name].adaptive and solver.engine == "native" and not solver.compile
    return steps and config.model.gradient in ("backprop", "checkpoint") and config.trainer.replicas == 1


# What holds for every kind of data; a kind's own are in its row.
GAPS = (
    Gap(
        lambda c: c.model.name == "rknet" and c.model.gradient != "backprop",
        "model=rknet",
        "is the ODE block with model.gradient=backprop",
        "model.gradient={c.model.gradient}",
        "pick model=odenet",
    ),
    Gap(
        lambda c: not solves_ode(c) and any(getattr(c.trainer, key) for key in REGULARISERS),
        "trainer.kinetic, jacobian, taylor, steer and error",
        "are of an ODE's solution",
        "model={c.model.name}",
        "pick model=odenet or leave them at 0",
    ),
    Gap(
        lambda c: has_inputs(c) and any(getattr(c.trainer, key) for key in REGULARISERS),
        "trainer.kinetic, jacobian, taylor and error",
        "are of a field of t and z alone",
        "dataset={c.dataset.name} with inputs",
        "leave them at 0 or pick dataset.input=none",
    ),
    Gap(
        lambda c: c.model.order == 2 and c.dataset.kind != "dynamics",
        "model.order=2",
        "is for dynamics, whose states have positions and velocities",
        "dataset={c.dataset.name}",
        "pick model.order=1",
    ),
    Gap(
        lambda c: c.trainer.error > 0 and not _estimates_errors(c),
        "trainer.error",
        "is of an adaptive solver of the native engine, by backprop or checkpoint, without solver.compile and replicas",
        "solver={c.solver.name} in {c.solver.engine} with model.gradient={c.model.gradient}",
        "pick solver=dopri5 model=odenet model.gradient=checkpoint, or trainer.error=0",
    ),
    Gap(
        lambda c: c.trainer.steer > 0 and c.dataset.kind == "dynamics",
        "trainer.steer",
        "moves the end of a solve, where dynamics have an observation",
        "dataset={c.dataset.name}",
        "pick trainer.steer=0",
    ),
    Gap(
        lambda c: c.model.name == "odenet" and c.model.gradient == "backprop",
        "model=odenet",
        "is the ODE block with model.gradient=adjoint, checkpoint or reversible",
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
        lambda c: solves_ode(c) and c.solver.engine == "torchdiffeq" and c.solver.compile,
        "solver.compile=true",
        "compiles the steps of the native engine",
        "solver.engine=torchdiffeq",
        "pick solver.engine=native or solver.compile=false",
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
        lambda c: (
            solves_ode(c) and c.solver.engine == "torchdiffeq" and c.model.gradient in ("checkpoint", "reversible")
        ),
        "solver.engine=torchdiffeq",
        "differentiates by backprop and adjoint only",
        "model.gradient={c.model.gradient}",
        "pick solver.engine=native with a solver of its own, or model.gradient=adjoint",
    ),
)


def without_meaning(config: Config) -> Mistake | None:
    """Return why a cell of model x dataset x solver has no meaning and what to pick instead, None if it has one."""
    gaps = (gap.of(config) for gap in (*KINDS[config.dataset.kind].gaps, *GAPS))
    return unfit(config) or next(filter(None, gaps), None)
