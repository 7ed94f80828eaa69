"""Cells of model x dataset x solver without a meaning: which they are, why, and what to pick instead."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from neuralode_exp.config import readable
from neuralode_exp.config.errors import Mistake
from neuralode_exp.config.options import has_inputs
from neuralode_exp.config.schema import Config, CsvKeys, DynamicsKeys
from neuralode_exp.ode.solvers import SOLVERS

REGULARISERS = ("kinetic", "jacobian", "taylor", "steer", "error")  # keys of `trainer`


@dataclass(frozen=True)
class Gap:
    """Cells without a meaning.

    Args:
        has: whether a cell is one of them.
        rule, got, instead: what is said of it, with {c} for the config; the rule begins with its key.
    """

    has: Callable[[Config], bool]
    rule: str
    got: str
    instead: str

    def of(self, config: Config) -> Mistake | None:
        """Return what is wrong with a cell, None if it is none of these."""
        if not self.has(config):
            return None
        rule, got, instead = (text.format(c=config) for text in (self.rule, self.got, self.instead))
        key, _, rule = rule.partition(" ")
        return Mistake(key, rule, got, instead)


def _reads(config: Config, key: str) -> bool:
    return config.solves_ode and key in SOLVERS[config.solver.name].keys


def _estimates_errors(config: Config) -> bool:
    solver = config.solver
    steps = SOLVERS[solver.name].adaptive and solver.engine == "native" and not solver.compile
    return steps and config.model.gradient in ("backprop", "checkpoint") and config.trainer.replicas == 1


OF_EVERY_KIND = (
    Gap(
        lambda c: c.model.name == "rknet" and c.model.gradient != "backprop",
        "model=rknet is the ODE block with model.gradient=backprop",
        "model.gradient={c.model.gradient}",
        "pick model=odenet",
    ),
    Gap(
        lambda c: not c.solves_ode and any(getattr(c.trainer, key) for key in REGULARISERS),
        "trainer.kinetic, jacobian, taylor, steer and error are of an ODE's solution",
        "model={c.model.name}",
        "pick model=odenet or leave them at 0",
    ),
    Gap(
        lambda c: has_inputs(c) and any(getattr(c.trainer, key) for key in REGULARISERS),
        "trainer.kinetic, jacobian, taylor and error are of a field of t and z alone",
        "dataset={c.dataset.name} with inputs",
        "leave them at 0 or pick dataset.input=none",
    ),
    Gap(
        lambda c: c.model.order == 2 and c.dataset.kind != "dynamics",
        "model.order=2 is for dynamics, whose states have positions and velocities",
        "dataset={c.dataset.name}",
        "pick model.order=1",
    ),
    Gap(
        lambda c: c.trainer.error > 0 and not _estimates_errors(c),
        "trainer.error is of an adaptive solver of the native engine, by backprop or checkpoint, without "
        "solver.compile and replicas",
        "solver={c.solver.name} in {c.solver.engine} with model.gradient={c.model.gradient}",
        "pick solver=dopri5 model=odenet model.gradient=checkpoint, or trainer.error=0",
    ),
    Gap(
        lambda c: c.trainer.steer > 0 and c.dataset.kind == "dynamics",
        "trainer.steer moves the end of a solve, where dynamics have an observation",
        "dataset={c.dataset.name}",
        "pick trainer.steer=0",
    ),
    Gap(
        lambda c: c.model.name == "odenet" and c.model.gradient == "backprop",
        "model=odenet is the ODE block with model.gradient=adjoint, checkpoint or reversible",
        "model.gradient=backprop",
        "pick model=rknet",
    ),
    Gap(
        lambda c: c.solves_ode and c.solver.engine not in SOLVERS[c.solver.name].engines,
        "solver={c.solver.name} is not in this engine",
        "solver.engine={c.solver.engine}",
        "pick the other engine or solver=dopri5",
    ),
    Gap(
        lambda c: _reads(c, "max_step") and c.solver.engine == "torchdiffeq" and c.solver.max_step is not None,
        "solver.max_step limits the steps of the native engine",
        "solver.engine=torchdiffeq",
        "pick solver.engine=native or solver.max_step=null",
    ),
    Gap(
        lambda c: c.solves_ode and c.solver.engine == "torchdiffeq" and c.solver.compile,
        "solver.compile=true compiles the steps of the native engine",
        "solver.engine=torchdiffeq",
        "pick solver.engine=native or solver.compile=false",
    ),
    Gap(
        lambda c: _reads(c, "first_step") and c.solver.engine == "torchdiffeq" and c.solver.first_step == "previous",
        "solver.first_step=previous is known of the native engine's steps alone",
        "solver.engine=torchdiffeq",
        "pick solver.engine=native or solver.first_step=null",
    ),
    Gap(
        lambda c: c.solves_ode and not SOLVERS[c.solver.name].differentiable and c.model.gradient != "adjoint",
        "solver={c.solver.name} gives gradients through the adjoint only",
        "model={c.model.name} with model.gradient={c.model.gradient}",
        "pick model=odenet model.gradient=adjoint or solver=dopri5",
    ),
    Gap(
        lambda c: (
            c.solves_ode and c.solver.engine == "torchdiffeq" and c.model.gradient in ("checkpoint", "reversible")
        ),
        "solver.engine=torchdiffeq differentiates by backprop and adjoint only",
        "model.gradient={c.model.gradient}",
        "pick solver.engine=native with a solver of its own, or model.gradient=adjoint",
    ),
)

ONE_STATE_OF_ALL_ROWS = Gap(
    lambda c: c.solves_ode and SOLVERS[c.solver.name].scipy is not None,
    "solver={c.solver.name} takes all rows of a batch for one state, whose Jacobian has their number squared",
    "dataset={c.dataset.name}",
    "pick solver=dopri5",
)

PRECISE = Gap(
    lambda c: c.precision == "bf16",
    "precision=bf16 is for images, whose networks stand the rounding",
    "dataset={c.dataset.name}",
    "pick precision=float32",
)

KNOWN = Gap(
    lambda c: c.model.field == "hybrid",
    "model.field=hybrid is for dynamics",
    "dataset={c.dataset.name}",
    "pick model.field=mlp",
)

IN_PAIRS = Gap(
    lambda c: c.model.field == "hamiltonian" and (readable.dimension(c) or 0) % 2 == 1,
    "model.field=hamiltonian has as many momenta as coordinates",
    "dataset={c.dataset.name} of an odd number of dimensions",
    "pick model.field=mlp",
)

OF_IMAGES = (
    ONE_STATE_OF_ALL_ROWS,
    Gap(
        lambda c: c.model.augment > 0 and c.model.name in ("mlp", "stem"),
        "model.augment is for networks with blocks",
        "model={c.model.name}",
        "pick model=odenet or model.augment=0",
    ),
)
OF_LABELS = (PRECISE, ONE_STATE_OF_ALL_ROWS, KNOWN, IN_PAIRS)
OF_DYNAMICS = (
    PRECISE,
    Gap(
        lambda c: c.model.name == "resnet" and isinstance(c.dataset, DynamicsKeys) and c.dataset.sampling == "random",
        "model=resnet maps one time of a regular grid to the next",
        "dataset.sampling=random",
        "pick dataset.sampling=regular or model=odenet",
    ),
    Gap(
        lambda c: c.model.name == "resnet" and isinstance(c.dataset, CsvKeys),
        "model=resnet maps one time of a regular grid to the next",
        "dataset=csv, which may have any times",
        "pick model=odenet or model=rknet",
    ),
    Gap(
        lambda c: c.model.name == "resnet" and c.model.field == "hybrid",
        "model=resnet has no field dz/dt that could be known",
        "model.field=hybrid",
        "pick model=odenet",
    ),
    IN_PAIRS,
    Gap(
        lambda c: c.model.order == 2 and (readable.dimension(c) or 0) % 2 == 1,
        "model.order=2 has as many velocities as positions",
        "dataset={c.dataset.name} of an odd number of dimensions",
        "pick model.order=1",
    ),
    Gap(
        lambda c: c.model.order == 2 and (c.model.name == "resnet" or c.model.field == "hamiltonian"),
        "model.order=2 is for fields whose first half is free to be the velocity",
        "model={c.model.name} with model.field={c.model.field}",
        "pick model=odenet model.field=mlp",
    ),
    Gap(
        lambda c: (
            c.model.order == 2
            and isinstance(c.dataset, CsvKeys)
            and (c.dataset.log != "false" or c.dataset.delays != 0)
        ),
        "model.order=2 is for columns as they are, half of them positions",
        "dataset.log={c.dataset.log} dataset.delays={c.dataset.delays}",
        "pick dataset.log=false dataset.delays=0",
    ),
    Gap(
        lambda c: c.model.augment > 0,
        "model.augment adds dimensions that nothing is known of, and all of the states are measured",
        "dataset={c.dataset.name}",
        "pick model.augment=0",
    ),
    Gap(
        lambda c: c.model.name == "resnet" and has_inputs(c),
        "model=resnet is for data without inputs",
        "inputs",
        "pick model=odenet or dataset.input=none",
    ),
    Gap(
        lambda c: (
            (has_inputs(c) or c.model.field == "hybrid")
            and any((c.trainer.kinetic, c.trainer.jacobian, c.trainer.taylor))
        ),
        "trainer.kinetic, jacobian and taylor are for fields of t and z that are networks alone",
        "dataset={c.dataset.name} with inputs, or model.field=hybrid",
        "leave them out",
    ),
    Gap(
        lambda c: has_inputs(c) and c.solver.compile,
        "solver.compile is for fields without inputs, whose pieces are found by their times on the host",
        "dataset={c.dataset.name} with inputs",
        "pick solver.compile=false or dataset.input=none",
    ),
    Gap(
        lambda c: has_inputs(c) and c.solver.engine == "torchdiffeq",
        "solver.engine=torchdiffeq steps over the times at which inputs change",
        "dataset={c.dataset.name} with inputs",
        "pick a solver of the native engine or dataset.input=none",
    ),
    Gap(
        lambda c: isinstance(c.dataset, CsvKeys) and c.trainer.shooting == "single",
        "trainer.shooting=single solves all trajectories at the same times",
        "dataset=csv, where each has its own",
        "pick trainer.shooting=multiple",
    ),
)
OF_DENSITIES = (
    PRECISE,
    ONE_STATE_OF_ALL_ROWS,
    Gap(
        lambda c: c.model.name == "planar" and c.trainer.loss != "likelihood",
        "trainer.loss={c.trainer.loss} fits a field",
        "model=planar, which has none",
        "pick trainer.loss=likelihood or model=odenet",
    ),
    Gap(
        lambda c: (
            c.trainer.loss == "flow-matching+likelihood"
            and c.trainer.matching_steps >= (c.trainer.max_steps or math.inf)
        ),
        "trainer.matching_steps must leave steps for the likelihood",
        "{c.trainer.matching_steps} of trainer.max_steps={c.trainer.max_steps}",
        "lower it or pick trainer.loss=flow-matching",
    ),
    Gap(
        lambda c: c.model.field == "hamiltonian",
        "model.field=hamiltonian keeps volumes, and a density has to change",
        "dataset={c.dataset.name}",
        "pick model.field=mlp",
    ),
    KNOWN,
    Gap(
        lambda c: c.model.augment > 0,
        "model.augment has no density, as the flow would not be a map of the points alone",
        "dataset={c.dataset.name}",
        "pick model.augment=0",
    ),
)
