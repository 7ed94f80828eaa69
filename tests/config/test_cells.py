"""Which cells of model x dataset x solver can be run, and that the solvers are those of the core."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Literal

import pytest

from neuralode_exp.config import Config, ConfigError, solver_arguments, validate, without_meaning
from neuralode_exp.config.identity import with_effect
from neuralode_exp.config.kinds import KINDS, Kind, add_kind
from neuralode_exp.config.options import OF_DATA
from neuralode_exp.config.schema import DATASETS, Dataset
from neuralode_exp.ode import make_method
from neuralode_exp.ode.solvers import SOLVERS
from neuralode_exp.registry import of_package

MODELS = ("mlp", "stem", "resnet", "planar", "rknet", "odenet")
ODE_MODELS = ("rknet", "odenet")
REGISTERED = [entry.name for kind, _ in OF_DATA.values() for entry in of_package(kind)]
NAMES = ("mnist", *REGISTERED, *(name for name in DATASETS if name not in ("system", "density")))  # of the package
DRIVEN = ("duffing", "two-tanks")  # by inputs
NATIVE = [name for name, solver in SOLVERS.items() if "native" in solver.engines]
SCIPY = ("lsoda", "radau", "bdf")


@pytest.fixture(scope="module")
def cell(compose: Callable[..., Config]) -> Callable[[str, str, str], Config]:
    """A cell put together from one config for each dataset, model and solver: composing all of them takes minutes."""
    path = {name: ["dataset.path=x"] for name in ("images", "csv", "points")}
    datasets = {name: compose(f"dataset={name}", *path.get(name, [])).model_dump() for name in NAMES}
    models = {name: compose(f"model={name}").model_dump()["model"] for name in MODELS}
    solvers = {name: compose(f"solver={name}").model_dump()["solver"] for name in SOLVERS}

    def cell(model: str, dataset: str, solver: str) -> Config:
        return validate({**datasets[dataset], "model": models[model], "solver": solvers[solver]})

    return cell


def test_every_cell_has_a_meaning_or_one_line_that_says_what_to_pick(cell) -> None:
    for names in itertools.product(MODELS, NAMES, SOLVERS):
        model, _, solver = names
        config = cell(*names)
        kind, why = config.dataset.kind, without_meaning(config)
        runs = {
            "images": model != "planar" and (model not in ODE_MODELS or solver not in SCIPY),
            "labels": model == "resnet" or (model in ODE_MODELS and solver not in SCIPY),
            "dynamics": (model in ODE_MODELS or (model == "resnet" and names[1] not in ("csv", *DRIVEN)))
            and (names[1] not in DRIVEN or solver in NATIVE),
            "densities": model == "planar" or (model in ODE_MODELS and solver not in SCIPY),
        }[kind] and not (model == "rknet" and solver in SCIPY)
        assert (why is None) == runs, names
        if why is not None:
            assert "\n" not in str(why)
            assert "; pick " in str(why)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["dataset=mnist", "solver=lsoda"],
            "solver=lsoda solves all rows of a batch as one state, and the Jacobian of that state is too large, "
            "got dataset=mnist; pick solver=dopri5",
        ),
        (
            ["dataset=csv", "dataset.path=x", "trainer.shooting=single"],
            "trainer.shooting=single solves all trajectories at the same times, got dataset=csv, where each has its "
            "own; pick trainer.shooting=multiple",
        ),
        (["model=mlp"], "model=mlp is for images, got dataset=spiral-stable-focus; pick model=odenet or model=rknet"),
        (
            ["model=resnet", "dataset=torus"],
            "model=resnet has no density: its blocks need not be invertible, got dataset=torus; "
            "pick model=odenet or model=rknet",
        ),
        (
            ["model=resnet", "dataset.sampling=random"],
            "model=resnet maps one time of a regular grid to the next, got dataset.sampling=random; "
            "pick dataset.sampling=regular or model=odenet",
        ),
        (
            ["model=rknet", "model.gradient=checkpoint"],
            "model=rknet is the ODE block with model.gradient=backprop, got model.gradient=checkpoint; "
            "pick model=odenet",
        ),
        (
            ["model.gradient=backprop"],
            "model=odenet is the ODE block with model.gradient=adjoint, checkpoint or reversible, got "
            "model.gradient=backprop; pick model=rknet",
        ),
        (
            ["solver=tsit5", "solver.engine=torchdiffeq"],
            "solver=tsit5 is not in this engine, got solver.engine=torchdiffeq; pick the other engine or solver=dopri5",
        ),
        (
            ["solver=lsoda", "solver.engine=native"],
            "solver=lsoda is not in this engine, got solver.engine=native; pick the other engine or solver=dopri5",
        ),
        (
            ["solver=radau", "model.gradient=checkpoint"],
            "solver=radau gives gradients through the adjoint only, got model=odenet with model.gradient=checkpoint; "
            "pick model=odenet model.gradient=adjoint or solver=dopri5",
        ),
        (
            ["solver.engine=torchdiffeq", "model.gradient=checkpoint"],
            "solver.engine=torchdiffeq differentiates by backprop and adjoint only, got model.gradient=checkpoint; "
            "pick solver.engine=native with a solver of its own, or model.gradient=adjoint",
        ),
        (
            ["solver.engine=torchdiffeq", "solver.max_step=0.1"],
            "solver.max_step limits the steps of the native engine, got solver.engine=torchdiffeq; "
            "pick solver.engine=native or solver.max_step=null",
        ),
        (
            ["solver.engine=torchdiffeq", "solver.compile=true"],
            "solver.compile=true compiles the steps of the native engine, got solver.engine=torchdiffeq; "
            "pick solver.engine=native or solver.compile=false",
        ),
        (
            ["solver.engine=torchdiffeq", "solver.first_step=previous"],
            "solver.first_step=previous is available in the native engine only, got solver.engine=torchdiffeq; "
            "pick solver.engine=native or solver.first_step=null",
        ),
    ],
)
def test_a_cell_without_meaning_says_why(words: list[str], line: str, compose) -> None:
    assert str(without_meaning(compose(*words))) == line


def test_models_that_solve_nothing_run_under_any_solver(compose) -> None:
    assert without_meaning(compose("model=resnet", "solver=lsoda", "solver.engine=native")) is None


class Sounds(Dataset):
    kind: Literal["sounds"]
    pitch: float


@pytest.fixture
def sounds() -> Iterator[None]:
    models = {"odenet": ("width", "gradient"), "resnet": ("width",)}
    add_kind(Kind("sounds", Sounds, "hearing", models, objectives=("loss/train",)))
    yield
    del KINDS["sounds"]


@pytest.mark.usefixtures("sounds")
def test_a_kind_of_data_is_added_by_its_row(compose) -> None:
    values = compose().model_dump()
    general = {key: values["dataset"][key] for key in ("tolerance", "step_size", "first_step")}
    values["dataset"] = {"name": "bells", "kind": "sounds", "pitch": 440.0, **general}
    with pytest.raises(ConfigError, match="trainer must be hearing for dataset=bells, got dynamics"):
        validate(values)
    values["trainer"]["name"] = "hearing"
    config = validate(values)
    assert without_meaning(config) is None
    read = with_effect(config)
    assert read["dataset.pitch"] == 440.0
    assert {key for key in read if key.startswith("model.")} == {"model.name", "model.width", "model.gradient"}
    assert not {"trainer.window", "trainer.label_smoothing"} & read.keys()
    with pytest.raises(ConfigError, match="objective must be a tag of trainer=hearing, not on test data"):
        validate({**values, "objective": "density/kl"})
    values["model"]["name"] = "rknet"
    assert str(without_meaning(validate(values))) == (
        "model=rknet is for images, labels, dynamics and densities, got dataset=bells; pick model=odenet"
    )


@pytest.mark.parametrize("name", SOLVERS)
def test_make_method_takes_the_arguments_of_every_solver(name: str, compose) -> None:
    for engine in SOLVERS[name].engines:
        words = [f"solver={name}", f"solver.engine={engine}", "solver.first_step=0.01", "solver.min_step=1e-9"]
        words += ["solver.max_step=0.5"] if engine == "native" else []
        arguments = solver_arguments(compose(*words).solver)
        method = make_method(**arguments)
        read = {key: value for key, value in arguments.items() if hasattr(method, key)}
        assert {key: getattr(method, key) for key in read if key not in ("name", "engine")} == {
            key: value for key, value in read.items() if key not in ("name", "engine")
        }
