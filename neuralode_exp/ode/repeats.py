"""Is f in backward the one that was solved? What is computed again is compared with what it was, on the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Repeats:
    """Gathers how far repeated values are from the first ones, relative; one number is read at the end.

    Args:
        dtype: precision in which f computes; there is room for kernels that do not sum in the same order each time.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.tolerance = torch.finfo(dtype).eps ** 0.75
        self._difference: Tensor | None = None
        self._expected: Tensor | None = None

    def expect(self, fingerprint: Tensor | None) -> None:
        """Let the next evaluation be one that was made before; None: it was not."""
        self._expected = fingerprint

    def evaluated(self, value: Tensor) -> None:
        """Compare an evaluation, if it was expected.

        Raises:
            ValueError: it is another one.
        """
        expected, self._expected = self._expected, None
        if expected is not None:
            size = expected[0] * math.sqrt(max(1, value.numel()))
            self._note((fingerprint(value) - expected).abs().max(), size)
            self.refuse_difference()

    def compare(self, state: Tensor, before: Tensor | None) -> None:
        """Compare a state with what it was; None: that is not known."""
        if before is not None:
            self._note(torch.linalg.vector_norm(state.detach() - before), torch.linalg.vector_norm(before))

    def _note(self, difference: Tensor, size: Tensor) -> None:
        relative = difference / size.clamp(min=torch.finfo(size.dtype).tiny)
        self._difference = relative if self._difference is None else torch.maximum(self._difference, relative)

    def refuse_difference(self) -> None:
        """Read the largest difference since the last time.

        Raises:
            ValueError: f is another one than in the solve.
        """
        difference, self._difference = self._difference, None
        if difference is not None and float(difference) > self.tolerance:
            raise ValueError(
                "f(t, z) must be the same in backward as in the solve, got another value for the same t and z; between "
                "them, change nothing that f reads (an attribute, a tensor kept from one call to the next, a generator "
                "of its own), or use gradient='backprop'"
            )


def fingerprint(value: Tensor) -> Tensor:
    """Two numbers that tell f(t, z) from another value, on its device: the size, and a sum with rising weights."""
    value = value.detach().reshape(-1)
    weights = torch.linspace(0.5, 1.5, max(1, value.numel()), dtype=value.dtype, device=value.device)[: value.numel()]
    return torch.stack([torch.linalg.vector_norm(value), value @ weights])
