"""Memory of a training step: what autograd holds for backward, and the peaks of device and process."""

import resource
import sys
from collections.abc import Iterable
from types import TracebackType

import torch
from torch import Tensor, nn

MIB = 2**20


class SavedTensors:
    """Measure the bytes that autograd holds during one training step.

    Hooks on saved tensors count each storage once, from the first tensor on it that is saved to the last that
    is released; views and tensors that are saved twice cost nothing more. Tensors of graphs that are built
    inside backward, as checkpointing functions do, are counted as well.
    Not seen: tensors that a function keeps without `save_for_backward`, and what is recomputed by
    `torch.utils.checkpoint(..., use_reentrant=False)`, where hooks of its own take the place of these.

    Args:
        exclude: a module, whose parameters and buffers are not counted, or the tensors not to count.

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
        self._hooks = torch.autograd.graph.saved_tensors_hooks(lambda tensor: _Saved(self, tensor), _unpack)

    def __enter__(self) -> "SavedTensors":
        self._hooks.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hooks.__exit__(kind, error, traceback)

    def backward_starts(self) -> None:
        """Note what is held now, between the forward pass and backward."""
        self.saved_bytes = self._held

    @property
    def saved_mib(self) -> float:
        """MiB held when backward started."""
        return self.saved_bytes / MIB

    @property
    def autograd_peak_mib(self) -> float:
        """Most MiB held at once so far."""
        return self.peak_bytes / MIB

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
    """A saved tensor in autograd's hands. Autograd drops it when it releases the tensor."""

    def __init__(self, probe: SavedTensors, tensor: Tensor) -> None:
        self.probe = probe
        # Detached: an output that is saved by its own function would keep its graph alive in a cycle.
        self.tensor = tensor.detach()
        probe._add(tensor.untyped_storage())

    def __del__(self) -> None:
        self.probe._remove(self.tensor.untyped_storage())


def _unpack(saved: _Saved) -> Tensor:
    return saved.tensor


def reset_peak_device(device: torch.device) -> None:
    """Start a new peak for `peak_device_mib`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_device_mib(device: torch.device) -> float | None:
    """Return the most MiB that tensors took on a CUDA device since the last reset, None on other devices."""
    return torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else None


def peak_rss_mib() -> float:
    """Return the most MiB of main memory that this process took since it started."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024  # bytes there, KiB on Linux
