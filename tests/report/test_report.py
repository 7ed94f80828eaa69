"""The table of runs: who is in a mean, who is named, and that nobody is lost."""

from __future__ import annotations

import math
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from neuralode_exp.config import ConfigError
from neuralode_exp.report.columns import spread
from neuralode_exp.report.grouping import Statistic
from neuralode_exp.report.report import Report, html, make_report, markdown, text
from neuralode_exp.report.runs import Run
from scripts.report import main
from tests.report.conftest import MakeRun, write_damaged

MNIST = ("dataset=mnist", "solver=dopri5")


def by_values(report: Report) -> dict[tuple[str, ...], tuple[Run, ...]]:
    return {group.values: group.runs for group in report.groups}


def test_mean_and_deviation_over_seeds_are_those_of_the_completed_runs(tmp_path: Path, make_run: MakeRun) -> None:
    errors = [1.0, 2.0, 4.0]
    for seed, error in enumerate(errors):
        make_run(tmp_path / f"{seed}", *MNIST, "model=resnet", f"seed={seed}", metrics={"error/test": error})
    make_run(tmp_path / "x", *MNIST, "model=resnet", "seed=3", status="failed", metrics={"error/test": 90.0})
    make_run(tmp_path / "y", *MNIST, "model=resnet", "seed=4", status="killed", metrics={"error/test": 90.0})
    make_run(tmp_path / "z", *MNIST, "model=mlp", metrics={"error/test": 5.0})
    report = make_report([tmp_path])
    assert report.keys == ["model"]
    mlp, resnet = report.groups
    assert (mlp.values, mlp.count) == (("mlp",), "1")
    assert (resnet.values, resnet.count) == (("resnet",), "3 of 5 (1 failed, 1 killed)")
    assert mlp.statistic("error/test") == Statistic(1, 5.0, None)
    found = resnet.statistic("error/test")
    assert found is not None
    assert (found.n, found.mean) == (3, pytest.approx(7 / 3))
    assert found.std == pytest.approx(statistics.stdev(errors))
    assert "2.3 ± 1.5" in text(report)


def test_rows_go_from_the_best_objective_on(tmp_path: Path, make_run: MakeRun) -> None:
    for model, error in (("mlp", 3.0), ("resnet", 1.0), ("stem", 2.0)):
        make_run(tmp_path / model, *MNIST, f"model={model}", metrics={"error/validation": error})
    report = make_report([tmp_path])
    assert [group.values for group in report.groups] == [("resnet",), ("stem",), ("mlp",)]
    assert "Best on mnist: validation error 1 %, `resnet-mnist, resnet`" in markdown(report)


def test_measured_trajectories_have_a_column_for_their_error(tmp_path: Path, make_run: MakeRun) -> None:
    (tmp_path / "data.csv").write_text("")
    words = ("dataset=csv", f"dataset.path={tmp_path}/data.csv")
    make_run(tmp_path / "measured", *words, metrics={"dynamics/validation_error": 0.25})
    make_run(tmp_path / "known", metrics={"dynamics/validation_error": 0.5, "dynamics/trajectory_error": 0.125})
    assert [column.name for column in make_report([tmp_path / "known"]).columns] == [
        "dynamics/trajectory_error",
        "parameters",
        "seconds",
    ]
    assert "0.25" in text(make_report([tmp_path / "measured"]))


def test_every_status_is_shown_with_its_reason(tmp_path: Path, make_run: MakeRun) -> None:
    make_run(tmp_path / "0", *MNIST, "model=stem", metrics={"error/test": 1.0})
    make_run(tmp_path / "1", *MNIST, "model=stem", "seed=1", status="failed", error=("NonFiniteState", "at t=0.5"))
    make_run(tmp_path / "2", *MNIST, "model=stem", "seed=2", status="interrupted")
    make_run(tmp_path / "3", *MNIST, "model=stem", "seed=3", status="killed")
    make_run(tmp_path / "4", "model=stem", status="skipped", error=("NoMeaning", "model=stem is for images"))
    make_run(tmp_path / "5", *MNIST, "model=stem", "seed=5")
    (tmp_path / "5" / "summary.json").unlink()
    write_damaged(tmp_path / "6")
    report = make_report([tmp_path])
    assert len(report.runs) == 7
    statuses = ["completed", "failed", "interrupted", "killed", "skipped", "not started", "unreadable"]
    assert {run.folder.name: run.status for run in report.runs} == dict(zip("0123456", statuses, strict=True))
    for shown in (text(report), markdown(report), html(report)):
        for reason in (*statuses[1:], "NonFiniteState: at t=0.5", "after step 7", "model=stem is for images"):
            assert reason in shown, reason
        assert "1 of 5 (1 failed, 1 interrupted, 1 killed, 1 not started)" in shown


def test_cells_that_left_no_folder_are_read_from_the_table_of_the_grid(tmp_path: Path, make_run: MakeRun) -> None:
    make_run(tmp_path / "abc", *MNIST, "model=resnet", metrics={"error/test": 1.0})
    (tmp_path / "sweep.csv").write_text(
        "cell,status,objective,seconds,run,same_as,overrides,reason\n"
        "0,completed,1.0,10,abc,,model=resnet dataset=mnist seed=0,\n"
        "1,completed,1.0,10,abc,0,model=resnet dataset=mnist seed=0 solver=rk4,\n"
        "2,not started,,,def,,model=resnet dataset=mnist seed=1,\n"
        "3,skipped,,,,,model=resnet dataset=two-moons seed=0,model=resnet has no density\n"
    )
    report = make_report([tmp_path])
    (mnist,), (moons,) = ([g for g in report.groups if name in g.values] for name in ("mnist", "two-moons"))
    assert mnist.count == "1 of 2 (1 not started)"
    assert moons.count == "0 of 1 (1 skipped)"
    assert "model=resnet has no density" in text(report)


def test_a_default_value_is_shown_and_a_key_that_is_not_read_is_not(tmp_path: Path, make_run: MakeRun) -> None:
    moons = ("dataset=two-moons", "model=planar")
    make_run(tmp_path / "0", *moons, metrics={"density/nll": 2.0})
    make_run(tmp_path / "1", *moons, "model.layers=8", metrics={"density/nll": 2.0})
    make_run(tmp_path / "2", "dataset=two-moons", "model=rknet", metrics={"density/nll": 2.0})
    report = make_report([tmp_path])
    model, layers = (report.keys.index(key) for key in ("model", "model.layers"))
    assert {(group.values[model], group.values[layers]) for group in report.groups} == {
        ("planar", "8"),
        ("planar", "32"),
        ("rknet", "-"),
    }


def test_keys_are_those_that_differ_and_that_no_earlier_key_decides(tmp_path: Path, make_run: MakeRun) -> None:
    # trainer, tolerance and much more differ with the dataset; a resnet reads no solver.
    for i, words in enumerate(
        [
            ("dataset=mnist", "model=resnet", "solver=rk4"),
            ("dataset=mnist", "model=odenet", "solver=rk4"),
            ("dataset=mnist", "model=odenet", "solver=rk4", "model.gradient=checkpoint"),
            ("dataset=circle", "model=odenet", "solver=dopri5", "solver.rtol=1e-3"),
            ("dataset=circle", "model=odenet", "solver=dopri5", "solver.rtol=1e-5"),
            ("dataset=circle", "model=odenet", "solver=dopri5", "solver.rtol=1e-5", "seed=1"),
        ]
    ):
        make_run(tmp_path / f"{i}", *words)
    report = make_report([tmp_path])
    assert report.keys == ["dataset", "model", "solver.rtol"]
    assert [group.values for group in report.groups] == [
        ("circle", "odenet", "1e-05"),
        ("circle", "odenet", "0.001"),
        ("mnist", "odenet", "-"),
        ("mnist", "odenet (checkpoint)", "-"),
        ("mnist", "resnet", "-"),
    ]
    assert make_report([tmp_path], by=["model.name"]).keys == ["model"]


def test_the_same_run_found_twice_counts_once_and_its_completed_one(tmp_path: Path, make_run: MakeRun) -> None:
    make_run(tmp_path / "first", *MNIST, "model=mlp", status="failed")
    make_run(tmp_path / "second", *MNIST, "model=mlp", metrics={"error/test": 1.0})
    make_run(tmp_path / "third", *MNIST, "model=mlp", metrics={"error/test": 1.0})
    assert [run.folder.name for run in make_report([tmp_path, tmp_path / "second"]).runs] == ["second"]


def test_a_value_that_is_not_finite_is_not_averaged_away() -> None:
    assert Statistic.of([1.0, math.inf]) == Statistic(2, math.inf, None)
    assert spread(Statistic(2, math.inf, None)) == "inf"


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([208_266.0, 208_266.0], "208266"),
        ([0.1, 0.1, 0.1], "0.1"),
        ([0.41], "0.41"),
        ([0.40, 0.44, 0.42], "0.420 ± 0.020"),
        ([100.0, 140.0], "120 ± 28"),
        ([1e-9, 3e-9], "2e-09 ± 1.4e-09"),
    ],
)
def test_a_mean_is_written_to_the_second_digit_of_its_deviation(values: list[float], shown: str) -> None:
    statistic = Statistic.of(values)
    assert statistic is not None
    assert spread(statistic) == shown


def test_wrong_requests_are_one_line(tmp_path: Path, make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "FOLDER must hold runs" in capsys.readouterr().err
    make_run(tmp_path / "0", *MNIST, "model=mlp", metrics={"error/test": 1.0})
    assert main([str(tmp_path), "--by", "modle"]) == 2
    assert capsys.readouterr().err == "--by must name keys of the runs, got modle; did you mean model?\n"
    assert main([str(tmp_path), "--columns", "error/tset"]) == 2
    assert "did you mean error/test?" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        make_report([tmp_path], by=["x"])
    assert not (tmp_path / "report.html").exists()


def test_a_damaged_file_is_named_and_does_not_hide_the_other_runs(
    tmp_path: Path, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*MNIST, "model=mlp")
    make_run(tmp_path / "0", *words, metrics={"error/test": 1.0}, curves={"error/test": [2.0, 1.0]})
    bad = make_run(tmp_path / "1", *words, "seed=1", metrics={"error/test": 3.0}, curves={"error/test": [4.0, 3.0]})
    with open(bad / "metrics.csv", "a") as file:
        file.write("2,error/test,abc\n")
    assert main([str(tmp_path)]) == 2
    message = f"{bad / 'metrics.csv'}:4 must be step,tag,value, got '2,error/test,abc'; delete that line\n"
    assert capsys.readouterr().err == message
    (bad / ".hydra" / "config.yaml").write_text("seed: [")
    assert main([str(tmp_path)]) == 0
    assert ".hydra/config.yaml is missing or damaged" in capsys.readouterr().out


class Outline(HTMLParser):
    """What a page has, and that its tags are closed."""

    VOID = ("meta", "img", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.count: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path, make_run: MakeRun) -> None:
    for seed in range(3):
        curves = {"loss/train": [2.0, 1.0 + seed], "nfe/forward": [20, 26], "memory/saved_mib": [5.0, math.nan, 6.0]}
        metrics = {"error/test": 1.0 + seed, "error/validation": 2.0 + seed}
        words = (*MNIST, "model=odenet", f"seed={seed}")
        folder = make_run(tmp_path / f"{seed}", *words, metrics=metrics, curves=curves)
        (folder / "figures").mkdir()
        Image.new("RGB", (4, 4)).save(folder / "figures" / f"seed-{seed}.png")
    lost = {"loss/train": [2.0, math.inf]}
    make_run(tmp_path / "lost", *MNIST, "model=rknet", status="failed", curves=lost, error=("E", "<b>&"))
    assert main([str(tmp_path), "--out", str(tmp_path / "new" / "place")]) == 0
    page = (tmp_path / "new" / "place" / "report.html").read_text()
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert [reference[:22] for reference in outline.references] == ["data:image/png;base64,"]
    assert not re.search(r"https?://|@import|url\(", page)
    assert "seed-0.png" in page  # of the best run
    assert "Best run: validation error 2 %, odenet-mnist-dopri5, 0<" in page
    assert "&lt;b&gt;&amp;" in page
    titles = re.findall(r'<text class="title"[^>]*>([^<]*)<', page)
    assert titles == ["test error (%) against time", "training loss", "NFE forward", "saved MiB"]
    assert "nan" not in re.sub(r"<title>.*?</title>", "", "".join(re.findall(r"<svg class.*?</svg>", page)))


def test_a_file_in_place_of_the_folder_for_the_report_is_refused(
    tmp_path: Path, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "run", *MNIST, "model=mlp", metrics={"error/test": 1.0})
    (tmp_path / "file").touch()
    assert main([str(tmp_path), "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith(f"--out must name a folder, got {tmp_path}/file, where ")
