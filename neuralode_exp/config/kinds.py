"""One row for each kind of data: the models that fit, the keys they read, the trainer and the objectives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from neuralode_exp.config import gaps, image_files, memory, readable
from neuralode_exp.config.errors import Mistake
from neuralode_exp.config.options import own_keys
from neuralode_exp.config.schema import (
    DATASETS,
    ODE_MODELS,
    AnnuliKeys,
    Config,
    Dataset,
    DensitiesKeys,
    DynamicsKeys,
    ImagesKeys,
)

FIELD = ("field", "options", "width", "depth")
HYBRID = ("system", "free", "residual")


@dataclass(frozen=True)
class Kind:
    """A kind of data and its task.

    Args:
        name: the `kind` of its datasets.
        dataset: keys of a dataset of this kind that has no keys of its own.
        trainer: the trainer that its datasets pick.
        models: the models that fit, each with the keys of `model` that it reads.
        unfit: other models, each with the reason why it does not fit.
        trainer_keys: keys of `trainer` that no other trainer reads.
        objectives: tags that may be minimised, beside those that every run records. No tag of test data is among
            them, because nothing may be chosen by test data.
        gaps: yields why a cell has no meaning, for reasons that hold only for this kind.
        data: yields the mistakes in the files and numbers that define the data.
        memory: estimates the bytes that a run takes.
        epoch: returns the training steps in one pass over the data, or None if the data must be read first.
    """

    name: str
    dataset: type[Dataset]
    trainer: str
    models: Mapping[str, tuple[str, ...]]
    objectives: tuple[str, ...]
    trainer_keys: tuple[str, ...] = ()
    unfit: Mapping[str, str] = field(default_factory=dict)
    gaps: Callable[[Config], Iterator[Mistake]] = lambda config: iter(())
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
    """Return the class of a dataset, or `Dataset` if neither name nor kind is known."""
    if str(name) in DATASETS:
        return DATASETS[str(name)]
    return own_keys(str(name), str(kind)) or (KINDS[str(kind)].dataset if str(kind) in KINDS else Dataset)


def unfit(config: Config) -> Mistake | None:
    """Return why the model does not fit the data and which model does, or None if it fits."""
    model, kind = config.model.name, KINDS[config.dataset.kind]
    if model in kind.models:
        return None
    *some, last = [other.name for other in KINDS.values() if model in other.models]
    why = kind.unfit.get(model) or f"is for {' and '.join([*([', '.join(some)] if some else []), last])}"
    instead = " or ".join(f"model={name}" for name in ODE_MODELS if name in kind.models)
    return Mistake(f"model={model}", why, f"dataset={config.dataset.name}", f"pick {instead}")


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
        gaps=gaps.of_images,
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
        gaps=gaps.of_labels,
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
        gaps=gaps.of_dynamics,
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
        # Earlier versions recorded the validation value as density/kl, so stored configs may name it.
        objectives=(
            "loss/validation",
            "density/validation_nll",
            "density/validation_kl",
            "density/kl",
            "loss/train",
        ),
        data=readable.of_densities,
        memory=memory.of_densities,
        gaps=gaps.of_densities,
        unfit={"resnet": "has no density: its blocks need not be invertible"},
    )
)
