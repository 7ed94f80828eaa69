"""A run's identity: what changes it, what does not, and that Hydra names the folders of a grid by it."""

from __future__ import annotations

import re

import pytest

from neuralode_exp.config import identity, identity_differences, validate


def reversed_keys(values: object) -> object:
    if isinstance(values, dict):
        return {key: reversed_keys(values[key]) for key in reversed(values)}
    return values


def test_it_is_twelve_hexadecimal_digits(compose) -> None:
    assert re.fullmatch("[0-9a-f]{12}", identity(compose()))


def test_the_order_of_keys_does_not_matter(compose) -> None:
    config = compose()
    assert identity(validate(reversed_keys(config.model_dump()))) == identity(config)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("solver.rtol=1e-3", "solver.rtol=0.001"),
        ("solver.rtol=1e-3", "solver.rtol='1e-3'"),
        ("trainer.clip=1", "trainer.clip=1.0"),
        ("trainer.max_steps=1e3", "trainer.max_steps=1000"),
        ("dataset.matrix=[[0,1],[1,0]]", "dataset.matrix=[[0.0,1.0],[1.0,0.0]]"),
        ("solver.rtol=1e-4", "dataset.noise=0.01"),  # the defaults, written out
    ],
)
def test_the_spelling_of_a_number_does_not_matter(one: str, other: str, compose) -> None:
    assert compose(one) == compose(other)
    assert identity(compose(one)) == identity(compose(other))


@pytest.mark.parametrize(
    ("cell", "word"),
    [
        *(
            ("seed=0", word)
            for word in (
                "device=cpu",
                "threads=1",
                "check=true",
                "log_every=7",
                "figures=false",
                "trainer.checkpoint_every=7",
                "hydra.run.dir=x",
                "hydra.verbose=true",
                "model.hidden=7",
                "model.trace=hutchinson",
                "trainer.label_smoothing=0.1",
                "trainer.momentum=0.1",  # adam
                "trainer.rise=0.1",  # cosine
            )
        ),
        ("dataset=torus", "model.noise=gaussian"),  # the trace is exact
        ("dataset=mnist", "dataset.root=elsewhere"),
        ("dataset=mnist", "trainer.window=7"),
        ("solver=dopri5", "solver.step_size=0.01"),
        ("solver=dopri5", "dataset.step_size=0.01"),
        ("solver=rk4", "solver.rtol=0.01"),
        ("solver=rk4", "dataset.tolerance=0.01"),
        ("model=resnet", "solver=rk4"),
        ("model=resnet", "solver.rtol=0.01"),
        ("model=resnet", "model.gradient=checkpoint"),
        ("solver.rtol=1e-3", "solver.atol=1e-3"),  # what null stands for
        ("solver=dopri5", "solver.max_step=null"),
        ("solver=dopri5", "solver.compile=false"),
        ("model=resnet", "solver.compile=true"),
        ("solver=rk4", "solver.max_step=0.1"),
        ("solver=rk4", "solver.first_step=previous"),
    ],
)
def test_what_cannot_change_the_result_does_not_change_it(cell: str, word: str, compose) -> None:
    assert identity(compose(cell, word)) == identity(compose(cell))
    assert not identity_differences(compose(cell, word), compose(cell))


@pytest.mark.parametrize(
    ("cell", "word", "keys"),
    [
        ("seed=0", "seed=1", ["seed"]),
        ("seed=0", "precision=float64", ["precision"]),
        ("seed=0", "model.width=32", ["model.width"]),
        ("seed=0", "model.gradient=checkpoint", ["model.gradient"]),
        ("seed=0", "dataset.seed=1", ["dataset.seed"]),
        ("seed=0", "solver.max_steps=7", ["solver.max_steps"]),
        ("seed=0", "trainer.window=7", ["trainer.window"]),
        ("solver=dopri5", "dataset.tolerance=0.01", ["solver.atol", "solver.rtol"]),
        ("solver=dopri5", "solver.atol=0.01", ["solver.atol"]),
        ("solver=dopri5", "solver.max_step=0.1", ["solver.max_step"]),
        ("solver=dopri5", "solver.first_step=previous", ["solver.first_step"]),
        ("solver=rk4", "solver.compile=true", ["solver.compile"]),
        ("solver=rk4", "solver.step_size=0.01", ["solver.step_size"]),
        ("solver=rk4", "solver.engine=torchdiffeq", ["solver.engine"]),
        ("dataset=torus", "model.trace=hutchinson", ["model.noise", "model.trace"]),
        ("trainer.optimizer=sgd", "trainer.momentum=0.1", ["trainer.momentum"]),
        ("model=resnet", "dataset.noise=0.02", ["dataset.noise"]),
    ],
)
def test_what_can_change_the_result_changes_it(cell: str, word: str, keys: list[str], compose) -> None:
    one, other = compose(cell), compose(cell, word)
    assert identity(one) != identity(other)
    assert list(identity_differences(one, other)) == keys


def test_differences_hold_both_values_and_keys_that_one_side_does_not_read(compose) -> None:
    differences = identity_differences(compose("solver=dopri5"), compose("solver=rk4", "solver.step_size=0.5"))
    assert differences["solver.name"] == ("dopri5", "rk4")
    assert differences["solver.step_size"] == (None, 0.5)


def test_a_dumped_config_is_the_same_config(compose) -> None:
    config = compose("dataset=van-der-pol", "dataset.mu=3", "dataset.low=[-1,-2]")
    assert validate(config.model_dump()) == config
    assert validate(config.model_dump(mode="json")) == config
