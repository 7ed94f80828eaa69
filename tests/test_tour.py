"""docs/tour.md, block by block, in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

from tests.conftest import ROOT, train_here

BLOCK = re.compile(r"^```python\n(.*?)^```|^    python train\.py ([^\n]+)", re.MULTILINE | re.DOTALL)


def test_every_block_of_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    names: dict[str, object] = {}
    for code, words in BLOCK.findall((ROOT / "docs" / "tour.md").read_text()):
        if words:
            assert train_here(monkeypatch, *words.split()) == 0
        else:
            exec(code, names)
    plt.close("all")
    held_out, table = names["held_out"], names["table"]
    assert held_out["dynamics/validation_error"].iloc[-1] < held_out["dynamics/persistence_error"].iloc[-1]
    learned = names["z"][: len(table), 0, 0].numpy()
    assert abs(learned - table["angle"].to_numpy()).mean() < 0.1  # of a swing from 1 to -0.85
    assert (tmp_path / "swing.png").stat().st_size > 5000
