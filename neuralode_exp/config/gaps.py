"""Combinations (cells) of model, dataset and solver without a meaning: the reason, and what to pick instead."""

from __future__ import annotations

import math
from collections.abc import Iterator

from neuralode_exp.config import readable
from neuralode_exp.config.errors import Mistake
from neuralode_exp.config.options import has_inputs
from neuralode_exp.config.schema import Config, CsvKeys, DynamicsKeys
from neuralode_exp.ode.solvers import SOLVERS

REGULARISERS = ("kinetic", "jacobian", "taylor", "steer", "error")  # keys of `trainer`


def of_every_kind(c: Config) -> Iterator[Mistake]:
    """Yield why a cell has no meaning with any kind of data. `of_images` to `of_densities` add those of their kind."""
    if c.model.name == "rknet" and c.model.gradient != "backprop":
        rule, got = "is the ODE block with model.gradient=backprop", f"model.gradient={c.model.gradient}"
        yield Mistake("model=rknet", rule, got, "pick model=odenet")
    penalised = any(getattr(c.trainer, key) for key in REGULARISERS)
    if penalised and not c.solves_ode:
        keys, fix = "trainer.kinetic, jacobian, taylor, steer and error", "pick model=odenet or leave them at 0"
        yield Mistake(keys, "act on the solution of an ODE", f"model={c.model.name}", fix)
    if penalised and has_inputs(c):
        keys, fix = "trainer.kinetic, jacobian, taylor and error", "leave them at 0 or pick dataset.input=none"
        yield Mistake(keys, "need a field of t and z alone", f"{_data(c)} with inputs", fix)
    if c.model.order == 2 and c.dataset.kind != "dynamics":
        rule = "is for dynamics, whose states have positions and velocities"
        yield Mistake("model.order=2", rule, _data(c), "pick model.order=1")
    if c.trainer.error > 0 and not _estimates_errors(c):
        rule = "needs an adaptive solver of the native engine with backprop or checkpoint, without solver.compile"
        got = f"solver={c.solver.name} in {c.solver.engine} with model.gradient={c.model.gradient}"
        fix = "pick solver=dopri5 model=odenet model.gradient=checkpoint, or trainer.error=0"
        yield Mistake("trainer.error", f"{rule} and replicas", got, fix)
    if c.trainer.steer > 0 and c.dataset.kind == "dynamics":
        rule = "moves the end of a solve, but dynamics have an observation there"
        yield Mistake("trainer.steer", rule, _data(c), "pick trainer.steer=0")
    if c.model.name == "odenet" and c.model.gradient == "backprop":
        rule = "is the ODE block with model.gradient=adjoint, checkpoint or reversible"
        yield Mistake("model=odenet", rule, "model.gradient=backprop", "pick model=rknet")
    if c.solves_ode:
        yield from _of_solver(c)


def _estimates_errors(c: Config) -> bool:
    steps = SOLVERS[c.solver.name].adaptive and c.solver.engine == "native" and not c.solver.compile
    return steps and c.model.gradient in ("backprop", "checkpoint") and c.trainer.replicas == 1


def _of_solver(c: Config) -> Iterator[Mistake]:
    solver, method, gradient = c.solver, SOLVERS[c.solver.name], c.model.gradient
    engine = f"solver.engine={solver.engine}"
    if solver.engine not in method.engines:
        fix = "pick the other engine or solver=dopri5"
        yield Mistake(f"solver={solver.name}", "is not in this engine", engine, fix)
    if solver.engine == "torchdiffeq":
        if "max_step" in method.keys and solver.max_step is not None:
            rule, fix = "limits the steps of the native engine", "pick solver.engine=native or solver.max_step=null"
            yield Mistake("solver.max_step", rule, engine, fix)
        if solver.compile:
            rule, fix = "compiles the steps of the native engine", "pick solver.engine=native or solver.compile=false"
            yield Mistake("solver.compile=true", rule, engine, fix)
        if "first_step" in method.keys and solver.first_step == "previous":
            rule = "is available in the native engine only"
            fix = "pick solver.engine=native or solver.first_step=null"
            yield Mistake("solver.first_step=previous", rule, engine, fix)
    if not method.differentiable and gradient != "adjoint":
        rule, got = "gives gradients through the adjoint only", f"model={c.model.name} with model.gradient={gradient}"
        fix = "pick model=odenet model.gradient=adjoint or solver=dopri5"
        yield Mistake(f"solver={solver.name}", rule, got, fix)
    if solver.engine == "torchdiffeq" and gradient in ("checkpoint", "reversible"):
        fix = "pick solver.engine=native with a solver of its own, or model.gradient=adjoint"
        yield Mistake(engine, "differentiates by backprop and adjoint only", f"model.gradient={gradient}", fix)


def of_images(c: Config) -> Iterator[Mistake]:
    yield from _one_state_of_all_rows(c)
    if c.model.augment > 0 and c.model.name in ("mlp", "stem"):
        fix = "pick model=odenet or model.augment=0"
        yield Mistake("model.augment", "is for networks with blocks", f"model={c.model.name}", fix)


def of_labels(c: Config) -> Iterator[Mistake]:
    yield from _not_precise(c)
    yield from _one_state_of_all_rows(c)
    yield from _not_known(c)
    yield from _not_in_pairs(c)


def of_dynamics(c: Config) -> Iterator[Mistake]:
    yield from _not_precise(c)
    if c.model.name == "resnet":
        yield from _of_residual_map(c)
    yield from _not_in_pairs(c)
    if c.model.order == 2:
        yield from _of_second_order(c)
    if c.model.augment > 0:
        rule = "adds dimensions without data, but a loss on trajectories needs data for every dimension"
        yield Mistake("model.augment", rule, _data(c), "pick model.augment=0")
    if has_inputs(c) and c.model.name == "resnet":
        fix = "pick model=odenet or dataset.input=none"
        yield Mistake("model=resnet", "is for data without inputs", "inputs", fix)
    penalised = any((c.trainer.kinetic, c.trainer.jacobian, c.trainer.taylor))
    if penalised and (has_inputs(c) or c.model.field == "hybrid"):
        keys, rule = "trainer.kinetic, jacobian and taylor", "need a field of t and z that is a network alone"
        yield Mistake(keys, rule, f"{_data(c)} with inputs, or model.field=hybrid", "leave them out")
    if has_inputs(c) and c.solver.compile:
        rule = "is for fields without inputs: the host finds the piece of an input from t"
        fix = "pick solver.compile=false or dataset.input=none"
        yield Mistake("solver.compile", rule, f"{_data(c)} with inputs", fix)
    if has_inputs(c) and c.solver.engine == "torchdiffeq":
        rule = "does not stop at the times at which inputs change"
        fix = "pick a solver of the native engine or dataset.input=none"
        yield Mistake("solver.engine=torchdiffeq", rule, f"{_data(c)} with inputs", fix)
    if isinstance(c.dataset, CsvKeys) and c.trainer.shooting == "single":
        rule, fix = "solves all trajectories at the same times", "pick trainer.shooting=multiple"
        yield Mistake("trainer.shooting=single", rule, "dataset=csv, where each has its own", fix)


def _of_residual_map(c: Config) -> Iterator[Mistake]:
    rule = "maps one time of a regular grid to the next"
    if isinstance(c.dataset, DynamicsKeys) and c.dataset.sampling == "random":
        fix = "pick dataset.sampling=regular or model=odenet"
        yield Mistake("model=resnet", rule, "dataset.sampling=random", fix)
    if isinstance(c.dataset, CsvKeys):
        got = "dataset=csv, which may have any times"
        yield Mistake("model=resnet", rule, got, "pick model=odenet or model=rknet")
    if c.model.field == "hybrid":
        rule = "has no field dz/dt of which a part could be known"
        yield Mistake("model=resnet", rule, "model.field=hybrid", "pick model=odenet")


def _of_second_order(c: Config) -> Iterator[Mistake]:
    model, dataset, key = c.model, c.dataset, "model.order=2"
    if _is_odd(c):
        got = f"{_data(c)} of an odd number of dimensions"
        yield Mistake(key, "has as many velocities as positions", got, "pick model.order=1")
    if model.name == "resnet" or model.field == "hamiltonian":
        rule = "needs a field whose first half may be the velocity"
        got = f"model={model.name} with model.field={model.field}"
        yield Mistake(key, rule, got, "pick model=odenet model.field=mlp")
    if isinstance(dataset, CsvKeys) and (dataset.log != "false" or dataset.delays != 0):
        rule = "needs columns as they are, of which half are positions"
        got = f"dataset.log={dataset.log} dataset.delays={dataset.delays}"
        yield Mistake(key, rule, got, "pick dataset.log=false dataset.delays=0")


def of_densities(c: Config) -> Iterator[Mistake]:
    trainer = c.trainer
    yield from _not_precise(c)
    yield from _one_state_of_all_rows(c)
    if c.model.name == "planar" and trainer.loss != "likelihood":
        got, fix = "model=planar, which has none", "pick trainer.loss=likelihood or model=odenet"
        yield Mistake(f"trainer.loss={trainer.loss}", "fits a field", got, fix)
    if trainer.loss == "flow-matching+likelihood" and trainer.matching_steps >= (trainer.max_steps or math.inf):
        got = f"{trainer.matching_steps} of trainer.max_steps={trainer.max_steps}"
        fix = "lower it or pick trainer.loss=flow-matching"
        yield Mistake("trainer.matching_steps", "must leave steps for the likelihood", got, fix)
    if c.model.field == "hamiltonian":
        rule = "keeps volumes, so the flow cannot change the density"
        yield Mistake("model.field=hamiltonian", rule, _data(c), "pick model.field=mlp")
    yield from _not_known(c)
    if c.model.augment > 0:
        rule = "has no density: with added dimensions the flow is not a map of the points alone"
        yield Mistake("model.augment", rule, _data(c), "pick model.augment=0")


def _one_state_of_all_rows(c: Config) -> Iterator[Mistake]:
    if c.solves_ode and SOLVERS[c.solver.name].scipy is not None:
        rule = "solves all rows of a batch as one state, and the Jacobian of that state is too large"
        yield Mistake(f"solver={c.solver.name}", rule, _data(c), "pick solver=dopri5")


def _not_precise(c: Config) -> Iterator[Mistake]:
    if c.precision == "bf16":
        rule = "is for images, whose networks tolerate the rounding"
        yield Mistake("precision=bf16", rule, _data(c), "pick precision=float32")


def _not_known(c: Config) -> Iterator[Mistake]:
    if c.model.field == "hybrid":
        yield Mistake("model.field=hybrid", "is for dynamics", _data(c), "pick model.field=mlp")


def _not_in_pairs(c: Config) -> Iterator[Mistake]:
    if c.model.field == "hamiltonian" and _is_odd(c):
        got = f"{_data(c)} of an odd number of dimensions"
        yield Mistake("model.field=hamiltonian", "has as many momenta as coordinates", got, "pick model.field=mlp")


def _is_odd(c: Config) -> bool:
    return (readable.dimension(c) or 0) % 2 == 1


def _data(c: Config) -> str:
    return f"dataset={c.dataset.name}"
