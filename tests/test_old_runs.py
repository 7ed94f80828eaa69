"""Runs that an earlier version left in `old_runs/`: they are loaded, they go on, and a grid of today knows them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from neuralode_exp.config import folder_name, identity, stored_config
from neuralode_exp.config.errors import spell
from neuralode_exp.config.later import NEUTRAL, OF_KIND
from neuralode_exp.evaluate import MAY_CHANGE, evaluate
from neuralode_exp.load import load_run
from neuralode_exp.tags import TAGS
from neuralode_exp.tracking.metrics import read_metrics
from neuralode_exp.tracking.summary import read_summary
from tests.conftest import ROOT, train_here
from tests.sweep.conftest import stamps, table

OLD = ROOT / "tests" / "old_runs"
KINDS = sorted(path.name for path in OLD.iterdir() if path.is_dir())
# Another processor rounds otherwise, and a few steps of training let that grow.
ROUNDING = 1e-3
# Of a moment, of a machine, or nothing but rounding.
VARIES = ("time/", "memory/", "final/", "solver/consistency", "density/inversion_error", "density/log_prob_error")


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the stored paths of data are relative


def metrics(folder: Path) -> dict[str, float]:
    """The final values of a completed run that the same training gives anywhere."""
    summary = read_summary(folder)
    assert summary is not None
    assert summary["status"] == "completed"
    return {tag: value for tag, value in summary["metrics"].items() if not tag.startswith(VARIES)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_identity_is_that_of_its_day(kind: str) -> None:
    for folder in (OLD / kind).iterdir():
        summary = read_summary(folder)
        assert summary is not None
        assert identity(stored_config(folder)) == summary["identity"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_is_loaded(kind: str) -> None:
    folder = OLD / kind / "finished"
    for weights in ("last", "best"):
        model, _ = load_run(folder, weights)  # type: ignore[arg-type]
        assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    now, stored = evaluate(folder).now, metrics(folder)
    assert now.keys() & stored.keys() or kind == "measured"  # whose truth is not known
    for tag in now.keys() & stored.keys():
        assert now[tag] == pytest.approx(stored[tag], rel=ROUNDING, abs=1e-6), tag


# But for weights and extensions, with which a run is made; of points there is no run.
@pytest.mark.parametrize(
    "key", [key for key in NEUTRAL if key.split(".")[0] in MAY_CHANGE and OF_KIND.get(key) != "points"]
)
def test_a_key_that_came_later_may_be_given_to_evaluate(key: str) -> None:
    folder = OLD / {None: "dynamics", "csv": "measured"}.get(kind := OF_KIND.get(key), kind) / "finished"
    assert evaluate(folder, [f"{key}={spell(NEUTRAL[key])}"]).now == evaluate(folder).now


# The defaults of tables changed.
AS_THEN = ["dataset.units=file", "dataset.log=false", "dataset.delays=0", "dataset.hold_out=trajectories"]
AS_THEN += ["dataset.forecast=null", "trainer=dynamics", "solver.rtol=1e-4", "solver.first_step=null"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_goes_on_to_where_the_finished_one_ended(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(OLD / kind / "interrupted", folder)
    assert train_here(monkeypatch, f"resume={folder}") == 0
    assert "resumed after step" in (folder / "train.log").read_text()
    recorded = {tag.removeprefix("final/").removesuffix("_std") for tag in read_metrics(folder)}
    assert recorded <= TAGS.keys()
    resumed, whole = metrics(folder), metrics(OLD / kind / "finished")
    assert resumed.keys() >= whole.keys()
    for tag, value in whole.items():
        assert resumed[tag] == pytest.approx(value, rel=ROUNDING, abs=1e-6), tag


def grid(monkeypatch: pytest.MonkeyPatch, kind: str, folder: Path, *words: str) -> None:
    asked = yaml.safe_load((OLD / kind / "finished" / ".hydra" / "overrides.yaml").read_text())
    assert train_here(monkeypatch, "-m", *asked, *words, f"hydra.sweep.dir={folder}") == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_grid_finds_a_finished_run_by_its_identity_and_is_extended(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "a name, of 'before' [1]"
    shutil.copytree(OLD / kind / "finished", old)
    before = stamps(old)
    as_then = AS_THEN if kind == "measured" else []
    grid(monkeypatch, kind, tmp_path, "seed=0,1", *as_then)
    rows = table(tmp_path)
    assert [row["status"] for row in rows] == ["completed"] * 2
    assert rows[0]["run"] == old.name
    assert stamps(old) == before
    new = tmp_path / rows[1]["run"]
    assert new.name == folder_name(stored_config(new)) != folder_name(stored_config(old))


def test_a_grid_goes_on_with_an_interrupted_run_in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "a name, of 'before' [1]"
    shutil.copytree(OLD / "dynamics" / "interrupted", old)
    grid(monkeypatch, "dynamics", tmp_path, "seed=0")
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [old]
    assert "resumed after step 5" in (old / "train.log").read_text()
    assert metrics(old)["loss/train"] == pytest.approx(
        metrics(OLD / "dynamics" / "finished")["loss/train"], rel=ROUNDING
    )
