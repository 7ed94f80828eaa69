"""A run, from its config to its summary: seed, data, model, training, files, status."""

from __future__ import annotations

import ctypes
import logging
import math
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import yaml

from neuralode_exp import tags, user_files
from neuralode_exp.build import build_task, pick_device
from neuralode_exp.config import Config, ConfigError, flatten, identity, label, plain, without_meaning
from neuralode_exp.config.machine import of_machine
from neuralode_exp.config.own import resuming, store_options
from neuralode_exp.interruption import StopAtOnce, StopLater
from neuralode_exp.load import restore_weights
from neuralode_exp.ode import SolverError
from neuralode_exp.ode.compiled import CompilationWarning, forget_programs
from neuralode_exp.outcome import Interrupted, RunFailed, command
from neuralode_exp.tracking import checkpoints
from neuralode_exp.tracking.lock import Held, Lock, lock
from neuralode_exp.tracking.progress import Progress, final_table, progress
from neuralode_exp.tracking.provenance import device_name
from neuralode_exp.tracking.recorder import Recorder
from neuralode_exp.tracking.summary import DamagedSummary, RunError, Summary, new_summary, read_summary, write_summary
from neuralode_exp.trainers.failures import NonFiniteGradient
from neuralode_exp.trainers.loop import Cadence, Loop, Prune, averaged
from neuralode_exp.trainers.task import Task

log = logging.getLogger(__name__)

MANY_REPLICAS = 8
Show = Callable[..., Progress]  # see `progress`


def run(
    config: Config,
    folder: Path,
    values: Mapping[str, Any],
    *,
    bar: bool | None = None,
    steps_after: int = 0,
    prune: Prune | None = None,
) -> float:
    """Train, measure and record one run in its folder, or go on with the run that is there.

    A completed run is not repeated, and one that was cut off goes on from its last checkpoint. This process locks the
    folder until the run ends.

    Args:
        config: the validated config.
        folder: the folder of the run.
        values: the composed config, which is recorded; references in it are resolved then.
        bar: whether to show a progress bar; None shows one on a terminal.
        steps_after: training steps of the runs that come after this one in a grid.
        prune: called at each evaluation with its number and the objective; True ends the run as pruned, after a
            checkpoint. None never prunes.

    Returns:
        The objective, which is minimised; infinity for an impossible cell.

    Raises:
        RunFailed: with one line for the user; the traceback is in the log.
        Held: another process holds the folder.
        Interrupted: after a checkpoint, with the command that goes on.
    """
    with lock(folder) as held:
        show = partial(progress, terminal=bar, steps_after=steps_after)
        return _run(config, folder, values, held, show, prune)


def _run(config: Config, folder: Path, values: Mapping[str, Any], held: Lock, show: Show, prune: Prune | None) -> float:
    try:
        before = read_summary(folder)
    except DamagedSummary as error:
        raise RunFailed(str(error)) from error
    if before is not None and before["identity"] != identity(config):
        raise RunFailed(f"{folder} holds another run ({before['identity']}); choose another folder")
    store_options(folder, config, values)
    if before is not None and before["status"] == "completed" and before["objective"] is not None:
        log.info("already completed: %s", folder)
        return before["objective"]
    summary = new_summary(identity(config), torch.device("cpu"))
    if config.extensions:
        summary["extensions"] = {word: user_files.sha256(word) for word in config.extensions}
    if (gap := without_meaning(config)) is not None:
        log.info("skipped: %s", gap)
        summary["error"] = RunError(type="NoMeaning", message=str(gap))
        _end(folder, summary, "skipped")
        return math.inf
    if wrong := [*of_machine(config)]:  # a launcher's other machine is not the one that checked the request
        _fail(folder, summary, ConfigError(wrong))
    device = pick_device(config.device)
    summary["device"] = device_name(device)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(config.threads or default_threads(config, threads_before))
    try:
        with StopAtOnce():
            write_summary(folder, summary)
            return _train(config, folder, values, device, summary, held, show, prune)
    except KeyboardInterrupt as interrupt:
        if summary["status"] == "running":
            _end(folder, summary, "interrupted")
        _stop(folder, config, summary, interrupt)
    except Held:
        raise
    except Exception as error:
        _fail(folder, summary, error)
    finally:
        torch.set_num_threads(threads_before)  # the launcher may run further jobs in this process


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks for the next tensors instead of giving each back to the kernel.

    By default every large tensor is a memory mapping of its own, whose pages are faulted in and zeroed again at the
    next step. That takes 5 to 20 % of a training step on images; the peak is the same. The process then keeps its
    largest size, so the entry point decides whether to call this. Without glibc it does nothing.
    """
    M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1  # of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def default_threads(config: Config, available: int) -> int:
    """Return the number of torch's threads if the config does not set it.

    The networks of the dynamics trainer are so small that a second thread gains nothing, and waiting for it costs a
    factor of ten if other processes use the cores. Only a stack of many replicas is worth a second thread.
    """
    alone = config.dataset.kind == "dynamics" and config.trainer.replicas < MANY_REPLICAS
    return 1 if alone else available


def seed_everything(seed: int) -> None:
    """Seed every global generator; the launcher may run many jobs in one process."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries draw from it
    torch.manual_seed(seed)


def _train(
    config: Config,
    folder: Path,
    values: Mapping[str, Any],
    device: torch.device,
    summary: Summary,
    held: Lock,
    show: Show,
    prune: Prune | None,
) -> float:
    seed_everything(config.seed)
    task = build_task(config, device)
    last = folder / "checkpoints" / "last.pt"
    resumed = last.exists()
    if config.weights is not None and not resumed:
        restore_weights(task.model, config.weights)
    summary["parameters"] = task.parameters
    cadence = Cadence.of(task, config.trainer, config.log_every)
    objective = tags.RENAMED.get(config.objective or "", config.objective) or task.objective
    minimised = objective or "loss/train"
    loop = Loop(task, config.trainer, cadence, objective, folder)
    if resumed:
        loop.restore(checkpoints.load(last, device))
        log.info("%s: resumed after step %d of %d", label(config), loop.step, cadence.total)
    recorder = Recorder(folder, resume_step=loop.step if resumed else None)
    try:
        recorded = plain(values)
        recorder.text("config", "```yaml\n" + yaml.safe_dump(recorded, sort_keys=False) + "```")
        # TensorBoard shows 17 characters of a long name, so that what tells it from others stands in front.
        recorder.hparams_start(f"{identity(config)[:4]} {label(config)}", flatten(recorded))
        later = StopLater("stopping after this step, with a checkpoint")

        def interrupted() -> bool:
            held.check()
            return later()

        alone = compiled_alone() if config.solver.compile else nullcontext()
        with later, alone, show(cadence.total, start=loop.step) as display:
            loop.run(recorder, display, interrupted, prune)
        summary |= {"steps": loop.step, "seconds": loop.seconds, "metrics": dict(loop.metrics)}
        if loop.pruned:
            _end(folder, summary, "pruned", recorder)
        later.stop("interrupted")
        if loop.pruned:
            again = resuming(folder, config.extensions)
            log.info("%s: pruned after step %d; %s trains it to its end", label(config), loop.step, again)
            return loop.metrics.get(minimised, math.nan)
        _measure(task, loop, recorder)
        with StopLater("stopping once the run is recorded") as later:
            value = _record(loop, recorder, minimised)
            summary |= {"metrics": dict(loop.metrics), "objective": value}
            if not math.isfinite(value):
                missing = minimised not in loop.metrics and not loop.failures.total
                advice = "this run does not record it, so choose another" if missing else task.advice
                raise RuntimeError(f"the objective {minimised} is {value}; {advice}")
            _end(folder, summary, "completed", recorder)
        later.stop("interrupted")
    except KeyboardInterrupt:
        if summary["status"] == "running":
            recorder.hparams_end("interrupted")
        raise
    except Held:
        raise
    except Exception as error:
        recorder.hparams_end("failed")
        summary |= {"steps": loop.step, "seconds": loop.seconds}
        if isinstance(error, NonFiniteGradient) or (isinstance(error, SolverError) and task.advice != Task.advice):
            error.add_note(task.advice)  # a failed solve gives general advice itself
        raise
    finally:
        recorder.close()
    print(final_table(_table(loop.metrics, summary), folder))
    return value


@contextmanager
def compiled_alone() -> Iterator[None]:
    """Compile this run independently of earlier ones in the process, and log in one line what cannot be compiled."""
    forget_programs()
    with warnings.catch_warnings():
        warnings.simplefilter("always", CompilationWarning)
        warnings.showwarning = lambda message, *_, **__: log.warning("%s", message)
        yield


def _measure(task: Task, loop: Loop, recorder: Recorder) -> None:
    """Evaluate the last weights on test data and draw the pictures."""
    task.module.eval()
    with averaged(loop), torch.no_grad():
        loop.metrics.update(task.final())
        task.draw(loop.step, recorder, last=True)


def _record(loop: Loop, recorder: Recorder, objective: str) -> float:
    """Write the last weights, record the final values and return the objective."""
    loop.save("last")
    if not (loop.folder / "best.pt").exists():
        loop.save("best", weights_only=True)
    loop.metrics.update(loop.meter.of_run())
    final = tags.final_values(loop.metrics)
    new = {tag: value for tag, value in loop.metrics.items() if tag not in loop.recorded}
    recorder.scalars(loop.step, new | final)
    loop.metrics.update(final)
    return loop.metrics.get(objective, math.nan)


def _end(folder: Path, summary: Summary, status: str, recorder: Recorder | None = None) -> None:
    summary["status"] = status  # type: ignore[typeddict-item]
    write_summary(folder, summary)
    if recorder is not None:
        recorder.hparams_end(status)


def _stop(folder: Path, config: Config, summary: Summary, interrupt: KeyboardInterrupt) -> NoReturn:
    """End an interrupted run with the command that goes on with it."""
    number = interrupt.signal if isinstance(interrupt, Interrupted) else signal.SIGINT
    after = f" after step {summary['steps']}" if summary["steps"] else ""
    if summary["status"] == "completed":
        raise Interrupted(f"interrupted once the run was completed: {folder}", number) from None
    raise Interrupted(
        f"interrupted{after}; go on with: {command()} {resuming(folder, config.extensions)}", number
    ) from None


def _fail(folder: Path, summary: Summary, error: Exception) -> NoReturn:
    """Record a failure: its traceback in the log, one line in the summary."""
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    line = "; ".join([line, *getattr(error, "__notes__", ())])
    log.debug("the run failed", exc_info=error)
    summary["error"] = RunError(type=type(error).__name__, message=line)
    try:
        _end(folder, summary, "failed")
    except OSError:
        log.exception("summary.json was not written")
    raise RunFailed(f"{type(error).__name__}: {line} (traceback in {folder / 'train.log'})") from error


def _table(metrics: Mapping[str, float], summary: Summary) -> dict[str, float | str]:
    rows: dict[str, float | str] = {
        tag.removeprefix("final/"): value for tag, value in metrics.items() if tag.startswith("final/")
    }
    return rows | {"parameters": summary["parameters"] or 0, "steps": summary["steps"]}
