"""One row for each kind of data: the models that fit, the keys that are read, the trainer, what may be minimised."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neuralode_exp.config import image_files, memory, readable
from neuralode_exp.config.errors import Mistake
from neuralode_exp.config.options import has_inputs, own_keys
from neuralode_exp.config.schema import DATASETS, AnnuliKeys, CsvKeys, Dataset, DensitiesKeys, DynamicsKeys, ImagesKeys
from neuralode_exp.ode.solvers import SOLVERS

if TYPE_CHECKING:
    from neuralode_exp.config.schema import Config

ODE_MODELS = ("odenet", "rknet")
FIELD = ("field", "options", "width", "depth")
HYBRID = ("system", "free", "residual")


@dataclass(frozen=True)
class Gap:
    """Cells without a meaning: which they are, and what to say of them, with {c} for the config."""

    has: Callable[[Config], bool]
    what: str
    why: str
    got: str
    instead: str

    def of(self, config: Config) -> Mistake | None:
        """Return what is wrong with a cell, None if it is none of these."""
        if not self.has(config):
            return None
        return Mistake(*(text.format(c=config) for text in (self.what, self.why, self.got, self.instead)))


@dataclass(frozen=True)
class Kind:
    """A kind of data and the task that is made of it.

    Args:
        name: the `kind` of its datasets.
        dataset: keys of a dataset that has none of its own.
        trainer: the trainer that its datasets pick.
        models: the models that fit, each with the keys of `model` that it reads.
        unfit: other models, each with the reason why it does not fit.
        trainer_keys: keys of `trainer` that no other trainer reads.
        objectives: tags that may be minimised, beside those that every run records. None is of test data, where
            nothing is to be chosen.
        gaps: further cells without a meaning.
        data: yields what is wrong with the files and numbers that its data are made of.
        memory: estimates the bytes that a run takes.
        epoch: training steps in one pass over the data; None where the data have to be read to know.
    """

    name: str
    dataset: type[Dataset]
    trainer: str
    models: Mapping[str, tuple[str, ...]]
    objectives: tuple[str, ...]
    trainer_keys: tuple[str, ...] = ()
    unfit: Mapping[str, str] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    data: Callable[[Config], Iterator[Mistake]] = lambda config: iter(())
    memory: Callable[[Config], float] = lambda config: 0.0
    epoch: Callable[[Config], int | None] = lambda config: None


KINDS: dict[str, Kind] = {}


def add_kind(kind: Kind) -> None:
    """Add the row of a kind of data."""
    KINDS[kind.name] = kind


def model_names() -> list[str]:
    """Return the models that fit some kind of data."""
    return list(dict.fromkeys(name for kind in KINDS.values() for name in kind.models))


def trainer_names() -> list[str]:
    """Return the trainers of all kinds."""
    return list(dict.fromkeys(kind.trainer for kind in KINDS.values()))


def dataset_class(name: object, kind: object) -> type[Dataset]:
    """Return the class of a dataset; `Dataset` where neither name nor kind is known."""
    if str(name) in DATASETS:
        return DATASETS[str(name)]
    return own_keys(str(name), str(kind)) or (KINDS[str(kind)].dataset if str(kind) in KINDS else Dataset)


def unfit(config: Config) -> Mistake | None:
    """Return why the model does not fit the data and which one does, None if it fits."""
    model, kind = config.model.name, KINDS[config.dataset.kind]
    if model in kind.models:
        return None
    *some, last = [other.name for other in KINDS.values() if model in other.models]
    why = kind.unfit.get(model) or f"is for {' and '.join([*([', '.join(some)] if some else []), last])}"
    instead = " or ".join(f"model={name}" for name in ODE_MODELS if name in kind.models)
    return Mistake(f"model={model}", why, f"dataset={config.dataset.name}", f"pick {instead}")


ONE_STATE_OF_ALL_ROWS = Gap(
    lambda c: c.model.name in ODE_MODELS and SOLVERS[c.solver.name].scipy is not None,
    "solver={c.solver.name}",
    "takes all rows of a batch for one state, whose Jacobian has their number squared",
    "dataset={c.dataset.name}",
    "pick solver=dopri5",
)

PRECISE = Gap(
    lambda c: c.precision == "bf16",
    "precision=bf16",
    "is for images, whose networks stand the rounding",
    "dataset={c.dataset.name}",
    "pick precision=float32",
)

KNOWN = Gap(
    lambda c: c.model.field == "hybrid",
    "model.field=hybrid",
    "is for dynamics",
    "dataset={c.dataset.name}",
    "pick model.field=mlp",
)

IN_PAIRS = Gap(
    lambda c: c.model.field == "hamiltonian" and (readable.dimension(c) or 0) % 2 == 1,
    "model.field=hamiltonian",
    "has as many momenta as coordinates",
    "dataset={c.dataset.name} of an odd number of dimensions",
    "pick model.field=mlp",
)

CLASSIFICATION = ("error/validation", "loss/validation", "loss/train")

add_kind(
    Kind(
        "images",
        ImagesKeys,
        trainer="classification",
        models={
            "mlp": ("hidden",),
            "stem": ("channels",),
            "resnet": ("channels", "blocks", "augment"),
            "rknet": ("channels", "augment", "gradient"),
            "odenet": ("channels", "augment", "gradient"),
        },
        objectives=CLASSIFICATION,
        trainer_keys=("label_smoothing",),
        data=readable.of_images,
        memory=memory.of_images,
        epoch=image_files.steps_per_epoch,
        gaps=(
            ONE_STATE_OF_ALL_ROWS,
            Gap(
                lambda c: c.model.augment > 0 and c.model.name in ("mlp", "stem"),
                "model.augment",
                "is for networks with blocks",
                "model={c.model.name}",
                "pick model=odenet or model.augment=0",
            ),
        ),
    )
)
add_kind(
    Kind(
        "labels",
        AnnuliKeys,
        trainer="classification",
        models={
            "resnet": (*FIELD, "activation", "blocks", "augment"),
            "rknet": (*FIELD, "activation", "augment", "gradient"),
            "odenet": (*FIELD, "activation", "augment", "gradient"),
        },
        objectives=CLASSIFICATION,
        trainer_keys=("label_smoothing",),
        data=readable.of_labels,
        memory=memory.of_labels,
        epoch=lambda c: c.dataset.train // c.trainer.batch_size if isinstance(c.dataset, AnnuliKeys) else None,
        gaps=(PRECISE, ONE_STATE_OF_ALL_ROWS, KNOWN, IN_PAIRS),
        unfit={"stem": "is made of convolutions"},
    )
)
add_kind(
    Kind(
        "dynamics",
        DynamicsKeys,
        trainer="dynamics",
        models={
            "resnet": (*FIELD, "activation"),
            "rknet": (*FIELD, *HYBRID, "activation", "order", "gradient"),
            "odenet": (*FIELD, *HYBRID, "activation", "order", "gradient"),
        },
        objectives=("dynamics/validation_error", "dynamics/field_error", "dynamics/eigenvalue_error", "loss/train"),
        trainer_keys=("shooting", "window", "collocation", "curvature", "replicas"),
        data=readable.of_dynamics,
        memory=memory.of_dynamics,
        gaps=(
            PRECISE,
            Gap(
                lambda c: (
                    c.model.name == "resnet" and isinstance(c.dataset, DynamicsKeys) and c.dataset.sampling == "random"
                ),
                "model=resnet",
                "maps one time of a regular grid to the next",
                "dataset.sampling=random",
                "pick dataset.sampling=regular or model=odenet",
            ),
            Gap(
                lambda c: c.model.name == "resnet" and isinstance(c.dataset, CsvKeys),
                "model=resnet",
                "maps one time of a regular grid to the next",
                "dataset=csv, which may have any times",
                "pick model=odenet or model=rknet",
            ),
            Gap(
                lambda c: c.model.name == "resnet" and c.model.field == "hybrid",
                "model=resnet",
                "has no field dz/dt that could be known",
                "model.field=hybrid",
                "pick model=odenet",
            ),
            IN_PAIRS,
            Gap(
                lambda c: c.model.order == 2 and (readable.dimension(c) or 0) % 2 == 1,
                "model.order=2",
                "has as many velocities as positions",
                "dataset={c.dataset.name} of an odd number of dimensions",
                "pick model.order=1",
            ),
            Gap(
                lambda c: c.model.order == 2 and (c.model.name == "resnet" or c.model.field == "hamiltonian"),
                "model.order=2",
                "is for fields whose first half is free to be the velocity",
                "model={c.model.name} with model.field={c.model.field}",
                "pick model=odenet model.field=mlp",
            ),
            Gap(
                lambda c: (
                    c.model.order == 2
                    and isinstance(c.dataset, CsvKeys)
                    and (c.dataset.log != "false" or c.dataset.delays != 0)
                ),
                "model.order=2",
                "is for columns as they are, half of them positions",
                "dataset.log={c.dataset.log} dataset.delays={c.dataset.delays}",
                "pick dataset.log=false dataset.delays=0",
            ),
            Gap(
                lambda c: c.model.augment > 0,
                "model.augment",
                "adds dimensions that nothing is known of, and all of the states are measured",
                "dataset={c.dataset.name}",
                "pick model.augment=0",
            ),
            Gap(
                lambda c: c.model.name == "resnet" and has_inputs(c),
                "model=resnet",
                "is for data without inputs",
                "inputs",
                "pick model=odenet or dataset.input=none",
            ),
            Gap(
                lambda c: (
                    (has_inputs(c) or c.model.field == "hybrid")
                    and any((c.trainer.kinetic, c.trainer.jacobian, c.trainer.taylor))
                ),
                "trainer.kinetic, jacobian and taylor",
                "are for fields of t and z that are networks alone",
                "dataset={c.dataset.name} with inputs, or model.field=hybrid",
                "leave them out",
            ),
            Gap(
                lambda c: has_inputs(c) and c.solver.compile,
                "solver.compile",
                "is for fields without inputs, whose pieces are found by their times on the host",
                "dataset={c.dataset.name} with inputs",
                "pick solver.compile=false or dataset.input=none",
            ),
            Gap(
                lambda c: has_inputs(c) and c.solver.engine == "torchdiffeq",
                "solver.engine=torchdiffeq",
                "steps over the times at which inputs change",
                "dataset={c.dataset.name} with inputs",
                "pick a solver of the native engine or dataset.input=none",
            ),
            Gap(
                lambda c: isinstance(c.dataset, CsvKeys) and c.trainer.shooting == "single",
                "trainer.shooting=single",
                "solves all trajectories at the same times",
                "dataset=csv, where each has its own",
                "pick trainer.shooting=multiple",
            ),
        ),
    )
)
add_kind(
    Kind(
        "densities",
        DensitiesKeys,
        trainer="density",
        models={
            "rknet": (*FIELD, "features", "gradient", "trace", "noise"),
            "odenet": (*FIELD, "features", "gradient", "trace", "noise"),
            "planar": ("layers",),
        },
        trainer_keys=("loss", "matching_steps", "pairing"),
        # density/kl was the tag of validation, and stands in runs of before.
        objectives=(
            "loss/validation",
            "density/validation_nll",
            "density/validation_kl",
            "density/kl",
            "loss/train",
        ),
        data=readable.of_densities,
        memory=memory.of_densities,
        gaps=(
            PRECISE,
            ONE_STATE_OF_ALL_ROWS,
            Gap(
                lambda c: c.model.name == "planar" and c.trainer.loss != "likelihood",
                "trainer.loss={c.trainer.loss}",
                "fits a field",
                "model=planar, which has none",
                "pick trainer.loss=likelihood or model=odenet",
            ),
            Gap(
                lambda c: (
                    c.trainer.loss == "flow-matching+likelihood"
                    and c.trainer.matching_steps >= (c.trainer.max_steps or math.inf)
                ),
                "trainer.matching_steps",
                "must leave steps for the likelihood",
                "{c.trainer.matching_steps} of trainer.max_steps={c.trainer.max_steps}",
                "lower it or pick trainer.loss=flow-matching",
            ),
            Gap(
                lambda c: c.model.field == "hamiltonian",
                "model.field=hamiltonian",
                "keeps volumes, and a density has to change",
                "dataset={c.dataset.name}",
                "pick model.field=mlp",
            ),
            KNOWN,
            Gap(
                lambda c: c.model.augment > 0,
                "model.augment",
                "has no density, as the flow would not be a map of the points alone",
                "dataset={c.dataset.name}",
                "pick model.augment=0",
            ),
        ),
        unfit={"resnet": "has no density, its blocks need not be invertible"},
    )
)
