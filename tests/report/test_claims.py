"""What the claims say of runs whose truth is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from claims.experiments import CLAIMS, FURTHER_COLUMNS, medians, power, trace, upper_half

from neuralode_exp.report.runs import Run

ROOT = Path(__file__).parents[2]


def run(folder: Path, dim: int, kind: str) -> Run:
    """f costs d^0.5, an exact trace d^1 on top, an estimated one half of f, the log-determinant d^3 on top."""
    field = 0.1 * dim**0.5
    metrics = {
        "time/field_ms": field,
        "time/trace_ms": field + (0.01 * dim if kind == "exact" else field / 2),
        "time/determinant_ms": field + 1e-3 * dim**3,
    }
    return Run(folder, "completed", None, {"dataset.dim": dim, "model.trace": kind}, metrics)


def test_the_exponent_of_a_power_law() -> None:
    assert power({x: 3 * x**2.5 for x in (1.0, 2.0, 5.0)}) == pytest.approx(2.5)


def test_the_upper_half_and_medians() -> None:
    runs = [Run(Path(), "completed", None, {"n": n}, {"y": y}) for n, y in ((4, 1.0), (2, 5.0), (4, 3.0), (4, 9.0))]
    assert medians([*runs, Run(Path(), "completed", None, {"n": 8}, {})], "n", "y") == {2.0: 5.0, 4.0: 3.0}
    assert upper_half({1.0: 0.0, 2.0: 0.0, 4.0: 0.0, 8.0: 0.0}) == {4.0: 0.0, 8.0: 0.0}


def test_the_trace_says_exponents_and_draws_them(tmp_path: Path) -> None:
    runs = [run(tmp_path, dim, kind) for dim in (16, 2, 4, 8) for kind in ("exact", "hutchinson")]
    said = "\n".join(trace(runs, tmp_path))
    assert "over d = 8, 16" in said
    assert "f alone grows as d^0.50" in said
    assert "(its cost beyond f alone: d^3.00)" in said
    assert "(its cost beyond f alone: d^1.00)" in said
    assert "with Hutchinson's estimate as d^0.50 (its cost beyond f alone: d^0.50)" in said
    assert said.endswith(f"![{tmp_path.name}](results/{tmp_path.name}/figure.png)")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_claims_are_experiments() -> None:
    experiments = {path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")}
    assert {name for name in experiments if name.startswith("claim-")} <= set(CLAIMS)
    assert set(CLAIMS) | set(FURTHER_COLUMNS) <= experiments
