"""Rules about several keys. Each is checked if the sections that it reads are valid."""

from __future__ import annotations

from collections.abc import Iterator

from neuralode_exp import user_files
from neuralode_exp.config.errors import Mistake, must_be_one_of, spell, suggest
from neuralode_exp.config.kinds import KINDS, model_names, trainer_names
from neuralode_exp.config.schema import TRAINING_IMAGES, Dataset, DynamicsKeys, ImagesKeys, Model, Solver, Top, Trainer
from neuralode_exp.ode.solvers import SOLVERS
from neuralode_exp.tags import costs


def across_sections(
    top: Top | None, dataset: Dataset | None, model: Model | None, solver: Solver | None, trainer: Trainer | None
) -> Iterator[Mistake]:
    """Yield the mistakes between keys. A section that is None is not valid, and rules about it are not checked."""
    if top:
        yield from _of_top(top)
    if dataset:
        yield from _of_dataset(dataset)
    if model and model.name not in model_names():
        yield must_be_one_of("model.name", model.name, model_names())
    if model:
        yield from _of_channels(model, model.augment if dataset and dataset.kind == "images" else 0)
    if solver and solver.name not in SOLVERS:
        yield Mistake("solver.name", "must be a solver", solver.name, suggest(solver.name, SOLVERS))
    if trainer:
        yield from _of_trainer(top, trainer)
    if dataset and model and dataset.kind == "densities":
        yield from _of_flow(dataset, model)
    if dataset and trainer:
        yield from _of_dataset_and_trainer(dataset, trainer)


def _of_channels(model: Model, augment: int) -> Iterator[Mistake]:
    rule = "must be at most 32 or a multiple of 32, for the groups of GroupNorm"
    if model.channels > 32 and model.channels % 32:
        yield Mistake("model.channels", rule, spell(model.channels))
    elif augment and (both := model.channels + augment) > 32 and both % 32:
        yield Mistake("model.augment", f"and model.channels together {rule}", spell(both))


def _of_top(top: Top) -> Iterator[Mistake]:
    if top.device == "mps" and top.precision != "float32":
        fix = f"use device=cpu for {top.precision}"
        yield Mistake("precision", "must be float32 on device=mps", top.precision, fix)


def _of_dataset(dataset: Dataset) -> Iterator[Mistake]:
    if isinstance(dataset, ImagesKeys) and (dataset.train or 0) + dataset.validation > TRAINING_IMAGES:
        rule = f"must be at most the {TRAINING_IMAGES - dataset.validation} images that are not held out for validation"
        yield Mistake("dataset.train", rule, spell(dataset.train), "lower one of them")


def _of_flow(dataset: Dataset, model: Model) -> Iterator[Mistake]:
    if model.field == "mlp" and model.activation not in (None, "tanh"):  # its trace is computed by a formula for tanh
        rule = f"must be tanh for dataset={dataset.name}"
        yield Mistake("model.activation", rule, model.activation, "leave it out")
    if model.features != "none" and model.field not in ("mlp", "linear"):
        yield Mistake("model.features", f"must be none for model.field={model.field}", model.features, "leave it out")


def _of_trainer(top: Top | None, trainer: Trainer) -> Iterator[Mistake]:
    kinds = [kind for kind in KINDS.values() if kind.trainer == trainer.name]
    if not kinds:
        yield must_be_one_of("trainer.name", trainer.name, trainer_names())
    objectives = [*(tag for kind in kinds for tag in kind.objectives), *costs()]
    own = user_files.entries("metric", top.extensions) if top else []
    of_data = [metric for metric in own if metric.settings["on"] in [kind.name for kind in kinds]]
    objectives += [metric.name for metric in of_data]
    known = top is not None and user_files.loaded(top.extensions) is not None
    if kinds and top and known and top.objective not in (None, *objectives):
        fix = suggest(str(top.objective), dict.fromkeys(objectives))
        yield Mistake("objective", f"must be a tag of trainer={trainer.name}, not on test data", top.objective, fix)
    if trainer.epochs is None and trainer.max_steps is None:
        yield Mistake("trainer.epochs", "or trainer.max_steps must end the run", "null for both", "set one of them")
    reading = [kind.trainer for kind in KINDS.values() if "replicas" in kind.trainer_keys]
    if trainer.replicas > 1 and trainer.name not in reading:
        rule = f"must be 1 unless trainer={' or '.join(reading)}"
        got = f"{trainer.replicas} with trainer={trainer.name}"
        yield Mistake("trainer.replicas", rule, got, "use -m seed=0,1,2")


def _of_dataset_and_trainer(dataset: Dataset, trainer: Trainer) -> Iterator[Mistake]:
    wanted = KINDS[dataset.kind].trainer
    if trainer.name != wanted:
        rule = f"must be {wanted} for dataset={dataset.name}"
        yield Mistake("trainer", rule, trainer.name, "leave it out: the dataset picks it")
    elif isinstance(dataset, DynamicsKeys) and (trainer.window or 0) >= dataset.points:
        fix = f"at most {dataset.points - 1} steps fit between the points"
        yield Mistake("trainer.window", f"must be below dataset.points={dataset.points}", spell(trainer.window), fix)
    if trainer.patience is not None and getattr(dataset, "validation", 1) == 0:
        rule = "must be null if nothing is held out (dataset.validation=0)"
        yield Mistake("trainer.patience", rule, spell(trainer.patience), "set dataset.validation too")
