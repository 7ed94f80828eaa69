"""Labels of runs: what stands in them, how long they get, and that Hydra names folders by them."""

from __future__ import annotations

import re
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from neuralode_exp.config import compose as composing
from neuralode_exp.config import folder_name, identity, label, validate
from neuralode_exp.config.compose import CONF
from neuralode_exp.config.hydra_internals import make_loader


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "odenet-spiral-stable-focus-dopri5"),
        ("model=odenet dataset=circle seed=1 trainer.lr=0.1", "odenet-circle-dopri5+lr-0.1+seed-1"),
        ("model=rknet dataset=torus", "rknet-torus-dopri5"),  # its gradient is its own, not a change
        ("model=mlp dataset=mnist solver=rk4", "mlp-mnist"),  # without a solver
        ("model.gradient=checkpoint", "odenet-spiral-stable-focus-dopri5+gradient-checkpoint"),
        ("solver.rtol=1e-3", "odenet-spiral-stable-focus-dopri5+rtol-0.001"),  # atol goes with it
        ("solver.atol=1e-3", "odenet-spiral-stable-focus-dopri5+atol-0.001"),
        ("dataset.tolerance=1e-3", "odenet-spiral-stable-focus-dopri5+rtol-0.001"),
        ("solver=rk4 solver.step_size=0.5 solver.rtol=1e-3", "odenet-spiral-stable-focus-rk4+step_size-0.5"),
        ("solver=explicit-adams", "odenet-spiral-stable-focus-explicit-adams"),  # its engine is its own
        # Of keys with the same last word each has its section.
        (
            "dataset=circle dataset.seed=1 solver.max_steps=9 trainer.max_steps=8",
            "odenet-circle-dopri5+dataset.seed-1+solver.max_steps-9+trainer.max_steps-8",
        ),
        ("dataset=circle dataset.matrix=[[0,1],[-1,0.5]]", "odenet-circle-dopri5+matrix-0_1_-1_0.5"),
        ("dataset=circle trainer.lr=1e30 objective=loss/train", "odenet-circle-dopri5+lr-1e30+objective-loss_train"),
        ("dataset=csv dataset.path='/a/b=c,d.csv'", "odenet-csv-dopri5+path-a_b_c_d.csv"),
        (
            "dataset=csv dataset.path=/a/long/way/to/the/file.csv",
            "odenet-csv-dopri5+path-long_way_to_the_file.csv",
        ),
        ("dataset=circle device=cpu figures=false threads=1", "odenet-circle-dopri5"),
    ],
)
def test_it_says_what_the_run_is_and_what_is_unusual(words: str, expected: str, compose) -> None:
    assert label(compose(*words.split())) == expected


def test_where_80_characters_do_not_suffice_words_are_cut_and_then_counted(compose) -> None:
    words = ["dataset=mnist", "model=mlp", "trainer.batch_size=32", "model.hidden=4", "trainer.evaluate_every=7"]
    words += ["dataset.validation=64", "trainer.lr=1e30", "seed=5"]
    assert label(compose(*words)) == "mlp-mnist+batch_size-32+evaluate_every-7+hidden-4+lr-1e30+validation-64+seed-5"
    words += ["trainer.clip=0.123456"]
    assert label(compose(*words)) == "mlp-mnist+bat_siz-32+cli-0.123456+eva_eve-7+hid-4+lr-1e30+val-64+seed-5"
    words += ["trainer.optimizer=adamw", "trainer.weight_decay=0.12345"]
    assert label(compose(*words)) == "mlp-mnist+bat_siz-32+cli-0.123456+eva_eve-7+hid-4+lr-1e30+3-more+seed-5"
    assert len(label(compose(*words))) <= 80


def test_a_label_needs_no_quotes_on_the_command_line(compose) -> None:
    name = folder_name(compose("dataset=circle", "dataset.low=[-1,-2]", "trainer.lr=1e-5", "objective=loss/train"))
    assert re.fullmatch("[A-Za-z0-9._+-]{1,89}", name)
    [word] = composing.Composer(make_loader(CONF)).parse([f"resume=outputs/{name}"], [])
    assert word.value() == f"outputs/{name}"


def test_hashes_are_not_in_it(tmp_path: Path, compose) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").write_bytes(b"weights")
    name = label(compose("dataset=circle", f"weights={tmp_path}"))
    assert re.fullmatch(r"odenet-circle-dopri5\+weights-[\w.-]+", name)
    assert "sha256" not in name


def test_the_folder_of_a_cell_is_its_label_and_its_identity(compose) -> None:
    config = compose("dataset=circle", "seed=1")
    assert folder_name(config) == f"odenet-circle-dopri5+seed-1-{identity(config)[:8]}"


def test_what_a_machine_has_of_its_own_is_not_the_usual_value(
    tmp_path: Path, compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "conf"
    shutil.copytree(CONF, copy, ignore=shutil.ignore_patterns("local"))
    (copy / "local" / "dataset").mkdir(parents=True)
    (copy / "local" / "default.yaml").write_text("# @package _global_\nseed: 3\n")
    (copy / "local" / "dataset" / "circle.yaml").write_text("noise: 0.5\n")
    monkeypatch.setattr(composing, "CONF", copy)
    import_module("neuralode_exp.config.label")._composed.cache_clear()  # `label` alone is the function
    assert label(compose("dataset=circle", "seed=3")) == "odenet-circle-dopri5+seed-3"
    import_module("neuralode_exp.config.label")._composed.cache_clear()


def test_a_dataset_that_has_no_file_has_nothing_unusual(compose) -> None:
    values = compose("dataset=circle").model_dump()
    values["dataset"]["name"] = "my-own"
    values["dataset"].pop("matrix")
    assert label(validate(values)) == "odenet-my-own-dopri5"
