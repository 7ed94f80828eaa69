"""Measure memory: the peak of a training step, the tensors saved for backward, and peaks of device and process."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch._C._profiler import _ExtraFields_Allocation

MIB = 2**20


class SavedTensors:
    """Measure the bytes that autograd holds during one training step.

    Hooks on saved tensors count each storage once, from the first saved tensor on it to the last release. Views and
    tensors that are saved twice are not counted again. Tensors of graphs that are built inside backward, as by
    checkpointing, are counted too.
    Two things are not counted: tensors that a function keeps without `save_for_backward`, and what
    `torch.utils.checkpoint(..., use_reentrant=False)` recomputes, because its own hooks replace these.

    Args:
        exclude: a module whose parameters and buffers are not counted, or a collection of tensors that are not.

    Example:
        >>> with SavedTensors(exclude=model) as probe:
        ...     loss = model(x).square().mean()
        ...     probe.backward_starts()
        ...     loss.backward()
        >>> probe.saved_mib, probe.autograd_peak_mib
    """

    def __init__(self, exclude: nn.Module | Iterable[Tensor] = ()) -> None:
        tensors = [*exclude.parameters(), *exclude.buffers()] if isinstance(exclude, nn.Module) else exclude
        self._excluded = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        self._holders: dict[int, int] = {}  # number of saved tensors by the address of their storage
        self._held = 0
        self.saved_bytes = 0
        self.peak_bytes = 0
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)

    def __enter__(self) -> "SavedTensors":
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

    def backward_starts(self) -> None:
        """Record what is held now, between the forward pass and backward."""
        self.saved_bytes = self._held

    @property
    def saved_mib(self) -> float:
        """MiB held when backward started."""
        return self.saved_bytes / MIB

    @property
    def autograd_peak_mib(self) -> float:
        """The most MiB that saved tensors held at once so far. It does not include temporaries."""
        return self.peak_bytes / MIB

    def _pack(self, tensor: Tensor) -> "_Saved | Tensor":
        # Zero tangents of forward-mode differentiation have no memory.
        return tensor if torch._is_zerotensor(tensor) else _Saved(self, tensor)

    def _add(self, storage: torch.UntypedStorage) -> None:
        address = storage.data_ptr()
        if address in self._excluded:
            return
        holders = self._holders.get(address, 0)
        self._holders[address] = holders + 1
        if holders == 0:
            self._held += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self._held)

    def _remove(self, storage: torch.UntypedStorage) -> None:
        address = storage.data_ptr()
        if address in self._excluded:
            return
        self._holders[address] -= 1
        if self._holders[address] == 0:
            del self._holders[address]
            self._held -= storage.nbytes()


class _Saved:
    """Stands for a saved tensor. Autograd drops it when it releases the tensor."""

    def __init__(self, probe: SavedTensors, tensor: Tensor) -> None:
        self.probe = probe
        # The tensor is detached, because an output that its own function saves would keep its graph alive in a cycle.
        self.tensor = tensor.detach()
        probe._add(tensor.untyped_storage())

    def __del__(self) -> None:
        self.probe._remove(self.tensor.untyped_storage())


def _unpack(saved: _Saved | Tensor) -> Tensor:
    return saved if isinstance(saved, Tensor) else saved.tensor


class AllocatedBytes:
    """Measure the peak in bytes of CPU tensors that are allocated within the block.

    It uses the events of torch's allocator, so that temporaries inside an operation count too: a convolution on a CPU
    makes blocked copies of its input, which it does not return. An allocation within the block counts until its address
    is freed. Freeing earlier memory changes nothing.

    Attributes:
        peak_bytes: the peak, known after the block.

    Raises:
        RuntimeError: another profiler of torch is running.
    """

    def __init__(self) -> None:
        # `torch.profiler` uses this profiler too, but imports the compiler, which takes seconds.
        self._profiler = torch.autograd.profiler.profile(profile_memory=True)
        self.peak_bytes = 0

    def __enter__(self) -> "AllocatedBytes":
        self._profiler.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._profiler.__exit__(*error)
        alive: dict[int, int] = {}  # bytes by address
        total = 0
        for address, n_bytes in _allocations(self._profiler):
            if n_bytes > 0:
                alive[address] = n_bytes
                total += n_bytes
                self.peak_bytes = max(self.peak_bytes, total)
            else:
                total -= alive.pop(address, 0)


def _allocations(profiler: torch.autograd.profiler.profile) -> list[tuple[int, int]]:
    """Return the address and the bytes of each event of the allocator, in order. Bytes are negative for a release.

    A private function is used, because the public ones give these events only in a trace file.
    """
    assert profiler.kineto_results is not None
    waiting = list(profiler.kineto_results.experimental_event_tree())
    found = []
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if isinstance(change := event.extra_fields, _ExtraFields_Allocation):
            found.append((event.start_time_ns, change.ptr, change.alloc_size))
    found.sort(key=itemgetter(0))
    return [(address, n_bytes) for _, address, n_bytes in found]


class Peaks:
    """The peaks of memory in one run: of a training step, of its device and of its process.

    Args:
        device: the device of the run. Its peak is counted from now on.
    """

    _runs_of_process = 0

    def __init__(self, device: torch.device) -> None:
        self._device = device
        Peaks._runs_of_process += 1
        self._first_run = Peaks._runs_of_process == 1
        self._before_step = 0  # CUDA's peak before it was reset for a step
        self.step_mib: float | None = None
        self.reset_device()

    @contextmanager
    def of_step(self) -> Iterator[None]:
        """Measure one training step: set `step_mib` to the peak of its tensors in MiB, beyond those alive before it.

        On CUDA the allocator measures it, on a CPU `AllocatedBytes` does. `step_mib` is not changed on other devices,
        or if the caller's own profiler is running.
        """
        if self._device.type == "cuda":
            self._before_step = max(self._before_step, torch.cuda.max_memory_allocated(self._device))
            torch.cuda.reset_peak_memory_stats(self._device)
            before = torch.cuda.memory_allocated(self._device)
            yield
            self.step_mib = (torch.cuda.max_memory_allocated(self._device) - before) / MIB
        elif self._device.type == "cpu" and not torch.autograd.profiler._is_profiler_enabled:
            with AllocatedBytes() as allocated:
                yield
            self.step_mib = allocated.peak_bytes / MIB
        else:
            yield

    def reset_device(self) -> None:
        """Reset the peak of the device."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before_step = 0

    def values(self) -> dict[str, float]:
        """Return the known peaks in MiB by tag.

        `memory/peak_device_mib` is the peak of CUDA since `reset_device`. `memory/peak_rss_mib` is the peak of the
        process since its start. It is left out if the process had another run before.
        """
        values = {}
        if self._first_run:
            values["memory/peak_rss_mib"] = peak_rss_mib()
        if self._device.type == "cuda":
            peak = max(self._before_step, torch.cuda.max_memory_allocated(self._device))
            values["memory/peak_device_mib"] = peak / MIB
        return values


def peak_rss_mib() -> float:
    """Return the peak of main memory in MiB that this process has used since its start."""
    try:
        import resource
    except ModuleNotFoundError:  # on Windows, where psutil knows the peak; elsewhere it does not
        memory = psutil.Process().memory_info()
        return getattr(memory, "peak_wset", memory.rss) / MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024  # bytes there, KiB on Linux
