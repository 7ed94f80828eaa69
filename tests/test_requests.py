"""Requests that cannot be fulfilled: each is refused before anything is written, in at most four lines."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from neuralode_exp.config import ConfigError
from neuralode_exp.config.machine import threads_limit
from neuralode_exp.config.preflight import of_what_is_there, preflight
from neuralode_exp.outcome import RunFailed
from neuralode_exp.run import run
from neuralode_exp.tracking.summary import read_summary
from tests.conftest import SAMPLE, train

FILES = {
    "file": "text",
    "rows.csv": "trajectory,t,z1\na,0,1\na,1,2\nb,0,x\nb,1,2\nc,0\nc,2,3\nc,1,4\nd,0,0\n",
    "large.csv": "t,z1\n0,1\n1,1e30\n" + "".join(f"{t},1\n" for t in range(2, 9)),
    "header.csv": "time,x\n1,2\n",
    "empty.csv": "",
    "bytes.csv": "\0\1\2",
    "spiral.csv": "t,z1\n0,0\n1,1\n2,0\n3,1\n4,0\n5,1\n6,0\n7,1\n",
    "ragged.csv": "1,2\n3\n",
    "constant.csv": "1,2\n1,3\n1,4\n1,5\n",
    "one.csv": "1,2\n",
    "text.npy": "no array",
    "damaged/train-images-idx3-ubyte": "",
    "damaged/train-labels-idx1-ubyte": "",
    "damaged/t10k-images-idx3-ubyte": "",
    "damaged/t10k-labels-idx1-ubyte": "",
    "conf/experiment/launcher.yaml": "# @package _global_\ndefaults:\n  - override /hydra/launcher: joblib\n",
    "conf/experiment/jobs.yaml": "# @package _global_\nhydra:\n  launcher:\n    n_jobs: 3\n",
    "conf/experiment/sweeper.yaml": "# @package _global_\ndefaults:\n  - override /hydra/sweeper: optuna\n",
    "conf/experiment/axis.yaml": "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: range(0,0)\n",
    "conf/experiment/nothing.yaml": "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: null\n",
}
JOBLIB = "-m seed=0,1 hydra/launcher=joblib"
LOCAL = "-m seed=0,1 hydra/launcher=submitit_local"
SLURM = "-m seed=0,1 hydra/launcher=submitit_slurm"

# Request -> how its lines begin.
REFUSED = {
    # what this machine does not have
    "device=cuda:7": ["device must be one that this machine has ("],
    "device=mps": ["device must be one that this machine has ("],
    "-m device=cpu,cuda:7": ["device must be one that this machine has ("],
    "threads=10000000": ["threads must be at most "],
    "-m threads=1,10000000": ["threads must be at most "],
    # states out of range
    "dataset=unstable dataset.t_max=1e6": ["dataset.t_max must keep |z| below 1.8e+19, where squares leave the range"],
    "dataset=unstable dataset.t_max=1e6 precision=float64": ["dataset.t_max must keep |z| below 1.3e+154, where"],
    "dataset=circle dataset.matrix=[[100,0],[0,100]] dataset.t_max=10": ["dataset.t_max must keep |z| below 1.8e+19"],
    "dataset=circle dataset.matrix=[[1e300,0],[0,1]]": ["dataset.t_max must give 100 different times in float32, got"],
    "dataset.t_max=1e-300": ["dataset.t_max must give 100 different times in float32, got 1e-300; "],
    "dataset.t_max=1e39": ["dataset.t_max must give 100 different times in float32, got 1e+39; "],
    "dataset=van-der-pol dataset.mu=1e300": [
        "dataset.t_max must give 100 different times in float32, got 1.61371e+300"
    ],
    "dataset=two-foci dataset.low=[1,2,3]": ["dataset.low must be one number or 2, one for each dimension, got [1.0, "],
    "dataset.high=1e25": ["dataset.high must keep the initial states below 1.8e+19, got 9.9e+24; "],
    "dataset.noise=1e30": ["dataset.noise must be below 1.8e+19, got 1e+30; "],
    "dataset=lotka-volterra dataset.low=-2 dataset.high=2": ["dataset.t_max must keep |z| below 1.8e+19"],
    "dataset=eight-gaussians dataset.radius=1e25": ["dataset.radius must have states below 1.8e+19, whose squares"],
    "dataset=csv dataset.path=large.csv dataset.units=file": [
        "dataset.path must have states below 1.8e+19, whose squares float32 can"
    ],
    # folders that cannot be written
    "hydra.run.dir=/proc/nope": ["hydra.run.dir must be a folder that can be written, got /proc/nope (no such file or"],
    "hydra.run.dir=file": ["hydra.run.dir must name a folder, got file, where "],
    "hydra.run.dir=file/below": ["hydra.run.dir must name a folder, got file/below, where "],
    "hydra.run.dir=": ["hydra.run.dir must name a folder, got ''; leave it out for a new one in outputs/"],
    "hydra.run.dir=null": ["hydra.run.dir=null does not compose; "],
    f"hydra.run.dir={'a' * 300}": ["hydra.run.dir must be a folder that can be written, got aaa"],
    "-m seed=0,1 hydra.sweep.dir=/proc/nope": ["hydra.sweep.dir must be a folder that can be written, got /proc/nope"],
    "-m seed=0,1 hydra.sweep.dir=file": ["hydra.sweep.dir must name a folder, got file, where "],
    "dataset=mnist dataset.root=file": ["dataset.root must name a folder, got file, where "],
    "dataset=mnist dataset.root=file/below": ["dataset.root must name a folder, got file/below, where "],
    "dataset=mnist dataset.root=/proc/nope": ["dataset.root must be a folder that can be written, got /proc/nope"],
    "hydra.run.dir=${nope}": ["hydra.run.dir cannot be resolved, got Interpolation key 'nope' not found; name a key"],
    "-m seed=0,1 hydra.sweep.dir=out/${nope}": ["hydra.sweep.dir cannot be resolved, got Interpolation key 'nope' "],
    "--config-dir nowhere": ["--config-dir must name a folder, got nowhere; leave it out for none"],
    # files that cannot be read
    "dataset=mnist dataset.root=damaged": ["dataset.root cannot be used: damaged/train-images-idx3-ubyte must have"],
    "dataset=csv dataset.path=rows.csv": [
        "dataset.path cannot be used: rows.csv:4: z1 must be a number, got 'x'",
        "dataset.path cannot be used: rows.csv:6: a row must have 3 columns, got 2",
        "dataset.path cannot be used: rows.csv:8: t must increase within a trajectory, got 1 after 2 in line 7; ",
        "dataset.path cannot be used: rows.csv:9: a trajectory must have at least 2 rows, got 1, of 'd'; delete it",
    ],
    "dataset=csv dataset.path=header.csv check=true": [
        "dataset.path cannot be used: header.csv:2: a trajectory must have at least 2 rows"
    ],
    "dataset=csv dataset.path=empty.csv": ["dataset.path cannot be used: empty.csv must have rows, it has none"],
    "dataset=csv dataset.path=bytes.csv": ["dataset.path cannot be used: bytes.csv must be text in UTF-8, UTF-16 or"],
    "dataset=csv dataset.path=spiral.csv dataset.states=x": ["dataset.states must be a column of spiral.csv, got x; "],
    "dataset=csv dataset.path=.": ["dataset.path must name a file, got ., which is a folder"],
    "dataset=csv dataset.path=null": ["dataset.path must be text, got null; add dataset.path=VALUE"],
    "dataset=points": ["dataset.path must be given; add dataset.path=VALUE"],
    "dataset=points dataset.path=nowhere.npy": ["dataset.path must name a file, got nowhere.npy, which does not"],
    "dataset=points dataset.path=file": ["dataset.path cannot be used: file must have rows below its header"],
    "dataset=points dataset.path=text.npy": ["dataset.path cannot be used: text.npy must be a plain npy file of"],
    "dataset=points dataset.path=ragged.csv": [
        "dataset.path cannot be used: ragged.csv:2: a row must have 2 columns, got 1"
    ],
    "dataset=points dataset.path=constant.csv check=true": ["dataset.path cannot be used: column 1 of constant.csv"],
    "dataset=points dataset.path=one.csv": ["dataset.path cannot be used: one.csv must have 2 points to train on"],
    # what the data cannot fill
    f"dataset=mnist dataset.root={SAMPLE} dataset.validation=64 trainer.batch_size=321": [
        "trainer.batch_size must be at most 320, the training images, got 321; 128 fits"
    ],
    f"dataset=mnist dataset.root={SAMPLE}": ["dataset.validation must be below the 384 training images, got 5000; "],
    "dataset=mnist dataset.root=new dataset.validation=59999": ["trainer.batch_size must be at most 1, the training"],
    "dataset.points=300000 model.width=1": [
        "dataset.points times dataset.trajectories must give at most 16777216 windows, "
    ],
    # settings of the launcher and the sweeper
    f"{JOBLIB} hydra.launcher.n_jobs=0": ["hydra.launcher.n_jobs must be at least 1, or -1 for as many as there are"],
    f"{JOBLIB} hydra.launcher.n_jobs=two": ["hydra.launcher.n_jobs must be a whole number, got two; the default is 2"],
    f"{JOBLIB} hydra.launcher.batch_size=0": ["hydra.launcher.batch_size must be at least 1 or auto, got 0; the"],
    f"{JOBLIB} hydra.launcher.pre_dispatch=fish": [
        "hydra.launcher.pre_dispatch must be a number of jobs, all, or a multiple such as"
    ],
    f"{JOBLIB} hydra.launcher.n_job=2": [f"{JOBLIB[12:]} hydra.launcher.n_job=2 does not compose; "],
    f"{JOBLIB} +hydra.launcher.n_job=2": ["hydra.launcher.n_job is not a key; did you mean hydra.launcher.n_jobs?"],
    f"{LOCAL} hydra.launcher.cpus_per_task=0": ["hydra.launcher.cpus_per_task must be at least 1 or null, got 0; "],
    f"{LOCAL} hydra.launcher.timeout_min=1.5": ["hydra.launcher.timeout_min must be a whole number, got 1.5; "],
    f"{SLURM} hydra.launcher.nodes=0": ["hydra.launcher.nodes must be at least 1, got 0; the default is 1", ""],
    f"{SLURM} hydra.launcher.setup=module": ["hydra.launcher.setup must be a list or null, got module; ", ""],
    f"{JOBLIB} hydra.sweeper.detach=true": ["hydra.sweeper.detach must be false unless Slurm runs the jobs, got true"],
    f"{SLURM} hydra.sweeper.detach=true hydra.sweeper.stop_after=2": ["hydra.sweeper.stop_after needs a grid that", ""],
    SLURM: ["hydra/launcher=submitit_slurm needs Slurm's commands, got no srun on the PATH; "],
    "-m seed=0,1 hydra/launcher=slurm": ["hydra/launcher must be one of basic, joblib, "],
    "-m seed=0,1 hydra/launcher=joblib,basic": ["hydra/launcher cannot be swept over; give it one value"],
    "-m seed=0,1 hydra.sweeper.max_batch_size=0": ["hydra.sweeper.max_batch_size must be at least 1 or null, got 0; "],
    "--config-dir conf -m experiment=launcher": ["hydra/launcher cannot be chosen in a file, got experiment/launcher;"],
    "--config-dir conf -m experiment=jobs": ["hydra/launcher cannot be chosen in a file, got experiment/jobs; "],
    "--config-dir conf -m experiment=sweeper": ["hydra/sweeper cannot be chosen in a file, got experiment/sweeper; "],
    "--config-dir conf -m experiment=debug,launcher": ["hydra/launcher cannot be chosen in a file, got "],
    "-m seed=0,1 hydra.launcher=joblib": ["hydra.launcher must be a group of keys, and only its file sets the class; "],
    "-m seed=0,1 hydra.launcher._target_=os.system": ["hydra.launcher must be a group of keys, and only its file"],
    "-m seed=0,1 hydra.sweeper.params=3": ["hydra.sweeper.params must be a group of keys or null, got 3; the default"],
    # empty axes
    "-m seed=range(0,0)": ["seed must have a value, got range(0,0); range(0,3) is 0, 1 and 2"],
    "-m seed=range(3,0)": ["seed must have a value, got range(3,0); range(0,3) is 0, 1 and 2"],
    "-m seed=range(0,3,0)": ["seed must have a value, got range(0,3,0); range(0,3) is 0, 1 and 2"],
    "-m model=glob(zz*)": ["model must have a value, got glob(zz*); it matches the name of no file"],
    "-m seed=choice()": ["seed=choice() must be key=value, got in 'choice()': empty choice is not legal; "],
    "--config-dir conf -m experiment=axis": ["seed must have a value, got range(0,0); "],
    "--config-dir conf -m experiment=nothing": ["seed must be a whole number, got null; the default is 0"],
    # cells that cannot work
    **{
        f"dataset={dataset} solver={solver}": [f"solver={solver} solves all rows of a batch as one state, and "]
        for dataset, solver in [("two-moons", "lsoda"), ("torus", "radau"), ("gaussian", "bdf"), ("mnist", "lsoda")]
    },
    # names that a file says
    "dataset.name=unstable": ["dataset.name is set by the file that dataset=NAME picks, got unstable; write dataset="],
    "dataset.name=mine": ["dataset.name is set by the file that dataset=NAME picks, got mine; choose from "],
    "~dataset.name": ["dataset.name is set by the file that dataset=NAME picks; choose from "],
    "model.name=resnet": ["model.name is set by the file that model=NAME picks, got resnet; write model=resnet"],
    "++model.name=resnet": ["model.name is set by the file that model=NAME picks, got resnet; write model=resnet"],
    "model={name:resnet}": ["model.name is set by the file that model=NAME picks, got resnet; write model=resnet"],
    "-m model.name=resnet": ["model.name is set by the file that model=NAME picks, got resnet; write model=resnet"],
    "solver.name=rk5": ["solver.name is set by the file that solver=NAME picks, got rk5; did you mean solver=rk4?"],
    "trainer.name=density": ["trainer.name is set by the file that dataset=NAME picks, got density; leave it out"],
    "dataset.kind=images": ["dataset.kind is set by the file that dataset=NAME picks, got images; leave it out"],
    # more memory than any machine has
    "trainer.replicas=100000000": ["trainer.replicas must let the run fit into the "],
    "-m trainer.replicas=1,100000000": ["trainer.replicas must let the run fit into the "],
    "model.width=100000000": ["model.width must let the run fit into the "],
    "model.depth=1000000000000": ["model.depth must let the run fit into the "],
    "dataset.points=1000000000000": ["dataset.points must let the run fit into the "],
    "dataset.trajectories=1000000000000": ["dataset.trajectories must let the run fit into the "],
    "dataset.test_horizon=1e12": ["dataset.test_horizon must let the run fit into the "],
    "solver=radau trainer.batch_size=100000000": ["trainer.batch_size must let the run fit into the "],
    "dataset=gaussian dataset.dim=10000000": ["dataset.dim must let the run fit into the "],
    "dataset=two-moons dataset.noise=1e-15": ["dataset.noise must let the run fit into the "],
    "dataset=two-moons dataset.validation=1000000000000000": ["dataset.validation must let the run fit into the "],
    "dataset=pinwheel dataset.arms=10000000000000": ["dataset.arms must let the run fit into the "],
    "dataset=mnist dataset.root=new trainer.batch_size=1000000000": [
        "trainer.batch_size must let the run fit into the"
    ],
    "dataset=mnist dataset.root=new model=resnet model.blocks=1000000000": [
        "model.blocks must let the run fit into the"
    ],
    "dataset=mnist dataset.root=new model.channels=3200000": ["model.channels must let the run fit into the "],
    "dataset=mnist dataset.root=new model=mlp model.hidden=1000000000000": [
        "model.hidden must let the run fit into the"
    ],
    # Python's words, and Hydra's
    "seed==1": ["seed==1 must be key=value, got extraneous input '='; quote special characters, as key='a, b'"],
    "=3": ["=3 must be key=value, as model=resnet or trainer.lr=0.1"],
    "model.activation=sine": ["model.activation must be one of tanh, softplus, silu, null, got sine; "],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="latin-1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")  # no Slurm
    return tmp_path


def refused(words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        preflight(shlex.split(words))
    return str(caught.value).splitlines()


@pytest.mark.parametrize("words", REFUSED)
def test_a_request_that_cannot_be_fulfilled_is_refused_before_a_folder_is_made(words: str, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    got = refused(words)
    assert len(got) == len(REFUSED[words]) <= 4
    for line, start in zip(got, REFUSED[words], strict=True):
        assert line.startswith(start)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("words", ["dataset=unstable dataset.t_max=1e6", "-m seed=range(0,0)", "hydra.run.dir=/proc/x"])
def test_the_command_exits_with_2_and_one_line(words: str, tmp_path: Path) -> None:
    done = train(*words.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert not list(tmp_path.iterdir())


# Of every key what it cannot be; the answer is in the terms of the command line.
NONSENSE = ("[1,[2]]", "{a:1}", "sine", "null", "true", "-1", "1e999", "99999999999999999999", "''", "'é'")
PYTHON = ("typing", "Literal", "<class", "NoneType", "Traceback", "Error", "pydantic", "tuple", "dict", "None")


@pytest.mark.parametrize("dataset", ["mnist", "van-der-pol", "circle", "gaussian"])
def test_no_python_shows_in_an_answer(dataset: str, folder: Path, compose) -> None:
    config = compose(f"dataset={dataset}").model_dump()
    sections = {f"{section}.": values for section, values in config.items() if isinstance(values, dict)}
    top = {key: value for key, value in config.items() if not isinstance(value, dict)}
    keys = [f"{section}{key}" for section, values in {"": top, **sections}.items() for key in values]
    answers = []
    for key in (key for key in keys if key not in ("resume", "dataset.root")):
        for value in NONSENSE:
            try:
                compose(f"dataset={dataset}", f"{key}={value}")
            except ConfigError as error:
                answers.append(str(error))
    assert len(answers) > 3 * len(keys)
    assert max(len(answer.splitlines()) for answer in answers) <= 4
    assert not [answer for answer in answers if any(word in answer for word in PYTHON)]


def test_what_fits_is_accepted(folder: Path) -> None:
    few = f"dataset=mnist dataset.root={SAMPLE} dataset.validation=64 trainer.batch_size=320"
    for words in [few, "dataset=unstable dataset.t_max=60 precision=float64", f"threads={threads_limit()}"]:
        assert preflight([*words.split(), "check=true"]).answer
    assert preflight([*f"{JOBLIB} hydra.launcher.pre_dispatch=2*n_jobs hydra.launcher.n_jobs=-1".split()])


def test_a_folder_is_named_by_all_that_is_asked_for(folder: Path) -> None:
    (folder / "good.csv").write_text(
        "trajectory,t,z1\n" + "".join(f"{name},{t},{t}\n" for name in "ab" for t in range(6))
    )
    assert preflight(["dataset=csv", "dataset.path=good.csv", "trainer.window=1", "check=true"]).answer


def test_of_a_job_elsewhere_the_machine_is_not_asked_here(compose) -> None:
    config = compose("device=cuda:7", "threads=10000000")
    assert len(of_what_is_there(config)) == 2
    assert of_what_is_there(config, elsewhere=True) == []


def test_a_job_on_another_machine_fails_with_the_line_that_the_preflight_has(tmp_path: Path, compose) -> None:
    config = compose("threads=10000000")
    threads = torch.get_num_threads()
    [line] = map(str, of_what_is_there(config))
    with pytest.raises(RunFailed) as caught:
        run(config, tmp_path, {})
    summary = read_summary(tmp_path)
    assert line in str(caught.value)
    assert (summary["status"], summary["error"]["message"]) == ("failed", line)
    assert torch.get_num_threads() == threads


def test_a_file_is_read_once_for_all_cells(folder: Path, monkeypatch) -> None:
    from neuralode_exp.data import csv_trajectories

    # A file of its own: what is read once is kept for all tests.
    (folder / "once.csv").write_text((folder / "spiral.csv").read_text())
    read, reads = csv_trajectories.read_table, []
    monkeypatch.setattr(csv_trajectories, "read_table", lambda *a: reads.append(a) or read(*a))
    preflight(["-m", "dataset=csv", "dataset.path=once.csv", "trainer.window=1", "seed=range(20)"])
    assert len(reads) == 1
