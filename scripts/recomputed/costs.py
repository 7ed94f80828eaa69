"""Memory of a training step: the allocator's events, and a walk through autograd's graph."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuralode_exp.config import Config
from neuralode_exp.trainers.loop import Loop

MIB = 2**20


def recompute(loop: Loop, config: Config, metrics: Mapping[str, float]) -> Iterator[tuple[Any, ...]]:
    loop.task.module.train()
    for group in loop.optimizer.param_groups:
        group["lr"] = 0.0  # the step that is measured here must not change the weights
    loop.optimizer.zero_grad(set_to_none=True)
    graph = loop.task.loss(loop.step).sum()
    own = {x.untyped_storage().data_ptr() for x in (*loop.task.module.parameters(), *loop.task.module.buffers())}
    sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in saved_by(graph)}
    saved = sum(n for place, n in sizes.items() if place not in own)
    del graph
    # The nodes of the graph do not show the graph of the last step, which a checkpointed solve keeps.
    if config.model.gradient != "checkpoint":
        yield "memory/saved_mib", metrics["memory/saved_mib"], saved / MIB, 0.01, 0.001

    def step() -> None:
        loop.task.loss(loop.step).sum().backward()
        loop.optimizer.step()

    yield "memory/peak_mib", metrics["memory/peak_mib"], written_peak(step) / MIB, 0.01, 0.001


def written_peak(step: Callable[[], None]) -> int:
    """Return the most bytes that a step makes and holds at once, from the trace that torch's profiler writes."""
    with torch.autograd.profiler.profile(profile_memory=True) as profiler:
        step()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        profiler.export_chrome_trace(file.name)
        events = json.loads(Path(file.name).read_text())["traceEvents"]
    changes = sorted((event["ts"], event["args"]) for event in events if event["name"] == "[memory]")
    made: dict[int, int] = {}
    peak = 0
    for _, change in changes:
        if change["Bytes"] > 0:
            made[change["Addr"]] = change["Bytes"]
            peak = max(peak, sum(made.values()))
        else:
            made.pop(change["Addr"], None)
    return peak


def saved_by(root: Tensor) -> Iterator[Tensor]:
    """Return the tensors that the nodes of a graph have saved."""
    seen, waiting = set(), [root.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [parent for parent, _ in node.next_functions]
        named = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        for value in (*named, getattr(node, "saved_tensors", ())):
            yield from (x for x in (value if isinstance(value, (tuple, list)) else (value,)) if isinstance(x, Tensor))
