"""Every combination of the tables of datasets, models and solvers, two steps each: `make test-cells`, minutes.

Cells are run in this process, as the basic launcher does: a process each would spend its time on imports.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import pytest

from neuralode_exp.config import identity, without_meaning
from neuralode_exp.config.preflight import of_what_is_there
from neuralode_exp.outcome import RunFailed
from neuralode_exp.run import run
from tests.conftest import ROOT, SAMPLE

LEAST = 404  # distinct runs that ended well before

SMALL = (
    "trainer.max_steps=2",
    "figures=false",
    "trainer.batch_size=8",
    "threads=1",
    "model.width=8",
    "model.channels=8",
)
OF_KIND = {
    "images": (f"dataset.root={SAMPLE}", "dataset.validation=16", "dataset.test=16"),
    "dynamics": ("dataset.trajectories=4", "dataset.points=12", "dataset.validation=1", "dataset.test=1"),
    "densities": ("dataset.validation=16", "dataset.test=16"),
    "csv": (),
    "points": (),
}


def names(heading: str) -> list[str]:
    """The names in the first column of the README's table with this heading."""
    rows = (ROOT / "README.md").read_text().split(f"| `{heading}=`", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


@pytest.mark.cells
@pytest.mark.timeout(3600)
def test_every_combination_of_the_tables_runs_or_says_in_one_line_why_not(compose, tmp_path: Path, capsys) -> None:
    (tmp_path / "t.csv").write_text(
        "trajectory,t,z1,z2\n" + "".join(f"{k},{i / 4},{k + i},{k - i * i}\n" for k in range(4) for i in range(12))
    )
    (tmp_path / "p.csv").write_text("".join(f"{i % 7},{i % 11}\n" for i in range(40)))
    own = {"csv": (f"dataset.path={tmp_path}/t.csv",), "points": (f"dataset.path={tmp_path}/p.csv",)}
    counts: Counter[str] = Counter()
    failed, done = {}, set[str]()
    for dataset, model, solver in itertools.product(names("dataset"), names("model"), names("solver")):
        cell = (f"dataset={dataset}", f"model={model}", f"solver={solver}")
        kind = dataset if dataset in own else compose(cell[0]).dataset.kind
        config = compose(*cell, *SMALL, *OF_KIND[kind], *own.get(dataset, ()))
        gap = without_meaning(config)
        if gap is not None:
            assert len(str(gap).splitlines()) == 1
            counts["refused"] += 1
            continue
        if identity(config) in done:
            counts["same as another"] += 1
            continue
        assert not of_what_is_there(config)
        folder = tmp_path / identity(config)
        folder.mkdir()
        done.add(identity(config))
        try:
            run(config, folder, config.model_dump(), bar=False)
            counts["completed"] += 1
        except RunFailed as error:
            failed[" ".join(cell)] = str(error)
    with capsys.disabled():
        print(f"\n{counts.total() + len(failed)} combinations: {dict(counts)}, {len(failed)} failed")
    assert not failed
    assert counts["completed"] >= LEAST
