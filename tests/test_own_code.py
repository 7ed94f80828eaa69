"""The user's own file, from the command line: trained, resumed, loaded, reported, and what it gets wrong."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
import yaml

from neuralode_exp import load_run
from neuralode_exp.config import Config, ConfigError, stored_config
from neuralode_exp.config.compose import CONF, Composer
from neuralode_exp.config.hydra_internals import make_loader
from neuralode_exp.config.preflight import preflight
from neuralode_exp.evaluate import evaluate
from neuralode_exp.load import NotLoadable
from neuralode_exp.outcome import RunFailed
from neuralode_exp.registry import of_package
from neuralode_exp.report.report import make_report, text
from neuralode_exp.run import run
from neuralode_exp.tracking.lock import Held, lock
from neuralode_exp.tracking.summary import read_summary
from tests.conftest import ROOT, TINY_IMAGES, train, train_here
from tests.runs import assert_same_weights

OWN = """
import torch
from torch import nn
from neuralode_exp.extend import field, system

@field("damped")
class Damped(nn.Module):
    def __init__(self, dim: int, *, width: int = 8, damping: float = 0.1):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, width), nn.Tanh(), nn.Linear(width, dim))
        self.damping = damping

    def forward(self, t, z):
        return self.net(z) - self.damping * z

@field("narrow")
class Narrow(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.net = nn.Linear(dim, 1)

    def forward(self, t, z):
        return self.net(z)

@field("broken")
class Broken(Narrow):
    def forward(self, t, z):
        return self.nothing(z)

@field("no-module")
class NoModule:
    def __init__(self, dim: int): ...
    def forward(self, t, z): ...

@field("unstackable")
class Unstackable(Narrow):
    def forward(self, t, z):
        return z * float(z.sum())

@field("detached")
class Detached(Damped):
    def forward(self, t, z):
        return super().forward(t, z.detach())

@field("infinite")
class Infinite(Damped):
    def forward(self, t, z):
        return z / 0

@field("noisy")
class Noisy(Damped):
    def forward(self, t, z):
        return nn.functional.dropout(super().forward(t, z))

@system("swing", dim=2)
def swing(t, z, *, length: float = 1.0):
    angle, speed = z.unbind(-1)
    return torch.stack((speed, -torch.sin(angle) / length), -1)

@system("flat", dim=3)
def flat(t, z):
    return z[..., :2]
"""
SWING = ("dataset=system", "dataset.system=swing", "dataset.options.length=2.0")
DAMPED = ("extensions=[my_fields.py]", "model.field=damped", "model.options.damping=0.2")
FEW = ("dataset.trajectories=8", "dataset.points=20", "trainer.max_steps=6", "figures=false", "threads=1")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the user's file, where everything happens."""
    (tmp_path / "my_fields.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compose_here(*words: str) -> Config:
    composer = Composer(make_loader(CONF))
    return composer.config(composer.parse(words, []))


def mistakes(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        preflight(list(words))
    return str(caught.value)


def test_an_example_is_trained_resumed_after_a_kill_loaded_and_reported(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*DAMPED, *SWING, *FEW, "trainer.checkpoint_every=1", "trainer.max_steps=60")
    assert train_here(monkeypatch, *words, "hydra.run.dir=whole") == 0
    digest = hashlib.sha256(OWN.encode()).hexdigest()
    summary = read_summary(here / "whole")
    assert summary is not None
    assert summary["extensions"] == {"my_fields.py": digest}
    assert summary["metrics"].keys() >= {"dynamics/field_error", "dynamics/eigenvalue_error"}
    stored = yaml.safe_load((here / "whole" / ".hydra" / "config.yaml").read_text())
    assert stored["model"]["options"] == {"damping": 0.2, "width": 8}
    assert stored["dataset"]["options"] == {"length": 2.0}

    command = [sys.executable, str(ROOT / "train.py"), *words, "hydra.run.dir=cut"]
    process = subprocess.Popen(command, cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (here / "cut" / "checkpoints" / "last.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert train_here(monkeypatch, "resume=cut") == 2
    assert train_here(monkeypatch, "resume=cut", "extensions=[my_fields.py]") == 0
    assert_same_weights(here / "whole", here / "cut")

    model, config = load_run(here / "whole", extensions=["my_fields.py"])
    assert config.model.options == {"damping": 0.2, "width": 8}
    assert model(torch.rand(5, 2), torch.linspace(0, 1, 3)).shape == (3, 5, 2)
    now = evaluate(here / "whole", ["extensions=[my_fields.py]", "solver.rtol=1e-5"]).now
    assert now["dynamics/trajectory_error"] == pytest.approx(summary["metrics"]["dynamics/trajectory_error"], rel=1e-2)
    assert "trajectory error" in text(make_report([here / "whole"]))


def test_a_grid_over_options_runs_in_workers_that_import_the_file(here: Path) -> None:
    words = ("-m", DAMPED[0], DAMPED[1], "model.options.damping=0.1,0.2", *SWING, *FEW, "hydra.sweep.dir=grid")
    done = train(*words, "hydra/launcher=joblib", cwd=here)
    assert done.returncode == 0, done.stderr
    assert "2 completed" in done.stdout
    assert "model.options.damping=0.1" in done.stdout
    options = {
        yaml.safe_load(path.read_text())["model"]["options"]["damping"]
        for path in here.glob("grid/*/.hydra/config.yaml")
    }
    assert options == {0.1, 0.2}
    again = train(*words, cwd=here)
    assert "2 cells, 0 to run" in again.stdout + again.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with the user's field."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "my_fields.py").write_text(OWN)
    assert train(*DAMPED, *FEW, "hydra.run.dir=run", cwd=folder).returncode == 0
    return folder / "run"


@pytest.fixture
def elsewhere(here: Path, trained: Path) -> Path:
    """The folder of a run from elsewhere, whose file would say so if it were imported."""
    (here / "my_fields.py").write_text("raise SystemExit('imported')\n")
    return Path(shutil.copytree(trained, here / "run"))


def test_nothing_is_imported_because_a_folder_names_it(elsewhere: Path) -> None:
    asked = "extensions must be given again, because no stored path is imported: the run had 1, got none"
    for take_up in (load_run, evaluate):
        with pytest.raises(NotLoadable, match=asked):
            take_up(elsewhere)
    assert "trajectory error" in text(make_report([elsewhere]))
    summary = elsewhere / "summary.json"
    summary.write_text(summary.read_text().replace('"completed"', '"interrupted"'))
    assert mistakes(f"resume={elsewhere}") == f"{asked}; add extensions=[my_fields.py]"


@pytest.mark.parametrize("spoil", ["no summary", "no hashes"])
def test_a_run_that_stored_no_hashes_imports_only_what_is_given(spoil: str, elsewhere: Path) -> None:
    summary = elsewhere / "summary.json"
    stored = json.loads(summary.read_text())
    del stored["extensions"]
    summary.write_text(json.dumps({**stored, "status": "failed"}))
    if spoil == "no summary":
        summary.unlink()
    asked = "extensions must be given again, because no stored path is imported: the run had 1, got none"
    assert mistakes(f"resume={elsewhere}") == f"{asked}; add extensions=[my_fields.py]"
    Path("given.py").write_text(OWN)
    assert "extensions=[given.py]" in preflight([f"resume={elsewhere}", "extensions=[given.py]"]).argv
    assert "the run had 1, got given.py, given.py" in mistakes(f"resume={elsewhere}", "extensions=[given.py,given.py]")


def test_a_run_that_its_machine_refused_has_its_hashes(here: Path) -> None:
    config = compose_here(*DAMPED, *FEW, "threads=10000000")
    with pytest.raises(RunFailed, match="threads must be at most"):
        run(config, here / "out", config.model_dump(mode="json"))
    summary = read_summary(here / "out")
    assert summary is not None
    assert summary["extensions"] == {"my_fields.py": hashlib.sha256(OWN.encode()).hexdigest()}


def test_a_trained_field_is_evaluated_on_ones_own_system(trained: Path, here: Path) -> None:
    now = evaluate(trained, ["extensions=[my_fields.py]", "dataset=system", "dataset.system=swing"]).now
    assert now["dynamics/trajectory_error"] > 0


def test_a_run_without_files_is_evaluated_on_ones_own_system(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train_here(monkeypatch, *FEW, "hydra.run.dir=plain") == 0
    words = ["dataset=system", "dataset.system=swing", "extensions=[my_fields.py]"]
    assert evaluate(here / "plain", words).now["dynamics/trajectory_error"] > 0


def test_the_stored_config_is_written_whole_and_only_by_the_process_that_holds_the_folder(here: Path) -> None:
    config = compose_here(*DAMPED, *FEW)
    values = {
        **config.model_dump(mode="json"),
        "solver": {**config.solver.model_dump(), "rtol": "${dataset.tolerance}"},
    }
    values["model"]["options"] = {"damping": 0.2}
    stored = here / "out" / ".hydra" / "config.yaml"
    stored.parent.mkdir(parents=True)
    stored.write_text("")  # as another process's Hydra leaves it for a moment
    with lock(here / "out"), pytest.raises(Held):
        run(config, here / "out", values)
    assert stored.read_text() == ""
    run(config, here / "out", values)
    written = yaml.safe_load(stored.read_text())
    assert written["model"]["options"] == {"damping": 0.2, "width": 8}
    assert written["solver"]["rtol"] == "${dataset.tolerance}"
    assert stored_config(here / "out") == config


BOXED = """
from neuralode_exp.extend import system

@system("boxed", dim=2)
def boxed(t, z, *, box: tuple[float, float] = (0.0, 1.0)):
    return -z
"""


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ("[1,2,3]", "dataset.options.box must have at most 2 entries, got [1, 2, 3]; boxed is in boxed.py, line 4"),
        ("[1]", "dataset.options.box[1] must be given, got [1]; boxed is in boxed.py, line 4"),
    ],
)
def test_a_list_of_another_length_is_refused(here: Path, box: str, says: str) -> None:
    (here / "boxed.py").write_text(BOXED)
    words = ("extensions=[boxed.py]", "dataset=system", "dataset.system=boxed")
    assert mistakes(*words, f"dataset.options.box={box}").startswith(says)


def test_a_changed_file_is_refused_with_both_hashes(elsewhere: Path) -> None:
    was, now = (hashlib.sha256(source).hexdigest() for source in (OWN.encode(), Path("my_fields.py").read_bytes()))
    line = (
        f"extensions must be the files of the run, by SHA-256, got my_fields.py {now}; the run had my_fields.py {was}"
    )
    with pytest.raises(NotLoadable) as refused:
        load_run(elsewhere, extensions=["my_fields.py"])
    assert str(refused.value) == line
    summary = elsewhere / "summary.json"
    summary.write_text(summary.read_text().replace('"completed"', '"interrupted"'))
    assert mistakes(f"resume={elsewhere}", "extensions=[my_fields.py]") == line


def test_the_hash_and_the_options_are_in_the_identity_and_the_place_is_not(here: Path) -> None:
    def identity(*words: str) -> str:
        return str(preflight([*words, *SWING, "check=true"]).answer)

    one = identity(*DAMPED)
    (here / "sub").mkdir()
    (here / "sub" / "moved.py").write_text(OWN)
    assert identity("extensions=[sub/moved.py]", *DAMPED[1:]) == one
    assert identity(*DAMPED, "model.options.width=8", "model.width=3") == one  # the default, and a key that is not read
    assert identity(*DAMPED, "model.options.width=9") != one
    (here / "sub" / "moved.py").write_text(OWN + "\n# changed")
    assert identity("extensions=[sub/moved.py]", *DAMPED[1:]) != one


OF_PACKAGE = ", ".join(entry.name for entry in of_package("field"))
WRONG = {
    "model.field=dampd": f"model.field must be one of {OF_PACKAGE}, damped, narrow, broken, no-module, unstackable, "
    "detached, infinite, noisy, got dampd; did you mean damped?",
    "model.field=damped model.options.dampng=1": "model.options.dampng is not a key; did you mean "
    "model.options.damping?",
    "model.field=damped model.options.width=a": "model.options.width must be a whole number, got a; damped is in "
    "my_fields.py, line 6; the default is 8",
    "model.field=damped model.options={dampng: 1}": "model.options.dampng is not a key; did you mean "
    "model.options.damping?",
    "model.field=narrow": "model.field must give dz/dt of the shape of z, (3, 2) in a trial, got (3, 1); correct "
    "narrow in my_fields.py, line 16",
    "model.field=broken": "model.field must work on a tiny input, got my_fields.py, line 28: AttributeError: 'Broken' "
    "object has no attribute 'nothing'; broken is in my_fields.py, line 25",
    "model.field=no-module": "model.field must be an nn.Module, got no-module (my_fields.py, line 30); derive the "
    "class from it",
    "model.field=unstackable trainer.replicas=3": "trainer.replicas must be 1, as model.field=unstackable cannot be "
    "stacked by torch.func, got 3: vmap: It looks like you're calling .item() on a Tensor.",
    "model.field=detached dataset=two-moons": "model.field must have forward-mode derivatives for the trace of a "
    "density, got one that is 100% off the field's differences; do not detach z in detached (my_fields.py, line 40)",
    "model.field=infinite": "model.field must give finite dz/dt in a trial, got infinite (my_fields.py, line 45); ",
    "model.field=noisy": "model.gradient must not be adjoint with a field that draws random numbers, as its equation "
    "changes with them, got noisy (my_fields.py, line 50); use model.gradient=checkpoint",
    "model.options.damping=1": "model.options are not read by model.field=mlp; leave them out, or choose a registered "
    "field",
    "dataset=system dataset.system=swng": "dataset.system must be one of swing, flat, got swng; did you mean swing?",
    "dataset=system": "dataset.system must be given; add dataset.system=VALUE",
    "dataset=system dataset.system=flat": "dataset.system must give dz/dt of the shape of z, (3, 3) in a trial, got "
    "(3, 2); correct flat in my_fields.py, line 60",
    "dataset=system dataset.system=swing dataset.options.lenght=1": "dataset.options.lenght is not a key; did you mean "
    "dataset.options.length?",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_request_is_one_line(words: str) -> None:
    separate = re.split(r"(?<!:) ", words)
    assert mistakes("extensions=[my_fields.py]", *separate).startswith(WRONG[words])


DRIVEN = """
import torch
from torch import nn
from neuralode_exp.extend import field, system

@system("pushed", dim=2, inputs=[(-1.0, 1.0)])
def pushed(t, z, u, *, length: float = 1.0):
    angle, speed = z.unbind(-1)
    return torch.stack((speed, u[..., 0] - torch.sin(angle) / length), -1)

@field("led")
class Led(nn.Module):
    def __init__(self, dim: int, inputs: int):
        super().__init__()
        self.net = nn.Linear(dim + inputs, dim)

    def forward(self, t, z, u):
        return self.net(torch.cat((z, u), -1))

@field("doubled")
class Doubled(Led):
    def forward(self, t, z, u):
        return super().forward(t, z, u).double()

@system("vector-energy", dim=2, energy=lambda: lambda z: z**2)
def vector_energy(t, z):
    return -z

@system("root", dim=1)
def root(t, z):
    return z.sqrt()
"""


PUSHED = ("dataset=system", "dataset.system=pushed")


@pytest.fixture
def driven(here: Path) -> str:
    (here / "driven.py").write_text(DRIVEN)
    return "extensions=[driven.py]"


@pytest.mark.parametrize("words", [PUSHED, (*PUSHED, "model.field=led", "trainer.replicas=2"), ("dataset=duffing",)])
def test_inputs_of_ones_own_code(words: tuple[str, ...], driven: str, monkeypatch: pytest.MonkeyPatch) -> None:
    field = () if words == PUSHED else ("model.field=led",)
    assert train_here(monkeypatch, driven, *words, *field, *FEW, "hydra.run.dir=out") == 0
    summary = read_summary("out")
    assert summary is not None
    assert summary["metrics"]["dynamics/field_error"] > 0.0


def test_what_a_trial_sees(driven: str) -> None:
    doubled = mistakes(driven, "dataset=duffing", "model.field=doubled")
    assert "of the dtype of z, float32 in a trial, got float64" in doubled
    energy = mistakes(driven, "dataset=system", "dataset.system=vector-energy")
    assert "its energy, (3,) in a trial, got (3, 2)" in energy


def test_a_system_that_is_not_a_number_ends(
    driven: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(monkeypatch, driven, "dataset=system", "dataset.system=root", *FEW, "hydra.run.dir=out") == 1
    assert "must be finite at its initial states" in "".join(capsys.readouterr())


@pytest.mark.parametrize("text", ["", "[1]", '{"status": "completed"}'])
def test_a_damaged_summary_is_named(text: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train_here(monkeypatch, *SWING, "extensions=[my_fields.py]", *FEW, "hydra.run.dir=out") == 0
    (here / "out" / "summary.json").write_text(text)
    line = mistakes("resume=out", "extensions=[my_fields.py]")
    assert line.startswith(f"resume cannot go on: {here / 'out' / 'summary.json'} is damaged (")


def test_a_name_that_is_taken_is_refused_with_both_places(here: Path) -> None:
    (here / "more.py").write_text(
        textwrap.dedent("""
            from neuralode_exp.extend import field, system

            @system("circle", dim=2)
            def circle(t, z): ...

            @field("damped")
            class Damped:
                def __init__(self, dim: int): ...
                def forward(self, t, z): ...
        """)
    )
    assert mistakes("extensions=[my_fields.py,more.py]").splitlines() == [
        "extensions must register free names, and circle is already a system of the package, got more.py, line 4; "
        "choose another name",
        "extensions must register free names, and damped is already a field of my_fields.py, line 6, got more.py, "
        "line 7; choose another name",
    ]


def test_an_error_in_the_file_ends_with_2_and_writes_nothing(here: Path) -> None:
    (here / "my_fields.py").write_text("import torch\n\nx = 1 +\n")
    before = sorted(here.iterdir())
    ended = train("extensions=[my_fields.py]", cwd=here)
    assert ended.returncode == 2
    assert ended.stderr == (
        "extensions cannot be imported, got my_fields.py, line 3: SyntaxError: invalid syntax; correct it\n"
    )
    assert sorted(here.iterdir()) == before


MORE = """
import math
import torch
from neuralode_exp.extend import density, metric

@metric("swing/last_angle_error")
def last_angle_error(model, data):
    [known] = data
    z = model(known.z[0], known.t)
    return (z[-1, :, 0] - known.z[-1, :, 0]).abs().mean()

@metric("mean/likelihood", on="densities")
def likelihood(model, data, *, rows: int = 10):
    return {"mean/likelihood": model.log_prob(data[:rows]).exp().mean(), "mean/rows": rows}

@density("blob")
class Blob:
    def __init__(self, *, scale: float = 1.0):
        self.scale = scale

    def sample(self, n, generator):
        return self.scale * torch.randn(n, 2, generator=generator)

    def log_prob(self, x):
        return -(x / self.scale).square().sum(1) / 2 - math.log(2 * math.pi * self.scale**2)

@density("ring")
class Ring:
    def __init__(self): ...

    def sample(self, n, generator):
        angle = 6.283185307 * torch.rand(n, 1, generator=generator)
        return torch.cat((angle.cos(), angle.sin()), 1)
"""
FEW_POINTS = ("dataset.validation=50", "dataset.test=50", "trainer.batch_size=32", "trainer.max_steps=4", "solver=rk4")


def test_a_metric_is_recorded_shown_and_may_be_the_objective(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "more.py").write_text(MORE)
    asked = ("extensions=[more.py]", *FEW, "objective=swing/last_angle_error", "hydra.run.dir=run")
    assert train_here(monkeypatch, *asked) == 0
    assert "swing/last_angle_error" in capsys.readouterr().out
    summary = read_summary(here / "run")
    assert summary is not None
    assert summary["objective"] == summary["metrics"]["swing/last_angle_error"] > 0
    assert "mean/likelihood" not in summary["metrics"]
    again = ("extensions=[more.py]", *FEW, "trainer.replicas=2", "hydra.run.dir=two")
    assert train(*again, cwd=here).returncode == 0
    two = read_summary(here / "two")
    assert two is not None
    one, both = summary["metrics"], two["metrics"]
    lower, upper = (both["swing/last_angle_error"] + k * both["swing/last_angle_error_std"] / 2**0.5 for k in (-1, 1))
    # Replica 0 is the run alone: of two numbers the mean is half of their distance away from each.
    alone = one["swing/last_angle_error"]
    assert min(abs(lower - alone), abs(upper - alone)) < 1e-3 * alone
    assert mistakes("extensions=[more.py]", *FEW, "objective=mean/likelihood").startswith("objective must be a tag of")


@pytest.mark.parametrize("result", ["'good'", "z[-1, 0]", "{'a': None}"])
def test_a_metric_that_gives_no_number_is_named(
    result: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "more.py").write_text(
        MORE.replace("return (z[-1, :, 0] - known.z[-1, :, 0]).abs().mean()", f"return {result}")
    )
    assert train_here(monkeypatch, "extensions=[more.py]", *FEW, "hydra.run.dir=run") == 1
    rule = "ValueError: the metric swing/last_angle_error must give a number, or numbers by their names, got "
    assert rule in "".join(capsys.readouterr())


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_a_density_of_ones_own_is_learned_by_a_field_of_ones_own(
    trace: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "more.py").write_text(MORE)
    words = ("extensions=[my_fields.py,more.py]", "model.field=damped", f"model.trace={trace}", "figures=false")
    data = ("dataset=density", "dataset.density=blob", "dataset.options.scale=2")
    assert train_here(monkeypatch, *words, *data, *FEW_POINTS, "hydra.run.dir=run") == 0
    summary = read_summary(here / "run")
    assert summary is not None
    metrics = summary["metrics"]
    assert metrics.keys() >= {"density/kl", "mean/likelihood", "time/trace_ms", "time/determinant_ms"}
    assert metrics["mean/rows"] == 10
    assert metrics["density/mass"] == pytest.approx(1, abs=0.02)  # of a midpoint rule over a finite box
    assert metrics["density/inversion_error"] < 1e-3
    model, _ = load_run(here / "run", extensions=["more.py", "my_fields.py"])
    assert model.log_prob(torch.zeros(5, 2)).shape == (5,)


def test_a_density_without_a_log_density_has_a_likelihood_and_no_divergence(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "more.py").write_text(MORE)
    words = ("extensions=[more.py]", "dataset=density", "dataset.density=ring", "model.width=8")
    assert train_here(monkeypatch, *words, *FEW_POINTS, "figures=true", "hydra.run.dir=run") == 0
    summary = read_summary(here / "run")
    assert summary is not None
    assert "density/nll" in summary["metrics"]
    assert "density/kl" not in summary["metrics"]


ON_IMAGES = """
import torch
from torch import nn
from neuralode_exp.extend import field, metric

@field("blur", on="images")
class Blur(nn.Module):
    def __init__(self, channels: int, *, size: int = 3):
        super().__init__()
        self.net = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels)

    def forward(self, t, z):
        return torch.tanh(self.net(z)) * (1 + t)

@metric("mean/confidence", on="images")
def confidence(model, data):
    images, labels = data
    assert len(images) == len(labels)
    return model(images).softmax(1).amax(1).mean()
"""


def test_a_field_on_images_has_the_place_of_the_convolutions(here: Path) -> None:
    (here / "pictures.py").write_text(ON_IMAGES)
    words = ("extensions=[pictures.py,my_fields.py]", *TINY_IMAGES, "model.channels=4", "solver=euler")
    done = train(*words, "model.field=blur", "model.options.size=5", "hydra.run.dir=run", cwd=here)
    assert done.returncode == 0, done.stderr
    summary = read_summary(here / "run")
    assert summary is not None
    assert 0.1 < summary["metrics"]["mean/confidence"] <= 1
    model, _ = load_run(here / "run", extensions=["pictures.py", "my_fields.py"])
    assert model.state_dict()["body.ode.field.net.weight"].shape == (4, 1, 5, 5)
    assert mistakes(*words, "model.field=damped").startswith(
        'model.field must be a field on images for dataset=mnist, got damped (my_fields.py, line 6), on="vectors"; '
    )
    assert mistakes(words[0], "model.field=blur").startswith("model.field must be a field on vectors for dataset=spir")


@pytest.mark.parametrize(("data", "dim"), [("torus", 3), ("gaussians-3d", 3), ("gaussian", 4), ("csv", 3)])
def test_the_trial_has_the_dimension_of_the_data(data: str, dim: int, here: Path) -> None:
    rows = [f"{t},{t},{t * t},{1 - t}" for t in range(8)]
    (here / "table.csv").write_text("\n".join(["t,a,b,c", *rows]))
    more = {"gaussian": ["dataset.dim=4"], "csv": ["dataset.path=table.csv"]}.get(data, [])
    got = mistakes("extensions=[my_fields.py]", "model.field=narrow", f"dataset={data}", *more)
    assert got.startswith(f"model.field must give dz/dt of the shape of z, (3, {dim}) in a trial, got (3, 1)")
