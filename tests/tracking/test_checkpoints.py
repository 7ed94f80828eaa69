import os
import random
import re
import resource
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from neuralode_exp.tracking.checkpoints import CheckpointError, load, restore_rng_state, rng_state, save


def test_training_goes_on_to_the_bit(tmp_path: Path) -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 1))
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(8, 3)).square().mean().backward()
            optimizer.step()

    model, optimizer = build()
    train(model, optimizer, 3)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": rng_state(),
        "step": 3,
    }
    save(tmp_path / "last.pt", state)
    train(model, optimizer, 4)

    resumed, resumed_optimizer = build()
    state = load(tmp_path / "last.pt")
    resumed.load_state_dict(state["model"])
    resumed_optimizer.load_state_dict(state["optimizer"])
    restore_rng_state(state["rng"])
    train(resumed, resumed_optimizer, 4)
    for ours, theirs in zip(resumed.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_plain_values_come_back_as_they_were(tmp_path: Path) -> None:
    state = {
        "none": None,
        "flag": True,
        "count": 3,
        "rate": 0.1,
        "inf": float("inf"),
        "name": "odenet",
        "raw": b"\x00",
        "nested": [(1, 2.0), {"a": [], 5: "key"}],
        "tensors": [torch.arange(3), torch.tensor(1.5, dtype=torch.float64)],
    }
    save(tmp_path / "last.pt", state)
    loaded = load(tmp_path / "last.pt")
    for ours, theirs in zip(loaded.pop("tensors"), state.pop("tensors"), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    assert loaded == state


@pytest.mark.parametrize(
    ("state", "got"),
    [
        ({"a": {"b": [1, np.float64(1.0)]}}, "numpy.float64 at state['a']['b'][1]"),
        ({"a": np.zeros(2)}, "numpy.ndarray at state['a']"),
        ({"a": Path("x")}, "Path at state['a']"),
        ({"a": defaultdict(list)}, "collections.defaultdict at state['a']"),
        ({"a": {np.int64(1): 2}}, "numpy.int64 at state['a'] key"),
        ({"a": nn.Linear(1, 1)}, "torch.nn.modules.linear.Linear at state['a']"),
    ],
)
def test_what_could_not_be_loaded_is_not_written(tmp_path: Path, state: dict[str, Any], got: str) -> None:
    with pytest.raises(TypeError, match=re.escape(got)):
        save(tmp_path / "last.pt", state)
    assert list(tmp_path.iterdir()) == []


FULL_DISK = (
    "import resource, sys, torch\n"
    "from neuralode_exp.tracking.checkpoints import save\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    "try:\n"
    "    save(sys.argv[1], {'weights': torch.zeros(10_000)})\n"
    "except OSError as error:\n"
    "    print(error)\n"
)


def test_full_disk_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk that ends in the middle of a write."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    path = tmp_path / "last.pt"
    save(path, {"step": 1})
    process = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True)
    assert process.stdout == (
        "[Errno 27] File too large: the checkpoint was not written, the previous one is kept; "
        f"make room or choose another folder: '{path}'\n"
    )
    assert load(path) == {"step": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["last.pt"]


def test_checkpoint_is_on_the_disk_before_it_replaces_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    save(path, {"step": 1})

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error: the checkpoint was not written"):
        save(path, {"step": 2})
    assert load(path) == {"step": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["last.pt"]


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is none; make room or choose another folder"):
        save(tmp_path / "absent" / "last.pt", {"step": 1})


def damage(path: Path, kind: str) -> None:
    whole = path.read_bytes()
    middle = len(whole) // 2
    if kind == "absent":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut off":
        path.write_bytes(whole[:middle])
    elif kind == "garbage":
        path.write_bytes(bytes(range(256)) * 8)
    elif kind == "flipped":
        path.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    elif kind == "objects":
        torch.save({"path": Path("x")}, path)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("absent", "No such file or directory"),
        ("empty", "it is damaged"),
        ("cut off", "it is damaged"),
        ("garbage", "it is damaged"),
        ("flipped", "it is damaged"),
        ("objects", "it holds more than tensors and plain values"),
    ],
)
def test_unreadable_checkpoint_is_one_line(tmp_path: Path, kind: str, reason: str) -> None:
    path = tmp_path / "last.pt"
    save(path, {"weights": torch.ones(1000)})
    damage(path, kind)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(caught.value) == (
        f"Checkpoint {path} cannot be read: {reason}; resume from another checkpoint or start the run again."
    )


def test_every_generator_goes_on_where_it_was(tmp_path: Path) -> None:
    def draw() -> list[float]:
        # Gaussian draws come in pairs: the second one of a pair is part of the state.
        return [torch.randn(()).item(), np.random.randn(), random.gauss(0, 1), random.random()]  # noqa: NPY002

    draw()
    save(tmp_path / "rng.pt", rng_state())
    first = [draw(), draw()]
    restore_rng_state(load(tmp_path / "rng.pt"))
    assert [draw(), draw()] == first


@pytest.mark.cuda
def test_gpu_generator_goes_on_where_it_was(tmp_path: Path) -> None:
    torch.rand(1, device="cuda")
    save(tmp_path / "rng.pt", rng_state())
    first = torch.rand(3, device="cuda")
    restore_rng_state(load(tmp_path / "rng.pt", map_location="cuda"))
    assert torch.equal(torch.rand(3, device="cuda"), first)
