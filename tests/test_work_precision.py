"""Trained runs under several solvers: which rows there are, and what stands in them."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from neuralode_exp.config import ConfigError
from neuralode_exp.evaluate import evaluate
from neuralode_exp.work_precision import combinations, curves, work_precision
from scripts.evaluate import main
from tests.conftest import TINY_IMAGES
from tests.runs import Compose, train_in

SHORT = ("trainer.epochs=null", "trainer.max_steps=3", "figures=false", "threads=1", "precision=float64")
SWEEP = ("solver=euler,rk4,dopri5", "solver.rtol=1e-2,1e-5", "solver.step_size=0.5,0.25")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, compose: Compose) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    table = folder / "data.csv"
    lines = [f"{k},{0.1 * i},{math.cos(0.1 * i + k)},{math.sin(0.1 * i + k)}" for k in range(5) for i in range(8)]
    table.write_text("\n".join(["trajectory,t,z1,z2", *lines]))
    few = ("dataset.trajectories=6", "dataset.points=4", "dataset.t_max=4", "trainer.window=2", "model.width=8")
    words = {
        "dynamics": ("dataset=circle", *few, "model=odenet"),
        "map": ("dataset=circle", *few, "model=resnet"),
        "csv": (
            "dataset=csv",
            f"dataset.path={table}",
            "dataset.units=file",
            "model=rknet",
            "trainer.batch_size=8",
            "model.width=8",
        ),
        "flow": ("dataset=two-moons", "model=rknet", "dataset.test=50", "trainer.batch_size=8", "model.width=8"),
        "images": (*TINY_IMAGES, "model=odenet", "model.channels=8", "solver=rk4", "dataset.test=64"),
    }
    for name, of_run in words.items():
        (folder / name).mkdir()
        train_in(folder / name, compose(*of_run, *SHORT))
    return {name: folder / name for name in words}


def test_a_tolerance_is_both() -> None:
    words = list(combinations(["solver.rtol=0.1,0.01", "dataset.test=5"]))
    assert words == [
        ["solver.rtol=0.1", "dataset.test=5", "solver.atol=0.1"],
        ["solver.rtol=0.01", "dataset.test=5", "solver.atol=0.01"],
    ]
    assert list(combinations(["solver.rtol=0.1", "solver.atol=1"])) == [["solver.rtol=0.1", "solver.atol=1"]]


@pytest.mark.parametrize(
    ("name", "tag", "rk4"),
    # Three intervals of 4/3; each trajectory of the table has 7 of 0.1; flows and images go from 0 to 1.
    [
        ("dynamics", "dynamics/trajectory_error", (36, 72)),
        ("csv", "dynamics/validation_error", (28, 28)),
        ("flow", "density/kl", (8, 16)),
        ("images", "error/test", (8, 16)),
    ],
)
def test_every_task_has_both_errors_under_every_solver(
    runs: dict[str, Path], name: str, tag: str, rk4: tuple[int, int]
) -> None:
    rows = work_precision([runs[name]], SWEEP)
    assert {row.tag for row in rows} == {tag}
    found = {(row.solver, row.setting): row for row in rows}
    coarse, fine = (found["rk4", f"step_size={h}"] for h in (0.5, 0.25))
    assert (coarse.nfe, fine.nfe) == rk4
    loose, tight = (found["dopri5", f"rtol={tolerance}"] for tolerance in ("0.01", "1e-05"))
    assert len(found) == len(rows) == 6
    assert tight.difference < 1e-3
    assert tight.difference <= loose.difference + 1e-7  # the field of so short a training hardly bends
    if coarse.nfe != fine.nfe:  # steps end at observations, so that those of the table need no shorter ones
        assert fine.difference < coarse.difference / 4 + 1e-6
    again = evaluate(runs[name], ["solver=rk4", "solver.step_size=0.25"])
    assert fine.error == pytest.approx(again.now[tag])
    assert again.now["nfe/test"] == fine.nfe


def test_several_runs_stand_in_one_table_a_csv_and_a_picture(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(runs["dynamics"]), *SWEEP, str(runs["map"]), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 6 + 1
    assert lines[0].split()[:2] == ["run", "solver"]
    assert lines[-1].split()[:3] == ["resnet", "map", "resnet"]  # no ODE, no solver
    with open(tmp_path / "out" / "work-precision.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["solver"] for row in rows] == ["euler"] * 2 + ["rk4"] * 2 + ["dopri5"] * 2 + [""]
    assert rows[-1]["difference"] == "nan"
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert (tmp_path / "out" / "work-precision.png").stat().st_size > 10_000


def test_a_solver_that_fails_costs_its_row_alone(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        str(runs["flow"]),
        "solver=euler,dopri5",
        "solver.max_steps=1",
        "solver.rtol=1e-8",
        "solver.step_size=1",
    ]
    assert main([*words, "--json"]) == 0
    euler, dopri5 = json.loads(capsys.readouterr().out)
    assert euler["failure"] == ""
    assert dopri5["failure"].startswith("MaxStepsExceeded: ")
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "dopri5 rtol=1e-08: MaxStepsExceeded" in out
    assert (runs["flow"] / "work-precision.csv").exists()


def test_another_table_is_measured_in_the_units_of_the_trained_one(tmp_path: Path, compose: Compose) -> None:
    for name, size in (("trained", 1.0), ("other", 50.0)):
        rows = [f"{0.1 * i},{size * math.cos(0.3 * i)},{math.sin(0.3 * i)}" for i in range(40)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["t,x,y", *rows]))
    words = ("dataset=csv", f"dataset.path={tmp_path}/trained.csv", "model.width=8", *SHORT)
    run = train_in(tmp_path / "run", compose(*words))
    other = f"dataset.path={tmp_path}/other.csv"
    row, _ = work_precision([run], [other, "solver=dopri5,rk4"])
    assert row.error == pytest.approx(evaluate(run, [other]).now["dynamics/validation_error"])


def test_rows_tell_what_else_differs_between_them(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["dataset.noise=0,0.5", "threads=1,2", "solver=rk4", "solver.step_size=0.5"]
    changes = [
        f"{noise} {threads}"
        for noise in ("dataset.noise=0", "dataset.noise=0.5")
        for threads in ("threads=1", "threads=2")
    ]
    assert main([str(runs["dynamics"]), *words, "--out", str(tmp_path)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["solver", "changes"]
    assert [" ".join(line.split()[2:4]) for line in lines] == changes
    with open(tmp_path / "work-precision.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["changes"] for row in rows] == changes
    assert list(curves(work_precision([runs["map"]], ["dataset.noise=0,0.5"]))) == [
        "resnet dataset.noise=0",
        "resnet dataset.noise=0.5",
    ]


def test_a_file_in_place_of_the_folder_for_the_table_is_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([str(runs["map"]), str(runs["map"]), "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith("--out must name a folder, got ")
    assert main([str(runs["map"]), "--out", str(tmp_path)]) == 2
    line = f"--out is for the table of several runs or values, got {tmp_path} with one of each; leave it out\n"
    assert capsys.readouterr().err == line


def test_nothing_held_out_is_said(tmp_path: Path, runs: dict[str, Path], compose: Compose) -> None:
    words = (
        "dataset=csv",
        f"dataset.path={runs['csv'].parent}/data.csv",
        "dataset.validation=0",
        "dataset.units=file",
        "model=rknet",
    )
    train_in(tmp_path, compose(*words, *SHORT, "trainer.batch_size=8"))
    with pytest.raises(ConfigError, match="RUN must have held-out data"):
        work_precision([tmp_path], SWEEP)
