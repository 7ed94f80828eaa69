"""README's table of results says what the kept files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from claims import headlines
from claims.kept import Results, errors, range_of, spread


def keep(folder: Path, experiment: str, name: str, **content: object) -> None:
    whole = {"settings": {"seed": 0}, "metrics": {}, "objective": None, **content}
    (folder / experiment).mkdir(exist_ok=True)
    (folder / experiment / f"{name}.json").write_text(json.dumps(whole))


def test_runs_are_found_by_their_settings_and_ordered_by_seed(tmp_path: Path) -> None:
    for seed, model, error in ((1, "resnet", 0.4), (0, "resnet", 0.3), (0, "stem", 0.7)):
        settings = {"seed": seed, "model": model, "model.width": 8}
        keep(tmp_path, "table", f"{model}{seed}", settings=settings, metrics={"error/test": error})
    results = Results(tmp_path)
    runs = results.runs("table", model="resnet", model_width=8)
    assert errors(runs) == "0.350 ± 0.071 % (0.30, 0.40)"  # a standard deviation of 0.1 / sqrt(2)
    assert errors(results.runs("table", model="stem")) == "0.70 % (one seed)"
    with pytest.raises(LookupError, match="results/table must have a run with"):
        results.runs("table", model="mlp")


def test_numbers_are_written_with_their_spread(tmp_path: Path) -> None:
    keep(tmp_path, "some", "a", metrics={"x": 0.001})
    keep(tmp_path, "some", "b", metrics={"x": 0.003})
    assert spread(Results(tmp_path).runs("some"), "x", 2, factor=100) == "0.20 ± 0.14"
    assert range_of([3.0, 1.0, 2.0], 1) == "1.0 to 3.0"


def test_the_ratio_of_a_benchmark_has_its_quartiles(tmp_path: Path) -> None:
    figures = [{"name": "ours over theirs", "value": 0.874, "quartiles": [0.861, 0.889]}]
    (tmp_path / "benchmark-train.json").write_text(json.dumps({"figures": figures}))
    assert Results(tmp_path).quartiles("train", "ours over theirs", 2) == "0.87 (0.86 to 0.89)"


def test_only_the_table_of_a_page_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(tmp_path, "claim-nfe", "a", curves={"nfe/forward": [[1, 2], [4.0, 6.0]], "nfe/backward": [[1, 2], [2.0, 3.0]]})
    monkeypatch.setattr(headlines, "ROWS", {"half": headlines.nfe})
    page = f"# Page\n\n{headlines.HEADING}| half | 0.9 |\n\nThe rest.\n"
    new = "| half | 0.50 of them over an epoch, dopri5 at 1e-3, `adjoint` |\n"
    assert headlines.with_headlines(page, tmp_path) == f"# Page\n\n{headlines.HEADING}{new}\nThe rest.\n"
    with pytest.raises(ValueError, match="the page must have a table"):
        headlines.with_headlines("# Page\n", tmp_path)
