"""The typed config: the keys of `conf/`, their types and their ranges.

The defaults are in `conf/`, not here. A key that is not here is refused, so that YAML and schema always have the same
keys. Every model has all keys of `model`, and likewise for `solver` and `trainer`, so that one command can sweep over
all of them. The keys of `dataset` differ between datasets.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationInfo, field_validator

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Vector = Annotated[tuple[float, ...], Field(min_length=1)]


def _word(value: object) -> object:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _words(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return tuple(_word(item) for item in value)
    return (_word(value),) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else value


# Columns of a table, each by its name or its number from 1. A single value counts as a list of one.
Column = Annotated[str, BeforeValidator(_word)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Columns = Annotated[Words, Field(min_length=1)]


ODE_MODELS = ("odenet", "rknet")
TRAINING_IMAGES = 60_000  # in MNIST and in Fashion-MNIST
Reading = Literal["hold", "linear", "cubic", "none"]


class Section(BaseModel):
    """A section of a config. It cannot be changed, and it refuses unknown keys, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_1(cls, value: object, info: ValidationInfo) -> object:
        is_flag = cls.model_fields[str(info.field_name)].annotation is bool
        return str(value).lower() if isinstance(value, bool) and not is_flag else value


class Dataset(Section):
    """The keys of every dataset. `tolerance`, `step_size` and `first_step` are defaults for keys of the solver."""

    OWN_USE: ClassVar = frozenset({"name", "kind", "tolerance", "step_size", "first_step"})

    name: str
    kind: str
    tolerance: Positive
    step_size: Positive
    first_step: Positive | Literal["previous"] | None

    def arguments(self) -> dict[str, Any]:
        """Return the keys that go to the dataset's constructor."""
        return self.model_dump(exclude=set(self.OWN_USE))


class AnyImagesKeys(Dataset):
    """Images, and how the training images are augmented."""

    kind: Literal["images"]
    train: Count | None
    shift: Annotated[int, Field(ge=0, le=14)]
    rotate: Annotated[float, Field(ge=0, le=180)]
    stretch: Annotated[float, Field(ge=0, le=1)]


class ImagesKeys(AnyImagesKeys):
    root: str
    validation: Annotated[int, Field(ge=0, lt=TRAINING_IMAGES)]
    test: Annotated[int, Field(ge=1, le=10_000)]


class OwnImagesKeys(AnyImagesKeys):
    """The user's own images. `validation` is the fraction of training images that is held out."""

    path: str
    validation: Fraction


class AnnuliKeys(Dataset):
    """Labelled points of `neuralode_exp.data.annuli.annuli`."""

    kind: Literal["labels"]
    dim: Count
    r1: Positive
    r2: Positive
    r3: Positive
    seed: CountOrZero
    train: Count
    validation: CountOrZero
    test: Count


class DynamicsKeys(Dataset):
    """Trajectories of a known system dz/dt = f(t, z). A subclass has the constants of its system as fields."""

    kind: Literal["dynamics"]
    seed: CountOrZero
    trajectories: Count
    points: Annotated[int, Field(ge=2)]
    t_max: Positive | None
    noise: NonNegative
    sampling: Literal["regular", "random"]
    low: float | Vector | None
    high: float | Vector | None
    validation: CountOrZero
    test: Count
    test_horizon: Annotated[float, Field(ge=1)]
    input: Reading


class SystemKeys(DynamicsKeys):
    """A system that the user registered. `options` are its keyword arguments."""

    system: str
    options: dict[str, Any]


class CsvKeys(Dataset):
    """Measured trajectories in a table, see `neuralode_exp.data.csv_trajectories.read_trajectories`."""

    kind: Literal["dynamics"]
    path: str
    time: Column | None
    states: Columns | None
    trajectory: Columns | None
    inputs: Words
    input: Reading
    step: Positive | None
    missing: Words
    repeats: Literal["refuse", "mean"]
    units: Literal["spread", "file"]
    log: Literal["auto", "true", "false"]
    delays: CountOrZero | Literal["auto"]
    hold_out: Literal["auto", "trajectories", "ends", "both"]
    forecast: Count | None
    seed: CountOrZero
    validation: Fraction


class DensitiesKeys(Dataset):
    """Samples of a known density. A subclass has the scales of its density as fields."""

    kind: Literal["densities"]
    seed: CountOrZero
    validation: CountOrZero
    test: Count


class DensityKeys(DensitiesKeys):
    """A density that the user registered. `options` are its keyword arguments."""

    density: str
    options: dict[str, Any]


class PointsKeys(Dataset):
    """The user's own points. `validation` is the fraction of rows that is held out."""

    kind: Literal["densities"]
    path: str
    columns: Columns | None
    seed: CountOrZero
    validation: Fraction


# Datasets with keys of their own. For registered systems and densities the keys follow from the signature. Any other
# dataset has only the keys of its kind.
DATASETS: dict[str, type[Dataset]] = {
    "images": OwnImagesKeys,
    "annuli": AnnuliKeys,
    "system": SystemKeys,
    "csv": CsvKeys,
    "density": DensityKeys,
    "points": PointsKeys,
}


class Model(Section):
    name: str
    gradient: Literal["backprop", "checkpoint", "adjoint", "reversible"]
    channels: Count
    blocks: Count
    hidden: Count
    field: str
    options: dict[str, Any]
    system: str | None
    free: Words
    residual: bool
    order: Annotated[int, Field(ge=1, le=2)]
    augment: CountOrZero
    width: Count
    depth: Count | None
    activation: Literal["tanh", "softplus", "silu"] | None
    features: Literal["none", "fourier"]
    layers: Count
    trace: Literal["exact", "hutchinson"]
    noise: Literal["rademacher", "gaussian"]


class Solver(Section):
    name: str
    engine: Literal["native", "torchdiffeq"]
    rtol: Positive
    atol: Positive | None
    step_size: Positive
    max_steps: Count
    first_step: Positive | Literal["previous"] | None
    min_step: NonNegative | None
    max_step: Positive | None
    compile: bool
    coupling: Annotated[float, Field(gt=0, le=1)]
    stored_states: CountOrZero | None


class Trainer(Section):
    name: str
    epochs: Count | None
    max_steps: Count | None
    batch_size: Count
    lr: Positive
    optimizer: Literal["sgd", "adam", "adamw"]
    momentum: Fraction
    weight_decay: NonNegative
    schedule: Literal["constant", "cosine", "one-cycle"]
    rise: Fraction
    clip: Positive | None
    label_smoothing: Fraction
    average: Fraction | None
    loss: Literal["likelihood", "flow-matching", "flow-matching+likelihood"]
    matching_steps: Count
    pairing: Literal["independent", "optimal"]
    kinetic: NonNegative
    jacobian: NonNegative
    taylor: NonNegative
    steer: Annotated[float, Field(ge=0, lt=1)]
    error: NonNegative
    error_at: Literal["sum", "sample"]
    shooting: Literal["multiple", "single"]
    window: Count | None
    collocation: CountOrZero
    curvature: NonNegative | None
    replicas: Count
    on_solver_failure: Literal["skip", "raise"]
    max_failures: Count
    patience: Count | None
    evaluate_every: Count | None
    checkpoint_every: Count | None


class Top(Section):
    """The keys outside of all sections."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:\d+|mps)$")]
    threads: Count | None
    precision: Literal["float32", "float64", "bf16"]
    objective: str | None
    check: bool
    resume: str | None
    weights: str | None
    extensions: tuple[str, ...]
    log_every: Count | None
    figures: bool


class Config(Top):
    """The config of one run. `neuralode_exp.config.validate` makes it from a mapping."""

    dataset: SerializeAsAny[Dataset]  # dumped with the keys of its own class
    model: Model
    solver: Solver
    trainer: Trainer

    @property
    def solves_ode(self) -> bool:
        """Whether the model solves an ODE. Other models read no key of the solver."""
        return self.model.name in ODE_MODELS
