"""Check that this machine has what a run needs: device, precision, threads, compiler and memory."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from neuralode_exp.config.errors import Mistake, spell
from neuralode_exp.config.kinds import KINDS
from neuralode_exp.config.memory import too_large
from neuralode_exp.config.schema import Config

POOLS = 2  # torch keeps two thread pools, its own and OpenMP's


def of_machine(config: Config) -> Iterator[Mistake]:
    """Yield what the run needs and this machine does not have."""
    if mistake := wrong_device(config.device) or wrong_precision(config.device, config.precision):
        yield mistake
    limit = threads_limit()
    if config.threads is not None and limit is not None and config.threads > limit:
        rule = f"must be at most {limit}, as many as a process can start here"
        yield Mistake("threads", rule, spell(config.threads), f"{os.cpu_count()} are as many as there are cores")
    if config.solver.compile and config.solves_ode and (mistake := no_compiler()):
        yield mistake
    if mistake := too_large(config, KINDS[config.dataset.kind].memory, memory_limit(config.device)):
        yield mistake


def wrong_device(name: str) -> Mistake | None:
    """Return the mistake of a device that this machine does not have, or None."""
    if name in ("auto", "cpu"):
        return None
    import torch

    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    there = [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]
    if name in there or (name == "cuda" and cuda):
        return None
    rule = f"must be one that this machine has ({', '.join(there)})"
    return Mistake("device", rule, name, "device=auto takes what there is")


def wrong_precision(device: str, precision: str) -> Mistake | None:
    """Return the mistake of a precision that the device does not support, or None."""
    if precision != "bf16" or device == "cpu":
        return None
    import torch

    if device == "auto" and not torch.cuda.is_available():
        return None  # a CPU
    index = torch.device("cuda" if device == "auto" else device)
    with torch.cuda.device(index):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return None
        name = torch.cuda.get_device_name()
    return Mistake("precision", f"must be one in which {name} computes", precision, "use precision=float32")


def no_compiler() -> Mistake | None:
    """Return the mistake of `solver.compile=true` without a C++ compiler, which torch.compile needs, or None."""
    name = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if shutil.which(name):
        return None
    fix = (
        "install one (Debian and Ubuntu: apt-get install g++; macOS: xcode-select --install; Windows: Visual Studio "
        "Build Tools), or leave the key out"
    )
    return Mistake("solver.compile", f"must be false without a C++ compiler ({name})", "true", fix)


@functools.cache
def memory_limit(device: str) -> float:
    """Return the bytes that a run may use: of its CUDA device, or the least limit on main memory."""
    if device not in ("cpu", "mps"):
        import torch

        name = "cuda" if device == "auto" else device
        if torch.cuda.is_available() and not wrong_device(name):
            return torch.cuda.get_device_properties(name).total_memory
    names = ("memory.max", "memory.limit_in_bytes")
    files = [folder / name for folder in cgroups("memory") for name in names]
    return min([psutil.virtual_memory().total, *(int(text) for path in files if (text := _read(path)).isdigit())])


@functools.cache
def threads_limit() -> int | None:
    """Return how many threads torch may use in this process, or None if the system sets no limit."""
    kernel = Path("/proc/sys/kernel")
    files = [kernel / "threads-max", kernel / "pid_max", *(folder / "pids.max" for folder in cgroups("pids"))]
    limits = [int(text) for path in files if (text := _read(path)).isdigit()]
    with contextlib.suppress(ImportError):  # Windows has no such limit
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        limits += [soft] if soft != resource.RLIM_INFINITY else []
    return max(1, 9 * min(limits) // 10 // POOLS) if limits else None  # a tenth is left to other programs


def cgroups(controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups of this process, each followed by its parents."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        root = Path("/sys/fs/cgroup")
        if controllers and controller not in controllers.split(","):
            continue
        root = root / controller if controllers else root
        folder = root / path.lstrip("/")
        yield from (folder, *(parent for parent in folder.parents if parent.is_relative_to(root)))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
