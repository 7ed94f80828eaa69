"""Mistakes in a config: all at once, each with key, rule, got and fix."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from neuralode_exp.config import ConfigError, validate
from neuralode_exp.config.later import NEUTRAL, OF_KIND
from neuralode_exp.registry import of_package


@pytest.fixture
def values(compose) -> dict[str, Any]:
    """The default config as plain values."""
    return compose().model_dump(mode="json")


def lines(values: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(values)
    return str(caught.value).splitlines()


def test_all_mistakes_come_at_once(values) -> None:
    values |= {"seed": -1, "sed": 0}
    values["trainer"] |= {"lr": 0, "lrr": 1, "epochs": None, "max_steps": None}
    values["model"]["field"] = "lineer"
    del values["solver"]["rtol"]
    values["dataset"]["noise"] = "much"
    fields = ", ".join(entry.name for entry in of_package("field"))
    assert lines(values) == [
        "seed must be at least 0, got -1",
        "sed is not a key; did you mean seed?",
        "dataset.noise must be a number, got much",
        f"model.field must be one of {fields}, got lineer; did you mean linear?",
        "solver.rtol must be given; add solver.rtol=VALUE",
        "trainer.lr must be above 0, got 0",
        "trainer.lrr is not a key; did you mean trainer.lr?",
    ]


def test_a_key_of_another_dataset_is_none_of_this_one(values) -> None:
    values["dataset"]["mu"] = 1.0
    [line] = lines(values)
    assert line.startswith("dataset.mu is not a key; ")


@pytest.mark.parametrize("section", ["dataset", "model", "solver", "trainer"])
def test_a_section_must_be_there(section: str, values) -> None:
    values[section] = None
    assert f"{section} must be a group of keys, got null" in lines(values)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), "nan", True, [1.0], None])
def test_a_number_is_finite_and_no_flag(wrong: object, values) -> None:
    values["trainer"]["lr"] = wrong
    [line] = lines(values)
    assert line.startswith("trainer.lr must be ")


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (-1, "solver.first_step must be above 0 or previous or null, got -1"),
        ("last", "solver.first_step must be a number or previous or null, got last"),
    ],
)
def test_a_number_that_may_be_a_word_is_explained_with_it(wrong: object, line: str, values) -> None:
    values["solver"]["first_step"] = wrong
    assert lines(values) == [line]


@pytest.mark.parametrize(
    ("key", "wrong", "line"),
    [
        (
            "dataset.kind",
            "imges",
            "must be one of images, labels, dynamics, densities, got imges; did you mean images?",
        ),
        (
            "model.name",
            "resnett",
            "must be one of mlp, stem, resnet, rknet, odenet, planar, got resnett; did you mean resnet?",
        ),
        (
            "trainer.name",
            "dens",
            "must be one of classification, dynamics, density, got dens; did you mean density?",
        ),
        ("model.activation", "relu", "must be one of tanh, softplus, silu, null, got relu"),
    ],
)
def test_a_name_is_one_of_those_that_there_are(key: str, wrong: str, line: str, values) -> None:
    section, name = key.split(".")
    values[section][name] = wrong
    assert f"{key} {line}" in lines(values)


@pytest.mark.parametrize("key", NEUTRAL)
def test_a_key_that_came_later_may_be_missing_in_what_is_stored(key: str, values, compose) -> None:
    if kind := OF_KIND.get(key):
        words = {"images": ["dataset=mnist"], "dynamics": ["dataset=circle"]}.get(
            kind, [f"dataset={kind}", "dataset.path=x"]
        )
        values = compose(*words).model_dump(mode="json")
    section, _, name = key.rpartition(".")
    del (values[section] if section else values)[name]
    config = validate(values)
    assert getattr(getattr(config, section) if section else config, name) == NEUTRAL[key]


def test_an_unknown_system_has_the_keys_of_all_systems(values) -> None:
    values["dataset"]["name"] = "swing"
    del values["dataset"]["matrix"]
    assert validate(values).dataset.name == "swing"


def test_a_config_cannot_be_changed(compose) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        compose().trainer.lr = 1.0


def test_an_error_survives_the_way_back_from_a_worker(values) -> None:
    values["seed"] = -1
    with pytest.raises(ConfigError) as caught:
        validate(values)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_arguments_are_what_a_constructor_takes(compose) -> None:
    dataset = compose("dataset=van-der-pol", "dataset.mu=3").dataset
    assert dataset.arguments()["mu"] == 3
    assert dataset.arguments().keys() & {"name", "kind", "tolerance", "step_size"} == set()
