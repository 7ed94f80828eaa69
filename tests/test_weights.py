"""A run that starts from another run's weights, and one that trains on fewer images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

import train as program
from neuralode_exp.build import build_task
from neuralode_exp.config import ConfigError, identity, identity_differences, stored_config
from neuralode_exp.config.identity import with_effect
from neuralode_exp.load import load_run
from neuralode_exp.outcome import RunFailed
from neuralode_exp.run import run
from tests.conftest import TINY_IMAGES
from tests.runs import Compose, train_in

TINY = ("trainer.epochs=null", "trainer.max_steps=2", "figures=false", "threads=1")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, compose: Compose) -> Path:
    folder = tmp_path_factory.mktemp("source")
    return train_in(folder, compose("dataset=circle", "model.width=8", "trainer.average=0.5", *TINY))


def test_a_run_starts_from_the_weights_that_another_was_judged_by(
    tmp_path: Path, source: Path, compose: Compose
) -> None:
    words = ("dataset=stable-node", "model=rknet", "solver=rk4", "model.width=8", "seed=3", "trainer.optimizer=sgd")
    config = compose(*words, *TINY, f"weights={source}", "trainer.lr=1e-30")
    train_in(tmp_path, config)
    started, _ = load_run(tmp_path)
    judged, _ = load_run(source)
    assert started.state_dict().keys() == judged.state_dict().keys()
    for name, value in judged.state_dict().items():
        assert torch.equal(started.state_dict()[name], value), name


def test_the_source_and_its_hash_are_in_the_identity(tmp_path: Path, source: Path, compose: Compose) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(source, copied)
    plain, of_copy = compose(), compose(f"weights={copied}")
    assert "weights" not in with_effect(plain)
    assert identity_differences(plain, of_copy).keys() == {"weights", "weights.sha256"}
    before = identity(of_copy)
    (copied / "checkpoints" / "last.pt").write_bytes(b"others")
    assert identity(of_copy) != before


@pytest.mark.parametrize(
    ("words", "differs"),
    [
        ("dataset=circle model.width=16", "model.width=8, not 16"),
        ("dataset=circle model=resnet model.width=8", "model.name=rknet, not resnet"),
        ("dataset=circle model.width=8 model.order=2", "model.order=1, not 2"),
        ("dataset=two-moons model=rknet model.width=8", "dataset.kind=dynamics, not densities"),
    ],
)
def test_weights_of_another_model_are_refused_before_a_folder_is_made(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    differs: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py", *words.split(), f"weights={source}"])
    assert program.command_line() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"weights must be of a run with the same model, got {source} with {differs}" in line
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py", "weights=gone"])
    assert program.command_line() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("weights must be the folder of a run with weights, got gone; ")
    assert not list(tmp_path.iterdir())


def test_another_shape_is_refused_in_one_line(tmp_path: Path, source: Path, compose: Compose) -> None:
    config = compose("dataset=circle", "model.width=9", *TINY, f"weights={source}")
    with pytest.raises(RunFailed, match=r"last\.pt must fit the model, got weights of other names or shapes") as caught:
        run(config, tmp_path, config.model_dump(mode="json"))
    assert len(str(caught.value).splitlines()) == 1


def test_configs_of_before_have_neither_key(tmp_path: Path, compose: Compose) -> None:
    for words in (("dataset=circle",), (*TINY_IMAGES, "model=mlp")):
        config = compose(*words)
        values = config.model_dump(mode="json")
        del values["weights"]
        values["dataset"].pop("train", None)
        folder = tmp_path / config.dataset.name
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(values))
        assert stored_config(folder) == config
        assert {"weights", "dataset.train"}.isdisjoint(with_effect(config))


def test_fewer_images_are_the_first_of_all(compose: Compose) -> None:
    all_of_them, few = (
        build_task(compose(*TINY_IMAGES, "model=mlp", *words), torch.device("cpu")).data  # type: ignore[attr-defined]
        for words in ((), ("dataset.train=100",))
    )
    assert torch.equal(few.train.images, all_of_them.train.images[:100])
    assert torch.equal(few.validation.labels, all_of_them.validation.labels)
    with pytest.raises(ConfigError, match=r"dataset\.train must be at most the 59936 images that are not held out"):
        compose(*TINY_IMAGES, "dataset.train=59937")
