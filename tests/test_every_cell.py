"""Every combination of the tables of datasets, models and solvers, two steps each: `make test-cells`, minutes.

Cells are run in this process, as the basic launcher does: a process each would spend its time on imports.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from neuralode_exp.config import identity, without_meaning
from neuralode_exp.config.preflight import of_what_is_there
from neuralode_exp.outcome import RunFailed
from neuralode_exp.run import run
from tests.conftest import ROOT, SAMPLE

LEAST = 843  # distinct runs that end well

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
    "labels": ("dataset.train=64", "dataset.validation=16", "dataset.test=16"),
    "dynamics": ("dataset.trajectories=4", "dataset.points=12", "dataset.validation=1", "dataset.test=1"),
    "densities": ("dataset.validation=16", "dataset.test=16"),
}
OWN_CODE = """
import torch
from neuralode_exp.extend import density, system

@system("swing", dim=2)
def swing(t, z):
    return torch.stack((z[..., 1], -torch.sin(z[..., 0])), -1)

@density("normal")
class Normal:
    def sample(self, n, generator):
        return torch.randn(n, 2, generator=generator)
"""


@pytest.fixture
def own(tmp_path: Path) -> dict[str, tuple[str, ...]]:
    """The arguments of the datasets that are the user's own: tiny ones, written here."""
    code, table, points, images = (tmp_path / name for name in ("mine.py", "t.csv", "p.csv", "i.npz"))
    code.write_text(OWN_CODE)
    table.write_text(
        "trajectory,t,z1,z2\n" + "".join(f"{k},{i / 4},{k + i},{k - i * i}\n" for k in range(4) for i in range(12))
    )
    points.write_text("".join(f"{i % 7},{i % 11}\n" for i in range(40)))
    x, y = np.random.default_rng(0).integers(0, 256, (48, 16, 16), dtype=np.uint8), np.arange(48) % 3
    np.savez(images, x_train=x[:32], y_train=y[:32], x_test=x[32:], y_test=y[32:])
    return {
        "csv": (f"dataset.path={table}",),
        "points": (f"dataset.path={points}",),
        "images": (f"dataset.path={images}",),
        "system": (f"extensions=[{code}]", "dataset.system=swing", *OF_KIND["dynamics"]),
        "density": (f"extensions=[{code}]", "dataset.density=normal", *OF_KIND["densities"]),
    }


def names(heading: str) -> list[str]:
    """The names in the first column of the README's tables with this heading: of datasets there are three."""
    tables = [part.split("\n\n", 1)[0] for part in (ROOT / "README.md").read_text().split(f"\n| `{heading}=`")[1:]]
    rows = [row for table in tables for row in table.splitlines()[2:]]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_the_tables_name_every_file_of_the_groups() -> None:
    for group in ("dataset", "model", "solver"):
        assert sorted(names(group)) == sorted(file.stem for file in (ROOT / "conf" / group).glob("*.yaml"))


@pytest.mark.cells
@pytest.mark.timeout(3600)
def test_every_combination_of_the_tables_runs_or_says_in_one_line_why_not(compose, own, tmp_path: Path, capsys) -> None:
    counts: Counter[str] = Counter()
    failed, done = {}, set[str]()
    for dataset, model, solver in itertools.product(names("dataset"), names("model"), names("solver")):
        cell = (f"dataset={dataset}", f"model={model}", f"solver={solver}")
        of_dataset = own.get(dataset) or OF_KIND[compose(cell[0]).dataset.kind]
        config = compose(*cell, *SMALL, *of_dataset)
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
