"""What the claims on MNIST say of runs whose truth is known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from claims import mnist

from neuralode_exp.report.runs import Run, settings_of


def run(
    model: str,
    gradient: str | None = None,
    *,
    curves: Any = None,
    metrics: Any = None,
    max_steps: int | None = None,
    **solver: Any,
) -> Run:
    settings: dict[str, Any] = {"trainer.epochs": 10, "trainer.max_steps": max_steps}
    settings |= {"model": model} | ({"model.gradient": gradient} if gradient else {})
    settings |= {"solver" if key == "name" else f"solver.{key}": value for key, value in solver.items()}
    return Run(Path(), "completed", None, settings, metrics or {}, None, curves or {})


def step(ms: float, held: float = 1.0, peak: float = 1.0, nfe: float = 4.0) -> dict[str, float]:
    return {
        "time/step_ms": ms,
        "memory/saved_mib": held,
        "memory/peak_mib": peak,
        "nfe/forward": nfe,
        "error/test": 2.0,
    }


def test_the_first_step_at_an_error() -> None:
    curve = ([10, 20, 30], [3.0, 1.0, 1.2])
    assert mnist.steps_to(run("resnet", curves={"error/test": curve}), 1.0) == 20
    assert mnist.steps_to(run("resnet", curves={"error/test": curve}), 0.5) == math.inf
    assert mnist.steps_to(run("resnet"), 1.0) == math.inf


def test_the_table_has_published_and_measured_errors(tmp_path: Path) -> None:
    figure = {"name": "odenet (checkpoint), one step of rk4: time over resnet's", "value": 0.9}
    (tmp_path / "benchmark-cost.json").write_text(json.dumps({"figures": [figure]}))
    (folder := tmp_path / "mnist-table").mkdir()
    words: Any = {"name": "rk4", "step_size": 1.0}
    runs = [
        run("odenet (checkpoint)", "checkpoint", metrics=step(250.0), curves=reaching(steps), **words)
        for steps in (100, 200)
    ]
    runs += [run("resnet", metrics=step(60.0), curves=reaching(100)), run("stem", metrics=step(50.0))]
    said = "\n".join(mnist.table(runs, folder))
    # 150 steps over 100, each in 0.9 of the time. The runs' own 250 and 60 ms do not count.
    assert "| odenet (checkpoint) | checkpoint, rk4 h=1 | 0.42 | 2.000 ± 0.000 | 2 | 150 | 1.35 |" in said
    assert "| resnet |  | 0.41 | 2.00 | 1 | 100 |  |" in said
    assert "| stem |  |  | 2.00 | 1 | not reached |  |" in said
    assert "Here: 10 epochs" in said
    assert (folder / "figure.png").exists()


def reaching(steps: int) -> dict[str, Any]:
    """Return the curve of a run that reaches 1 % after these steps."""
    return {"error/test": ([steps - 50, steps, 300], [1.5, 1.0, 0.8])}


def test_what_blocks_take_off_and_whether_they_differ_from_resnet(tmp_path: Path) -> None:
    errors = {"stem": [0.7, 0.5], "resnet": [0.4, 0.3, 0.5], "rknet": [0.4, 0.5, 0.6], "odenet": [0.1]}
    runs = [run(name, metrics={"error/test": error}) for name, some in errors.items() for error in some]
    stem, against = mnist.blocks(runs, tmp_path)
    assert "errs on 0.60 %" in stem
    assert "resnet 0.20, rknet 0.10, odenet (adjoint) 0.50." in stem
    # Means 0.1 apart, each with a standard error of 0.1 / sqrt(3): t = 1.2247 with 4 degrees of freedom.
    assert "rknet +0.100 (p = 0.29)." in against
    assert "odenet" not in against
    assert "standard error of 0.06 points" in against


def test_memory_is_a_ratio_over_evaluations(tmp_path: Path) -> None:
    runs = [run("odenet", "adjoint", metrics=step(1.0, 3.0, 4.0, nfe)) for nfe in (64.0, 8.0)]
    runs += [run("rknet", "backprop", metrics=step(1.0, nfe, nfe, nfe)) for nfe in (8.0, 64.0)]
    said = "\n".join(mnist.memory(runs, tmp_path))
    assert "those in brackets (resnet: blocks): rknet 8.00 (8 to 64), odenet (adjoint) 1.00 (8 to 64)." in said
    assert "Peak of a training step, the same ratio: rknet 8.00 (8 to 64), odenet (adjoint) 1.00 (8 to 64). The" in said
    assert "(resnet: for each block): rknet 1.00, odenet (adjoint) 0.00." in said.replace("-0.00", "0.00")


def test_errors_by_order_and_by_step_size(tmp_path: Path) -> None:
    def grid(max_steps: int | None) -> list[Run]:
        return [
            run("odenet", metrics={"error/test": k + h}, max_steps=max_steps, name=solver, step_size=h)
            for solver, k in mnist.STAGES.items()
            for h in (1.0, 0.5)
        ]

    said = "\n".join(mnist.k_over_h(grid(None), tmp_path))
    # The stages are 1, 2, 2, 3 and 4, with a mean of 2.4.
    assert (
        "after 10 epochs by order 1: 1.75 %, 2: 2.75 %, 3: 3.75 %, 4: 4.75 %; by step size 1: 3.40 %, 0.5: 2.90 %."
        in said
    )
    said = "\n".join(mnist.k_over_h(grid(120), tmp_path))
    assert "Mean test error after 120 training steps by order" in said


def test_nfe_over_training(tmp_path: Path) -> None:
    curves = {"nfe/forward": ([10, 20], [20.0, 30.0]), "nfe/backward": ([10, 20], [20.0, 55.0])}
    said = "\n".join(mnist.nfe([run("odenet", "adjoint", curves=curves)], tmp_path))
    assert "forward 20.0 at step 10, 30.0 at step 20; backward 20.0 at step 10, 55.0 at step 20" in said
    assert "mean over training: 1.50" in said


def test_what_an_accurate_solve_changes(tmp_path: Path) -> None:
    metrics = {"solver/consistency": 0.25, "solver/consistency_error": 3.0}
    runs = [
        run("odenet (checkpoint)", "checkpoint", metrics=metrics, name=name, step_size=1.0) for name in ("rk4", "euler")
    ]
    said = "\n".join(mnist.continuous(runs, tmp_path))
    assert "euler 1: 25 % of the final state, 3.0 points of test error; rk4 1: 25 %" in said


@pytest.mark.parametrize("claim", [mnist.memory, mnist.nfe])
def test_half_a_grid_says_less_and_fails_nowhere(claim: Any, tmp_path: Path) -> None:
    said = "".join(claim([run("odenet", "adjoint", metrics=step(1.0), name="rk4", step_size=1.0)], tmp_path))
    assert "odenet (adjoint)" not in said


def test_runs_are_named_as_a_report_names_them(compose: Any) -> None:
    words = {"odenet (adjoint)": ["model=odenet"], "rknet": ["model=rknet"]}
    words["odenet (checkpoint)"] = ["model=odenet", "model.gradient=checkpoint"]
    for name, chosen in words.items():
        settings = settings_of(compose("dataset=mnist", *chosen))
        assert mnist.name_of(Run(Path(), "completed", None, settings)) == name
