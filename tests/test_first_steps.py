"""The comparison of first losses: equal code gives equal bits, another loss is seen, and every cell has a case."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from neuralode_exp.config import Config, without_meaning
from scripts.first_steps import CASES, largest_difference, main


def test_equal_code_gives_equal_losses_and_a_change_is_seen(tmp_path: Path) -> None:
    few = ["--only", "dynamics, odenet, linear", "--steps", "2"]
    before, after = str(tmp_path / "before.json"), str(tmp_path / "after.json")
    assert main([before, *few]) == 0
    assert main([after, *few, "--against", before]) == 0
    losses = json.loads((tmp_path / "after.json").read_text())
    assert [len(x) for x in losses.values()] == [2]
    losses["dynamics, odenet, linear"][1] *= 1 + 1e-12
    (tmp_path / "before.json").write_text(json.dumps(losses))
    assert main([after, *few, "--against", before]) == 1
    assert main([after, *few, "--against", before, "--rtol", "1e-11"]) == 0


def test_the_difference_is_relative_and_a_missing_loss_is_infinitely_far() -> None:
    assert largest_difference([1.0, 0.0], [1.0, 0.0]) == 0
    assert largest_difference([1.0, -8.0], [1.0, -10.0]) == 0.2
    assert largest_difference([math.nan, math.inf], [math.nan, math.inf]) == 0
    assert largest_difference([0.1], [math.inf]) == largest_difference([0.1], [math.nan]) == math.inf
    assert largest_difference([1.0], []) == math.inf


def test_every_kind_of_task_and_model_has_a_case(compose: Callable[..., Config]) -> None:
    covered = {(c.dataset.kind, c.model.name) for words in CASES.values() for c in [compose(*words)]}
    models = ("mlp", "stem", "resnet", "planar", "rknet", "odenet")
    datasets = {"images": "mnist", "dynamics": "circle", "densities": "two-moons"}
    cells = {
        (kind, m)
        for kind, name in datasets.items()
        for m in models
        if not without_meaning(compose(f"dataset={name}", f"model={m}"))
    }
    assert covered == cells
