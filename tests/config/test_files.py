"""The files in conf/: each option composes and validates, and YAML and schema have the same keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from neuralode_exp.config import solver_arguments
from neuralode_exp.config.kinds import KINDS, model_names, trainer_names
from neuralode_exp.config.options import OF_DATA
from neuralode_exp.config.preflight import CONF, preflight
from neuralode_exp.config.schema import DATASETS, Model, Solver, Top, Trainer
from neuralode_exp.ode.solvers import SOLVERS
from neuralode_exp.registry import of_package

FILES = sorted(CONF.rglob("*.yaml"))
NEEDS_A_PATH = ("csv", "images", "points")
NEEDS_AN_EXTRA = ("search-dynamics", "chaos")  # tests/sweep/test_search.py, tests/data/test_dysts.py
NEEDS_A_FILE_OF_CODE = ("system", "density")  # tests/test_own_code.py


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text("trajectory,t,z1\na,0,1\na,1,2\n")
    return path


@pytest.mark.parametrize("name", [name for name in options("dataset") if name not in NEEDS_A_FILE_OF_CODE])
def test_every_dataset_validates_with_its_trainer(name: str, data_file: Path, compose) -> None:
    words = [f"dataset.path={data_file}"] if name in NEEDS_A_PATH else []
    config = compose(f"dataset={name}", *words)
    assert config.dataset.name == name
    assert config.trainer.name == KINDS[config.dataset.kind].trainer
    assert solver_arguments(config.solver)["atol"] == config.solver.rtol == config.dataset.tolerance
    assert config.solver.step_size == config.dataset.step_size


@pytest.mark.parametrize("name", options("model"))
def test_every_model_validates(name: str, compose) -> None:
    assert compose(f"model={name}", "dataset=mnist").model.name == name


@pytest.mark.parametrize("name", options("solver"))
def test_every_solver_validates(name: str, compose) -> None:
    assert compose(f"solver={name}").solver.name == name


@pytest.mark.parametrize("name", options("trainer"))
def test_the_trainer_can_be_chosen_on_the_command_line(name: str, compose) -> None:
    words = {
        "classification": "mnist",
        "dynamics": "circle",
        "measured": "circle",
        "density": "torus",
        "labels": "annuli",
    }
    trainer = compose(f"dataset={words[name]}", f"trainer={name}").trainer.name
    assert trainer == {"measured": "dynamics", "labels": "classification"}.get(name, name)


@pytest.mark.parametrize("name", [name for name in options("experiment") if name not in NEEDS_AN_EXTRA])
def test_every_experiment_validates_in_every_cell(name: str) -> None:
    answer = preflight(["-m", f"experiment={name}", "check=true"]).answer
    assert answer is not None
    assert answer.startswith("ok: ")


def test_the_groups_list_what_the_code_has() -> None:
    assert options("solver") == sorted(SOLVERS)
    assert options("model") == sorted(model_names())
    assert set(trainer_names()) <= set(options("trainer"))
    assert set(DATASETS) <= set(options("dataset"))


def test_a_file_has_the_defaults_of_its_signature() -> None:
    for kind, _ in OF_DATA.values():
        for entry in of_package(kind):
            values = yaml.safe_load((CONF / "dataset" / f"{entry.name}.yaml").read_text())
            of_signature = {key: option.default for key, option in entry.options.items()}
            assert json.dumps({key: values.get(key) for key in of_signature}) == json.dumps(of_signature), entry.name


def test_config_yaml_has_every_key_with_its_default() -> None:
    values = yaml.safe_load((CONF / "config.yaml").read_text())
    for section, schema in {"model": Model, "solver": Solver, "trainer": Trainer}.items():
        assert values[section].keys() == schema.model_fields.keys() - {"name"}
    assert values.keys() - {"defaults", "hydra", "model", "solver", "trainer"} == Top.model_fields.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_a_file_names_no_class_and_a_group_file_is_short(path: Path) -> None:
    text = path.read_text()
    if path.relative_to(CONF).parts[0] != "hydra":
        assert "_target_" not in text
    if path.relative_to(CONF).parts[0] in ("dataset", "model", "solver", "trainer"):
        content = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert len(content) <= 22


@pytest.mark.parametrize("name", options("experiment"))
def test_an_experiment_opens_with_its_command(name: str) -> None:
    lines = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith("# python train.py ")
    assert f"experiment={name}" in lines[1]
