"""Whole runs of the dynamics and the density trainer, a few steps each."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from neuralode_exp import extend, registry
from neuralode_exp.build import build_task
from neuralode_exp.config import Config
from neuralode_exp.evaluate import evaluate
from neuralode_exp.load import load_run
from neuralode_exp.outcome import RunFailed
from neuralode_exp.run import run
from neuralode_exp.tracking.metrics import read_metrics
from neuralode_exp.tracking.summary import read_summary
from neuralode_exp.trainers.loop import Loop
from tests.runs import Compose, weights

FEW = ("trainer.max_steps=6", "trainer.evaluate_every=3", "dataset.trajectories=10", "dataset.points=20", "threads=1")
# Replicas equal separate runs with fixed steps only: adaptive ones share their steps.
FIXED = ("model=rknet", "solver=rk4", "model.width=8", "figures=false")


def run_in(folder: Path, config: Config) -> dict[str, float]:
    folder.mkdir(exist_ok=True)
    run(config, folder, config.model_dump(mode="json"))
    summary = read_summary(folder)
    assert summary is not None
    assert summary["status"] == "completed"
    return summary["metrics"]


@pytest.mark.parametrize(
    ("model", "forward", "backward"),
    # Segments of 5 steps of 4/19 at a step size of 0.25: 5 rk4 steps; a residual map takes a block for each step.
    [("resnet", 5, 5), ("rknet", 20, 0), ("odenet", 20, 20)],
)
def test_a_dynamics_run_logs_every_tag(
    tmp_path: Path, compose: Compose, model: str, forward: int, backward: int
) -> None:
    metrics = run_in(tmp_path, compose(*FEW, f"model={model}", "solver=rk4"))
    for tag in (
        "loss/train",
        "dynamics/validation_error",
        "dynamics/trajectory_error",
        "dynamics/long_trajectory_error",
        "dynamics/field_error",
        "dynamics/eigenvalue_error",
        "least_squares/eigenvalue_error",
        "memory/peak_mib",
        "memory/saved_mib",
        "memory/autograd_peak_mib",
        "solver/failures",
    ):
        assert math.isfinite(metrics[tag]), tag
    assert ("solver/consistency" in metrics) is (model != "resnet")
    assert (metrics["nfe/forward"], metrics["nfe/backward"]) == (forward, backward)
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    wanted = {"dynamics-trajectories.png", "dynamics-eigenvalues.png", "learning.gif"}
    assert drawn == (wanted if model == "resnet" else wanted | {"dynamics-field.png"})


def test_replica_k_is_the_run_with_seed_plus_k(tmp_path: Path, compose: Compose) -> None:
    words = (*FEW, *FIXED, "trainer.max_steps=20", "precision=float64")
    stacked = run_in(tmp_path / "stack", compose(*words, "trainer.replicas=3", "seed=5"))
    rows = list(csv.DictReader((tmp_path / "stack" / "replicas.csv").open()))
    assert [row["seed"] for row in rows] == ["5", "6", "7"]
    of_stack = weights(tmp_path / "stack")
    for k in range(3):
        alone = run_in(tmp_path / str(k), compose(*words, f"seed={5 + k}"))
        for name, value in weights(tmp_path / str(k)).items():
            if name.startswith("flow.field.field.") or name == "shooting.e":
                together = of_stack[name.replace("field.field.", "field.field.stacked.")]
                # Sums in another order, grown over 20 steps of training.
                torch.testing.assert_close(together[k], value, rtol=1e-9, atol=1e-11)
        assert float(rows[k]["dynamics/field_error"]) == pytest.approx(alone["dynamics/field_error"], rel=1e-9)
    mean = sum(float(row["dynamics/field_error"]) for row in rows) / 3
    assert stacked["dynamics/field_error"] == pytest.approx(mean)
    assert stacked["dynamics/field_error_std"] > 0


@extend.field("test-damped")
class Damped(nn.Module):
    """A field that knows nothing of replicas, units or solvers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.matrix = nn.Linear(dim, dim)
        self.damping = nn.Parameter(torch.tensor(0.1))

    def forward(self, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return self.matrix(z) - self.damping * z


@pytest.mark.parametrize("model", ["rknet", "odenet"])
def test_any_module_is_a_field_alone_and_in_replicas(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(registry, "PACKAGE", Path(__file__).parents[2])
    words = (*FEW, *FIXED, f"model={model}", "model.field=test-damped", "precision=float64", "trainer.max_steps=20")
    run_in(tmp_path / "stack", compose(*words, "trainer.replicas=3", "seed=5"))
    together = weights(tmp_path / "stack")
    for k in range(3):
        run_in(tmp_path / str(k), compose(*words, f"seed={5 + k}"))
        for name, value in weights(tmp_path / str(k)).items():
            if name.startswith("flow.field.field."):
                of_stack = together[name.replace("field.field.", "field.field.stacked.")]
                torch.testing.assert_close(of_stack[k], value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("broken", ["state", "gradient"])
def test_a_diverging_replica_disturbs_no_other(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    words = (*FEW, *FIXED, "trainer.replicas=3", "trainer.max_failures=2")
    run_in(tmp_path / "sound", compose(*words))
    original = Loop._train_step

    def breaking(self: Loop, *, measure_memory: bool) -> None:
        if self.step == 2:
            with torch.no_grad():
                field = self.task.module["flow"].field.field.stacked  # type: ignore[index]
                if broken == "state":  # the solve overflows
                    field.biases[-1][1] = 1e30
                    field.weights[-1][1] = 1e30
                else:  # the solve stays finite, its loss is NaN
                    self.task.module["shooting"].e[1] = math.nan  # type: ignore[index]
        original(self, measure_memory=measure_memory)

    monkeypatch.setattr(Loop, "_train_step", breaking)
    metrics = run_in(tmp_path / "broken", compose(*words, "objective=loss/train"))
    assert metrics["solver/failures"] == 2.0
    assert metrics["dynamics/active_replicas"] == 2.0
    sound, other = weights(tmp_path / "sound"), weights(tmp_path / "broken")
    for name, value in sound.items():
        if name.startswith("flow.field.field."):
            assert torch.equal(value[[0, 2]], other[name][[0, 2]]), name
    rows = list(csv.DictReader((tmp_path / "broken" / "replicas.csv").open()))
    assert [row["active"] for row in rows] == ["True", "False", "True"]


def test_states_that_grow_by_a_factor_of_1e13_stay_finite(tmp_path: Path, compose: Compose) -> None:
    metrics = run_in(
        tmp_path, compose(*FEW, "dataset=unstable", "dataset.t_max=30", "trainer.max_steps=6", "figures=false")
    )
    assert all(math.isfinite(value) for value in metrics.values())


def test_measured_trajectories(tmp_path: Path, compose: Compose) -> None:
    path = tmp_path / "data.csv"
    rows = ["trajectory,t,z1,z2"]
    for k in range(5):
        for i in range(12):
            t = 0.1 * i + 0.01 * ((i * 7 + k) % 3)  # irregular, each trajectory its own
            rows.append(f"{k},{t},{math.exp(-t) * (k + 1)},{math.exp(-2 * t)}")
    path.write_text("\n".join(rows))
    words = ("dataset=csv", f"dataset.path={path}", "trainer.max_steps=6", "trainer.evaluate_every=3", "threads=1")
    metrics = run_in(tmp_path / "run", compose(*words))
    assert math.isfinite(metrics["dynamics/validation_error"])
    assert "dynamics/field_error" not in metrics
    assert (tmp_path / "run" / "figures" / "dynamics-trajectories.png").exists()


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_a_density_run_logs_every_tag(tmp_path: Path, compose: Compose, trace: str) -> None:
    words = ("dataset=two-moons", "trainer.max_steps=4", "trainer.evaluate_every=2", "trainer.batch_size=64")
    sizes = ("dataset.validation=200", "dataset.test=300", "model.width=8", f"model.trace={trace}", "threads=1")
    metrics = run_in(tmp_path, compose(*words, *sizes, "model=odenet", "solver=rk4"))
    for tag in (
        "loss/train",
        "loss/validation",
        "density/validation_nll",
        "density/validation_kl",
        "density/nll",
        "density/kl",
        "density/kl_standard_error",
        "density/mass",
        "density/inversion_error",
        "density/log_prob_error",
        "solver/consistency",
        "time/field_ms",
        "time/trace_ms",
        "time/determinant_ms",
    ):
        assert math.isfinite(metrics[tag]), tag
    assert metrics["density/mass"] == pytest.approx(1.0, abs=0.05)
    assert metrics["density/inversion_error"] < 1e-3
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"density-learned.png", "flow.gif"}
    assert read_metrics(tmp_path)["nfe/forward"][1] == [32.0] * 1


def test_without_validation_images_the_curve_shows_the_test_error(tmp_path: Path, compose: Compose) -> None:
    sample = Path(__file__).parents[1] / "assets" / "mnist-sample"
    words = (f"dataset.root={sample}", "dataset.validation=0", "dataset.test=100", "trainer.max_steps=4")
    metrics = run_in(tmp_path, compose("dataset=mnist", "model=mlp", *words, "trainer.evaluate_every=2"))
    steps, errors = read_metrics(tmp_path)["error/test"]
    assert steps == [2, 4]
    assert all(error == round(error) for error in errors)  # percent of 100 images
    assert metrics["error/test"] == errors[-1]
    assert "error/validation" not in metrics
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["images-mistakes.png"]


def test_single_shooting_restores_a_decaying_system(tmp_path: Path, compose: Compose) -> None:
    words = ("model=rknet", "model.field=linear", "solver=rk4", "trainer.shooting=single", "dataset.points=8")
    training = ("solver.step_size=1", "trainer.lr=0.5", "trainer.max_steps=300", "figures=false")
    metrics = run_in(tmp_path, compose(*words, *training))
    assert metrics["dynamics/eigenvalue_error"] < 0.02


@pytest.mark.parametrize(("dim", "drawn"), [(1, set()), (4, {"density-clouds.png", "flow.gif"})])
def test_a_density_in_other_dimensions(tmp_path: Path, compose: Compose, dim: int, drawn: set[str]) -> None:
    words = ("dataset=gaussian", f"dataset.dim={dim}", "trainer.max_steps=3", "trainer.batch_size=16", "threads=1")
    sizes = ("dataset.validation=50", "dataset.test=50", "model.width=8", "model=rknet", "solver=rk4")
    metrics = run_in(tmp_path, compose(*words, *sizes))
    assert math.isfinite(metrics["density/kl"])
    assert "density/mass" not in metrics
    assert {path.name for path in (tmp_path / "figures").iterdir()} == drawn


def test_whole_trajectories_of_a_growing_system_fail_in_one_line(tmp_path: Path, compose: Compose) -> None:
    few = ("dataset.trajectories=10", "dataset.points=10", "figures=false")
    with pytest.raises(
        RunFailed, match=r"NonFinite.*; pick trainer.shooting=multiple or a lower trainer.lr \(traceback in"
    ):
        run_in(tmp_path, compose("experiment=seed-crash", *few))
    summary = read_summary(tmp_path)
    assert summary is not None
    assert summary["status"] == "failed"


@pytest.mark.parametrize(("solver", "warned"), [("dopri5", True), ("lsoda", False)])
def test_a_stiff_system_is_announced_to_explicit_methods(
    compose: Compose, caplog: pytest.LogCaptureFixture, solver: str, warned: bool
) -> None:
    few = (*FEW, "dataset.trajectories=1", "dataset.validation=1", "dataset.test=1")
    build_task(compose(*few, "dataset=van-der-pol", "dataset.mu=100", f"solver={solver}"), torch.device("cpu"))
    assert any("is stiff: it decays at rates up to 289" in message for message in caplog.messages) is warned


@pytest.mark.parametrize("change", ["300 more", "1e20 times", "nanoseconds", "a gap"])
def test_a_table_in_other_units_trains_as_the_plain_one(change: str, tmp_path: Path, compose: Compose) -> None:
    def error(name: str, *, time: int = 1, factor: float = 1.0, offset: float = 0.0, gap: bool = False) -> float:
        path = tmp_path / f"{name}.csv"
        rows = [
            f"{time * k},{factor * math.cos(k / 8) + offset!r},{factor * math.sin(k / 8) + offset!r}" for k in range(40)
        ]
        if gap:
            rows[10] = rows[10].rsplit(",", 1)[0] + ","
        path.write_text("\n".join(["t,x,y", *rows]))
        words = ("dataset=csv", f"dataset.path={path}", "trainer.max_steps=8", "threads=1", "figures=false")
        metrics = run_in(tmp_path / name, compose(*words, "trainer.batch_size=8", "model.width=8"))
        assert metrics["dynamics/persistence_error"] > 0
        return metrics["dynamics/validation_error"]

    changes: dict[str, dict[str, Any]] = {
        "300 more": {"offset": 300.0},
        "1e20 times": {"factor": 1e20},
        "nanoseconds": {"time": 1_000_000_000},
        "a gap": {"gap": True},
    }
    assert error("changed", **changes[change]) == pytest.approx(error("plain"), rel=0.1)


def test_a_fit_that_is_worse_than_persistence_says_so(
    tmp_path: Path, compose: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("t,x\n" + "".join(f"{k},{k % 2 if k < 30 else 0.5 + k / 1000}\n" for k in range(40)))
    words = ("dataset=csv", f"dataset.path={path}", "trainer.max_steps=2", "threads=1", "model.width=8")
    metrics = run_in(tmp_path / "run", compose(*words, "trainer.batch_size=8"))
    assert metrics["dynamics/validation_error"] > metrics["dynamics/persistence_error"]
    assert "the fit is worse than persistence, which stays at the first held-out state" in caplog.text


def test_a_trained_table_is_loaded_in_its_own_units_and_judges_another_table(tmp_path: Path, compose: Compose) -> None:
    rows = [f"{100 + k / 4},{300 + 5 * math.cos(k / 8)!r},{1e-6 * math.sin(k / 8)!r}" for k in range(40)]
    table, later = tmp_path / "data.csv", tmp_path / "later.csv"
    table.write_text("\n".join(["t,x,y", *rows]))
    later.write_text("\n".join(["t,x,y", *rows[20:]]))  # ends alike, with another mean and spread
    words = ("dataset=csv", f"dataset.path={table}", "trainer.max_steps=4", "threads=1", "figures=false")
    folder = tmp_path / "run"
    metrics = run_in(folder, compose(*words, "trainer.batch_size=8", "model.width=8"))
    (folder / ".hydra").mkdir()
    config = compose(*words, "trainer.batch_size=8", "model.width=8").model_dump(mode="json")
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))

    model, _ = load_run(folder)
    held_out = torch.tensor([[float(cell) for cell in row.split(",")] for row in rows[32:]], dtype=torch.float64)
    z = model(held_out[:1, 1:], held_out[:, 0])[:, 0]
    train = torch.tensor([[float(cell) for cell in row.split(",")[1:]] for row in rows[:32]], dtype=torch.float64)
    off = (z - held_out[:, 1:])[1:]  # a forecast starts from the first row
    error = (off / train.std(0, correction=0)).square().mean().sqrt()
    assert float(error) == pytest.approx(metrics["dynamics/validation_error"], rel=1e-4)

    words_of_evaluate = [f"dataset.path={later}", "dataset.validation=0.4"]  # the last 8 of 20 are the last 8 of 40
    now = evaluate(folder, words_of_evaluate).now
    assert now["dynamics/validation_error"] == pytest.approx(metrics["dynamics/validation_error"], rel=1e-4)
