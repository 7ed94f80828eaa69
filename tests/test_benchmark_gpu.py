"""The table `gpu`, on a CPU: what it measures of memory holds, and it times what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks import gpu, table

CPU = torch.device("cpu")


def test_memory_grows_where_stages_are_kept_and_nowhere_else() -> None:
    growth = {figure.name.partition(":")[0]: figure.value for figure in gpu.memory(CPU, quick=True)}
    assert growth["backprop"] > 3  # of its 8 to 64 evaluations, beside the stem's
    assert growth["checkpoint"] < 1.5  # a stored state a step, beside what one step holds
    assert growth["adjoint"] < 1.15  # of images so few that what a solve holds besides is a tenth of it
    assert growth["reversible"] < 1.15


def test_every_form_is_timed_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "NETWORKS", {"resnet": ("resnet", None, None, False)})
    figures = list(gpu.step_times(CPU, True, gpu.Clock(1)))
    names = [figure.name for figure in figures]
    assert [name for name in names if "float32" in name] == [
        "resnet, float32: ms a step",
        "resnet, float32: channels_last over plain",
        "resnet, float32: torchdiffeq over plain",
    ]
    assert set(figures[0].details["ms a step"]) == {"plain", "channels_last", "torchdiffeq"}
    table.write_json(tmp_path / "gpu.json", "gpu", figures, "cpu", quick=True)
    assert '"device": "cpu"' in (tmp_path / "gpu.json").read_text()
