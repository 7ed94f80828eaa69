"""What a result was made with: versions of the software, the commit of this code and the device."""

import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

CHECKOUT = Path(__file__).parents[2]


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchdiffeq": metadata.version("torchdiffeq"),
        "hydra": metadata.version("hydra-core"),
        "neuralode-exp": metadata.version("neuralode-exp"),
    }


@cache
def git_commit(checkout: Path = CHECKOUT) -> str | None:
    """Return the commit of `checkout`, with "-dirty" at the end if tracked files differ from it.

    Return None if git is missing, there is no commit, or `checkout` is not the root of a repository. The last case
    includes an installation inside another project's repository.
    """
    if not (checkout / ".git").exists():
        return None
    describe = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def device_name(device: torch.device) -> str:
    """Return the name of a device for tables: of a GPU, or of the CPU with the number of torch's threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return f"{device.type} ({_cpu_model()})"
    threads = torch.get_num_threads()
    return f"{_cpu_model()}, {threads} thread{'s' if threads > 1 else ''}"


@cache
def _cpu_model() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
