"""A trained run taken up again: the same numbers under the same solver, others under another, clear refusals."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import neuralode_exp
from neuralode_exp.config import ConfigError
from neuralode_exp.evaluate import evaluate
from neuralode_exp.load import NotLoadable
from neuralode_exp.ode import FixedStep
from neuralode_exp.tracking.summary import read_summary, write_summary
from scripts.evaluate import main
from tests.conftest import ROOT, TINY_IMAGES
from tests.runs import Compose, train_in

ONE_STEP = ("solver=rk4", "solver.step_size=1", "trainer.epochs=null", "trainer.max_steps=3", "trainer.average=0.5")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, compose: Compose) -> Path:
    """Trained by backprop with averaged weights, one rk4 step deep."""
    folder = tmp_path_factory.mktemp("trained")
    return train_in(folder, compose(*TINY_IMAGES, *ONE_STEP, "model=rknet", "model.channels=8"))


def test_the_same_solver_gives_the_stored_numbers(trained: Path) -> None:
    found = evaluate(trained)
    assert found.now == found.stored | {"nfe/test": 4.0}
    assert found.stored.keys() == {"error/test", "solver/consistency", "solver/consistency_error"}


def test_another_solver_needs_no_gradient_and_counts_its_evaluations(trained: Path) -> None:
    found = evaluate(trained, ["solver=euler", "solver.step_size=0.1"])
    assert found.now["nfe/test"] == 10
    assert found.config.solver.name == "euler"
    tight = evaluate(trained, ["solver=dopri5", "solver.rtol=1e-4", "solver.atol=1e-4", "precision=float64"])
    # Against a solve 100x as accurate the error of one rk4 step is many times that of the tolerance.
    assert tight.now["solver/consistency"] < found.stored["solver/consistency"] / 3


def test_load_run_gives_the_weights_that_the_run_was_judged_by(trained: Path) -> None:
    before = torch.get_rng_state()
    module, config = neuralode_exp.load_run(trained)
    assert torch.equal(torch.get_rng_state(), before)
    assert not module.training
    assert config.model.name == "rknet"
    assert isinstance(module.body.ode.method, FixedStep)
    saved = torch.load(trained / "checkpoints" / "last.pt", weights_only=True)
    for parameter, average in zip(module.parameters(), saved["average"], strict=True):
        assert torch.equal(parameter, average)
    assert module(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    best, _ = neuralode_exp.load_run(trained, "best")
    saved = torch.load(trained / "checkpoints" / "best.pt", weights_only=True)["module"]
    assert all(torch.equal(saved[name], value) for name, value in best.state_dict().items())


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("solver=dopri6", "did you mean dopri8?"),
        ("solver.rtoll=1", "did you mean solver.rtol?"),
        ("solver.rtol=-1", "solver.rtol must be above 0"),
        ("trainer.lr=1", "trainer.lr cannot change in a trained run; only solver, dataset"),
        ("dataset=circle", "dataset must be of images, got circle; choose one like mnist"),
        ("seed=1,2", "seed cannot change in a trained run"),
        ("solver=tsit5 solver.engine=torchdiffeq", "solver=tsit5 is not in this engine"),
        ("device=cuda:7", "device must be one that this machine has"),
        ("device=cuda:7,cpu", "device must be one that this machine has"),
    ],
)
def test_a_wrong_change_is_one_line(trained: Path, capsys: pytest.CaptureFixture[str], word: str, says: str) -> None:
    assert main([str(trained), *word.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_a_table_that_is_not_there_is_a_wrong_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ROOT / "tests" / "old_runs" / "measured" / "finished"
    assert main([str(run), f"dataset.path={tmp_path}/nowhere.csv"]) == 2
    assert capsys.readouterr().err.startswith(f"dataset.path must name a file, got {tmp_path}/nowhere.csv")


def test_what_only_training_needs_does_not_keep_a_run_from_being_evaluated(tmp_path: Path, compose: Compose) -> None:
    few = ("dataset=circle", "model.width=8", "dataset.trajectories=4", "dataset.points=10", "trainer.window=2")
    short = ("trainer.max_steps=2", "figures=false", "threads=1")
    source = train_in(tmp_path / "source", compose(*few, *short))
    words = ("model=odenet", "model.gradient=checkpoint", "trainer.error=0.1", f"weights={source}")
    run = train_in(tmp_path / "run", compose(*few, *short, *words))
    shutil.rmtree(source)
    found = evaluate(run)
    assert found.now["dynamics/trajectory_error"] == pytest.approx(found.stored["dynamics/trajectory_error"])
    assert evaluate(run, ["solver=rk4"]).now["nfe/test"] > 0


def test_a_solver_has_no_effect_without_an_ode(tmp_path: Path, compose: Compose) -> None:
    train_in(tmp_path, compose(*TINY_IMAGES, "model=mlp", "trainer.epochs=null", "trainer.max_steps=1"))
    with pytest.raises(ConfigError, match="solver is not used, got model=mlp; leave it out"):
        evaluate(tmp_path, ["solver=rk4"])


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (("dataset=circle", "model=odenet"), ("dataset.trajectories=3", "dataset.points=20")),
        (("dataset=circle", "model=resnet"), ("dataset.noise=0",)),
        (("dataset=two-moons", "model=odenet", "model.width=8"), ("dataset.test=50",)),
    ],
)
def test_every_kind_of_model_is_taken_up_and_put_before_other_data(
    tmp_path: Path, compose: Compose, words: tuple[str, ...], changes: tuple[str, ...]
) -> None:
    tiny = ("trainer.epochs=null", "trainer.max_steps=1", "dataset.validation=4", "dataset.test=4", "figures=false")
    folder = train_in(tmp_path, compose(*words, *tiny, "solver=rk4", "threads=1", "trainer.batch_size=8"))
    found = evaluate(folder)
    stored = {tag: value for tag, value in found.stored.items() if not tag.startswith("time/")}
    assert {tag: found.now[tag] for tag in stored} == pytest.approx(stored, nan_ok=True)
    other = evaluate(folder, changes)
    assert other.now != found.now
    assert other.now.keys() >= found.stored.keys()
    model, config = neuralode_exp.load_run(folder)
    if config.dataset.kind == "dynamics":
        dt = model.dt if config.model.name == "resnet" else 1.0
        assert model(torch.ones(5, 2), torch.tensor([0.0, dt])).shape == (2, 5, 2)


def copy(trained: Path, folder: Path) -> Path:
    for path in trained.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(trained)).parent.mkdir(parents=True, exist_ok=True)
            (folder / path.relative_to(trained)).write_bytes(path.read_bytes())
    return folder


def interrupt(folder: Path) -> None:
    summary = read_summary(folder)
    assert summary is not None
    summary["status"] = "interrupted"
    write_summary(folder, summary)


def widen(folder: Path) -> None:
    path = folder / ".hydra" / "config.yaml"
    path.write_text(path.read_text().replace("channels: 8", "channels: 16"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (interrupt, "which is interrupted; go on with: python train.py resume="),
        (lambda folder: (folder / "summary.json").unlink(), "RUN must be the folder of a run"),
        (lambda folder: (folder / "summary.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / ".hydra" / "config.yaml").write_text("seed: ["), "is damaged"),
        (lambda folder: (folder / ".hydra" / "config.yaml").write_text("seed: 0"), "or was written by another"),
        (lambda folder: (folder / "checkpoints" / "last.pt").unlink(), "cannot be read: No such file"),
        (lambda folder: (folder / "checkpoints" / "last.pt").write_bytes(b"PK"), "it is damaged"),
        (widen, "last.pt must fit the model"),
    ],
)
def test_what_is_no_trained_run_is_refused_in_one_line(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], object],
    says: str,
) -> None:
    folder = copy(trained, tmp_path / "run")
    spoil(folder)
    with pytest.raises(NotLoadable, match=says.replace(".", r"\.")):
        neuralode_exp.load_run(folder)
    assert main([str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_the_command_that_goes_on_is_quoted(trained: Path, tmp_path: Path) -> None:
    folder = copy(trained, tmp_path / "sp ace")
    interrupt(folder)
    with pytest.raises(NotLoadable) as refused:
        neuralode_exp.load_run(folder)
    assert shlex.split(str(refused.value).partition("go on with: ")[2])[2:] == [f"resume='{folder}'"]


def test_json_has_both_and_the_changes(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(trained), "solver.step_size=0.5", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["changes"] == ["solver.step_size=0.5"]
    assert printed["now"]["nfe/test"] == 8
    assert printed["stored"].keys() == printed["now"].keys() - {"nfe/test"}
