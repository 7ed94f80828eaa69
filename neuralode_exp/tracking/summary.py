"""summary.json: what a run is and how it ended. Tables, resume and people read it."""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from neuralode_exp.tracking.lock import Process, held_by, is_alive, this_process
from neuralode_exp.tracking.whole_files import write_whole

if TYPE_CHECKING:
    import torch

FILE_NAME = "summary.json"

Status = Literal["running", "completed", "failed", "interrupted", "pruned", "skipped", "killed"]


class DamagedSummary(ValueError):
    """A summary.json is not what `write_summary` writes."""


class RunError(TypedDict):
    """Why a run failed: the exception's class and its text."""

    type: str
    message: str


class Summary(TypedDict):
    """Content of summary.json.

    `metrics` has the final values by tag, and `objective` is the value that a search minimises. JSON has no NaN and no
    infinity: the file has the strings "NaN", "Infinity" and "-Infinity", and `read_summary` returns floats.
    `extensions` has the SHA-256 of each of the user's own files by name, if there were any. `parameters` is the number
    of parameters, and `seconds` is the time of the run over all its processes.
    """

    status: Status
    error: RunError | None
    objective: float | None
    metrics: dict[str, float]
    parameters: int | None
    steps: int
    seconds: float
    identity: str
    versions: dict[str, str]
    git_commit: str | None
    device: str
    process: Process
    extensions: NotRequired[dict[str, str | None]]


def new_summary(identity: str, device: torch.device, parameters: int | None = None) -> Summary:
    """Return the summary of a run that this process starts now."""
    from neuralode_exp.tracking import provenance  # imports torch, which reading a summary does not need

    return Summary(
        status="running",
        error=None,
        objective=None,
        metrics={},
        parameters=parameters,
        steps=0,
        seconds=0.0,
        identity=identity,
        versions=provenance.versions(),
        git_commit=provenance.git_commit(),
        device=provenance.device_name(device),
        process=this_process(),
    )


def write_summary(folder: Path | str, summary: Summary) -> None:
    """Write summary.json atomically: a reader sees the old file or the new one, never a part."""
    content = json.dumps(_without_nonfinite(summary), indent=2, allow_nan=False) + "\n"
    write_whole(Path(folder) / FILE_NAME, content.encode())


def read_summary(folder: Path | str) -> Summary | None:
    """Return a run's summary, or None if the folder has none.

    The status `running` is returned as `killed` if the process is not alive. A process on another host counts as alive
    while the lock of the folder is held.

    Raises:
        DamagedSummary: the file is not what `write_summary` writes. The message names it and says what to do.
    """
    path = Path(folder) / FILE_NAME
    try:
        summary = _parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # no JSON, or JSON of another structure
        got = f"{path} is damaged ({type(error).__name__}); delete it, and the run can go on from its checkpoint"
        raise DamagedSummary(got) from error
    if summary["status"] == "running" and not _is_running(summary["process"], Path(folder)):
        summary["status"] = "killed"
    return summary


def _parse(content: bytes) -> Summary:
    summary: Summary = json.loads(content)
    if missing := Summary.__annotations__.keys() - {"extensions"} - summary.keys():
        raise KeyError(*missing)
    summary["metrics"] = {tag: float(value) for tag, value in summary["metrics"].items()}
    if summary["objective"] is not None:
        summary["objective"] = float(summary["objective"])
    return summary


def _is_running(process: Process, folder: Path) -> bool:
    return is_alive(process) if process["host"] == socket.gethostname() else held_by(folder) is not None


def _without_nonfinite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nonfinite(entry) for key, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
