"""The preflight: a wrong request is answered line by line and writes nothing, a right one goes to Hydra as it is."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from neuralode_exp.config import ConfigError, identity
from neuralode_exp.config.compose import Composer
from neuralode_exp.config.hydra_internals import make_loader
from neuralode_exp.config.preflight import CONF, expand, preflight
from tests.conftest import ROOT, train

TOP = (
    "seed, device, threads, precision, objective, check, resume, weights, extensions, log_every, figures, dataset, "
    "model, solver, trainer"
)
MODELS = "mlp, odenet, planar, resnet, rknet, stem"
LINEAR = (
    "name, kind, tolerance, step_size, seed, trajectories, points, t_max, noise, sampling, low, high, validation, "
    "test, test_horizon, matrix"
)

WRONG = {
    # names of options
    "model=odnet": [f"model must be one of {MODELS}, got odnet; did you mean odenet?"],
    "model=3": [f"model must be one of {MODELS}, got 3"],
    "experiment=null": ["experiment must be one of {experiments}, got null; leave experiment out for none"],
    "model=null": [f"model must be one of {MODELS}, got null"],
    "~model": ["~model takes away what every run needs; write model=NAME"],
    "~trainer": ["~trainer takes away what every run needs; leave it out: the dataset picks it"],
    "experiment=[debg]": ["experiment must be one of {experiments}, got debg; did you mean debug?"],
    "+model=mlp": ["+model=mlp adds a key that is there; write model=mlp"],
    "dataset/kind=images": ["dataset/kind=images does not compose; Could not override 'dataset/kind'. No match in ..."],
    # names of keys
    "trainer.lrr=1": ["trainer.lrr is not a key; did you mean trainer.lr?"],
    "trainr.lr=1": ["trainr.lr is not a key; did you mean trainer.lr?"],
    "epochs=3": ["epochs is not a key; did you mean trainer.epochs?"],
    "max_steps=3": ["max_steps is not a key; did you mean solver.max_steps or trainer.max_steps?"],
    "modle=odenet": ["modle is not a key; did you mean model?"],
    "foo=1": ["foo is not a key; --cfg job shows them all"],
    "++foo=1": [f"foo is not a key; choose from {TOP}"],
    "+trainer.lrr=1": ["trainer.lrr is not a key; did you mean trainer.lr?"],
    "+trainer.lr=1": ["+trainer.lr=1 adds a key that is there; write trainer.lr=1"],
    "~trainer.lr": ["trainer.lr must be given; add trainer.lr=VALUE"],
    "dataset=circle dataset.mu=1": ["dataset.mu is not a key of dataset=circle; its keys are ..."],
    "hydra.run.dirr=x": ["hydra.run.dirr=x does not compose; Could not override 'hydra.run.dirr'."],
    # values
    "seed=-1": ["seed must be at least 0, got -1; the default is 0"],
    "seed=true": ["seed must be a whole number, got true; the default is 0"],
    "trainer.lr=0": ["trainer.lr must be above 0, got 0; the default is 0.02"],
    "trainer.lr=nan": ["trainer.lr must be finite, got nan; the default is 0.02"],
    "trainer.lr=fast": ["trainer.lr must be a number, got fast; the default is 0.02"],
    "trainer.lr=": ["trainer.lr must be a number, got ''; the default is 0.02"],
    "trainer.momentum=1": ["trainer.momentum must be below 1, got 1; the default is 0.9"],
    "trainer.batch_size=1.5": ["trainer.batch_size must be a whole number, got 1.5; the default is ..."],
    "threads=0": ["threads must be at least 1 or null, got 0; the default is null"],
    "figures=perhaps": ["figures must be true or false, got perhaps; the default is true"],
    "device=gpu": ["device must be auto, cpu, cuda, cuda:0 (or another number) or mps, got gpu; the default is auto"],
    "precision=half": ["precision must be one of float32, float64, bf16, got half; the default is float32"],
    "solver.engine=torchdiff": [
        "solver.engine must be one of native, torchdiffeq, got torchdiff; did you mean torchdiffeq?"
    ],
    "dataset.low=a": ["dataset.low must be a number or a list of numbers, got a; the default is null"],
    "dataset.matrix=3": ["dataset.matrix must be a list, got 3; the default is [[-1.0, -1.0], [1.0, -1.0]]"],
    "solver.rtol=${tolerance}": [
        "solver.rtol cannot be resolved, got Interpolation key 'tolerance' not found; name a key that exists"
    ],
    # several keys together
    "trainer.epochs=null trainer.max_steps=null": [
        "trainer.epochs or trainer.max_steps must end the run, got null for both; set one of them"
    ],
    "trainer.window=100": [
        "trainer.window must be below dataset.points=100, got 100; at most 99 steps fit between the points"
    ],
    "dataset=mnist trainer.replicas=2": [
        "trainer.replicas must be 1 unless trainer=dynamics, got 2 with trainer=classification; use -m seed=0,1,2"
    ],
    "trainer=density": ["trainer must be dynamics for dataset=spiral-stable-focus, got density; leave it out: ..."],
    "precision=bf16": [
        "precision=bf16 is for images, whose networks tolerate the rounding, got dataset=spiral-stable-focus; "
        "pick precision=float32"
    ],
    "precision=bf16 dataset=eight-gaussians model=rknet": ["precision=bf16 is for images, ..."],
    "dataset=mnist device=mps precision=bf16": [
        "precision must be float32 on device=mps, got bf16; use device=cpu for bf16"
    ],
    "device=mps precision=float64": [
        "precision must be float32 on device=mps, got float64; use device=cpu for float64"
    ],
    "dataset.validation=0 trainer.patience=3": [
        "trainer.patience must be null if nothing is held out (dataset.validation=0), got 3; set dataset.validation too"
    ],
    "dataset.matrix=[[1,2],[3]]": [
        "dataset.matrix must be square and finite, got [[1.0, 2.0], [3.0]]; write it row by row, as [[0,-1],[1,0]]..."
    ],
    "dataset.low=[1,1,1]": ["dataset.low must be one number or 2, one for each dimension, got [1.0, 1.0, 1.0]"],
    "dataset.low=2 dataset.high=1": [
        "dataset.low must be below dataset.high, both finite, got [2.0, 2.0] and [1.0, 1.0]"
    ],
    "dataset=torus dataset.minor=2": ["dataset.minor must be below dataset.major, got 2.0 and 1.5"],
    "dataset=mnist model.channels=48": [
        "model.channels must be at most 32 or a multiple of 32, for the groups of GroupNorm, got 48; the default is 64"
    ],
    "dataset=torus model.activation=silu": ["model.activation must be tanh for dataset=torus, got silu; leave it out"],
    "solver.name=rk5": ["solver.name is set by the file that solver=NAME picks, got rk5; did you mean solver=rk4?"],
    "objective=error/test": ["objective must be a tag of trainer=dynamics, not on test data, got error/test; ..."],
    # objectives that the run never records
    "objective=solver/stored_states": [
        "objective must be a tag that this run records, got solver/stored_states, which needs "
        "model.gradient=reversible; leave it out for the usual one"
    ],
    "objective=memory/peak_device_mib device=cpu": [
        "objective must be a tag that this run records, got memory/peak_device_mib, which needs a CUDA device; ..."
    ],
    "model=resnet objective=solver/accepted": ["objective must be a tag that this run records, got solver/accepted..."],
    "objective=dynamics/validation_error dataset.validation=0": [
        "objective must be a tag that this run records, got dynamics/validation_error, which needs held-out data ..."
    ],
    "dataset=torus objective=density/validation_kl": [
        "objective must be a tag that this run records, got density/validation_kl, which needs a dataset whose true ..."
    ],
    "dataset=two-tanks objective=dynamics/eigenvalue_error": [
        "objective must be a tag that this run records, got dynamics/eigenvalue_error, which needs a dataset whose ..."
    ],
    "objective=time/step_ms trainer.max_steps=2": [
        "objective must be a tag that this run records, got time/step_ms, which needs at least three training steps..."
    ],
    "dataset=mnist objective=foo": [
        "objective must be a tag of trainer=classification, not on test data, got foo; choose from error/validation, "
        "loss/validation, loss/train, nfe/forward, ..."
    ],
    # cells without meaning
    "model=mlp": ["model=mlp is for images, got dataset=spiral-stable-focus; pick model=odenet or model=rknet"],
    # files
    "dataset=csv": ["dataset.path must be given; add dataset.path=VALUE"],
    "dataset=csv dataset.path=nowhere.csv": ["dataset.path must name a file, got nowhere.csv, which does not exist"],
    "resume=nowhere": [
        "resume must be the folder of a run, got nowhere (no such folder); a run's first lines name its folder"
    ],
    "-m resume=nowhere": [
        "resume is for one run, not a grid, got nowhere; leave out -m; to resume a grid, repeat its command ..."
    ],
    # syntax
    "seed": ["seed must be key=value, as model=resnet or trainer.lr=0.1"],
    "trainer.lr=[1": ["trainer.lr=[1 must be key=value, got ..."],
    # several values, grids
    "seed=0,1": ["seed must have one value, got 0,1; python train.py -m seed=0,1 runs them all, seed=[0,1] is a list"],
    "-m hydra.verbose=true,false": ["hydra.verbose cannot be swept over; give it one value"],
    "-m seed=0,1 trainer.lr=-1,1": ["trainer.lr must be above 0, got -1; the default is 0.02 (in 2 of 4 cells)"],
    "-m model=mlp,odnet": [f"model must be one of {MODELS}, got odnet; did you mean odenet? (in 1 of 2 cells)"],
    "-m model=mlp,stem dataset=circle": [
        "model=mlp is for images, got dataset=circle; pick model=odenet or model=rknet",
        "model=stem is for images, got dataset=circle; pick model=odenet or model=rknet",
    ],
    # all at once
    "model=odnet trainer.lrr=1 seed=-1 foo": [
        "foo must be key=value, as model=resnet or trainer.lr=0.1",
        f"model must be one of {MODELS}, got odnet; did you mean odenet?",
        "trainer.lrr is not a key; did you mean trainer.lr?",
        "seed must be at least 0, got -1; the default is 0",
    ],
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_request_is_answered_line_by_line(words: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        preflight(words.split())
    got = str(caught.value).splitlines()
    experiments = ", ".join(sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")))
    expected = [line.replace("{experiments}", experiments) for line in WRONG[words]]
    assert len(got) == len(expected)
    for line, start in zip(got, expected, strict=True):
        assert line == start or (start.endswith("...") and line.startswith(start[:-3]))
    assert not list(tmp_path.iterdir())


def test_a_wrong_command_exits_with_2_and_writes_nothing(tmp_path: Path) -> None:
    done = train("model=odnet", "seed=-1", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 2
    assert not list(tmp_path.iterdir())


def test_a_wrong_request_does_not_wait_for_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['train.py', 'trainer.lr=-1']; import train; "
        "assert train.command_line() == 2; assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True, capture_output=True
    )


@pytest.mark.skipif(find_spec("hydra_plugins.hydra_ray_launcher") is not None, reason="the extra is installed")
def test_an_extra_that_is_not_installed_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        preflight(["-m", "hydra/launcher=ray"])
    assert str(caught.value) == ("hydra/launcher=ray needs an optional dependency; pip install -e '.[ray]' brings it")


def test_an_unknown_flag_is_refused(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        preflight(["--foo"])
    assert caught.value.code == 2
    assert "unrecognized arguments: --foo" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["--hydra-help"],
        ["--cfg", "job", "model=odnet"],
        ["--info"],
        ["-sc", "query=bash"],
        ["-cn", "other"],
    ],
)
def test_what_is_for_hydra_is_left_to_it(argv: list[str]) -> None:
    assert preflight(argv).argv == argv


def test_a_right_request_is_passed_on_with_its_flags_first() -> None:
    words = ["model=resnet", "-m", "seed=0,1"]
    assert preflight(words).argv == ["--multirun", "model=resnet", "seed=0,1"]
    assert preflight(["seed=1"]).argv == ["seed=1"]
    assert preflight(["seed=1"]).answer is None


def test_a_directory_of_the_user_adds_options(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "swing.yaml").write_text(
        "defaults: [/trainer@_global_.trainer: dynamics, kind/dynamics@_here_, _self_]\nname: swing\n"
    )
    request = preflight(["--config-dir", str(tmp_path), "dataset=swing", "check=true"])
    assert "dataset=swing" in str(request.answer)


@pytest.mark.parametrize(
    ("words", "note"),
    [
        ("trainer.loss=flow-matching", "trainer.loss will have no effect: this run does not read it"),
        (
            "solver=rk4 solver.rtol=1e-5 trainer.momentum=0.5 trainer.lr=0.1",
            "solver.rtol, trainer.momentum will have no effect: this run does not read them",
        ),
        ("-m solver=rk4,euler solver.rtol=1e-5", "solver.rtol will have no effect: no run reads it"),
        ("-m solver=rk4,dopri5 solver.rtol=1e-5", None),
        ("trainer.loss=likelihood device=cpu log_every=5 dataset.step_size=0.5 hydra.run.dir=out", None),
    ],
)
def test_a_key_that_will_have_no_effect_is_named(words: str, note: str | None) -> None:
    assert preflight(words.split()).note == note


def test_check_says_what_would_run(compose) -> None:
    name = identity(compose("seed=3"))
    assert preflight(["seed=3", "check=true"]).answer == (
        f"ok: model=odenet dataset=spiral-stable-focus solver=dopri5 seed=3, identity {name}, 1000 steps"
    )


@pytest.mark.parametrize(
    "words",
    [
        "objective=solver/stored_states model.gradient=reversible",
        "dataset=van-der-pol objective=dynamics/eigenvalue_error",
        "dataset=two-moons objective=density/kl",
        "experiment=[debug]",
    ],
)
def test_a_right_request_is_accepted(words: str) -> None:
    assert str(preflight([*words.split(), "check=true"]).answer).startswith("ok: ")


def test_check_counts_a_grid() -> None:
    answer = preflight(["-m", "model=resnet,odenet,mlp", "solver=dopri5,rk4", "seed=range(2)", "check=true"]).answer
    assert str(answer).splitlines() == [
        "ok: 12 cells, 6 runs, 2 same as another",
        "skipped, 4 of 12: model=mlp is for images, got dataset=spiral-stable-focus; pick model=odenet or model=rknet",
        "cell 0: resnet-spiral-stable-focus, 1000 steps, the same run as cell 2",
        "cell 1: resnet-spiral-stable-focus+seed-1, 1000 steps, the same run as cell 3",
        "cell 4: odenet-spiral-stable-focus-dopri5, 1000 steps",
        "cell 5: odenet-spiral-stable-focus-dopri5+seed-1, 1000 steps",
        "cell 6: odenet-spiral-stable-focus-rk4, 1000 steps",
        "cell 7: odenet-spiral-stable-focus-rk4+seed-1, 1000 steps",
        "6000 steps in all",
    ]


def test_check_tells_the_steps_of_an_epoch_of_images() -> None:
    words = ["dataset=mnist", "model=mlp", "trainer.epochs=1,2", "trainer.batch_size=100", "trainer.max_steps=1000"]
    answer = str(preflight(["-m", *words, "check=true"]).answer).splitlines()
    assert [line.partition(", ")[2] for line in answer[1:3]] == ["550 steps", "1000 steps"]  # 55,000 of them are left


def test_a_grid_in_a_file_is_expanded_and_the_command_line_goes_first(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "grid.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: 0,1,2\n      solver: dopri5,rk4\n"
    )
    argv = ["--config-dir", str(tmp_path), "-m", "experiment=grid", "check=true"]
    assert str(preflight(argv).answer).startswith("ok: 6 cells, 6 runs")
    assert str(preflight([*argv, "seed=7"]).answer).startswith("ok: 2 cells, 2 runs")
    with pytest.raises(ConfigError, match="must be at least 0, got -1"):
        preflight([*argv, "seed=-1"])


def test_of_an_interval_both_ends_are_checked() -> None:
    argv = ["trainer.lr=tag(log,interval(0.001,0.1))", "model.width=choice(16,32)"]
    axes = Composer(make_loader(CONF)).parse(argv, [])
    assert list(expand(axes)) == [
        ["trainer.lr=0.001", "model.width=16"],
        ["trainer.lr=0.1", "model.width=16"],
        ["trainer.lr=0.001", "model.width=32"],
    ]
    with pytest.raises(ConfigError, match=r"trainer.lr must be above 0, got -1"):
        preflight(["-m", "trainer.lr=interval(-1,1)"])


def test_an_interval_is_for_a_search() -> None:
    with pytest.raises(ConfigError) as caught:
        preflight(["-m", "trainer.lr=interval(0.01,0.1)", "seed=0,1"])
    assert str(caught.value) == (
        "trainer.lr must have listed values in a grid, got interval(0.01,0.1); "
        "list them, or search with hydra/sweeper=optuna"
    )


def test_the_folders_of_cells_cannot_be_changed() -> None:
    with pytest.raises(ConfigError, match=r"hydra.sweep.subdir cannot be changed, got \$"):
        preflight(["-m", "hydra.sweep.subdir=${hydra.job.num}", "seed=0,1"])


def test_a_grid_of_500_cells_takes_seconds() -> None:
    began = time.process_time()
    assert str(preflight(["-m", "seed=range(500)", "check=true"]).answer).startswith("ok: 500 cells, 500 runs")
    assert time.process_time() - began < 10  # 3 s here, undisturbed
