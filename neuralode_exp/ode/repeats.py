"""Checks that f is the same in backward as in the solve, by comparing repeated values with the first ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Repeats:
    """Collects the largest relative difference of repeated values; it is read from the device once, at the end.

    Args:
        dtype: precision in which f computes; it sets the tolerance, which allows for kernels that sum in another order.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.tolerance = torch.finfo(dtype).eps ** 0.75
        self._difference: Tensor | None = None
        self._expected: Tensor | None = None

    def expect(self, fingerprint: Tensor | None) -> None:
        """Expect the next evaluation to repeat the one with this fingerprint; None: expect nothing."""
        self._expected = fingerprint

    def evaluated(self, value: Tensor) -> None:
        """Compare an evaluation with the expected one, if there is one.

        Raises:
            ValueError: they differ.
        """
        expected, self._expected = self._expected, None
        if expected is not None:
            found, size = fingerprint(value), expected[0] * math.sqrt(max(1, value.numel()))
            # The numbers of a large value in float32 may be infinite.
            difference = torch.where(found == expected, torch.zeros_like(found), (found - expected).abs())
            self._note(difference.max(), size)
            self.refuse_difference()

    def compare(self, value: Tensor, before: Tensor | None) -> None:
        """Compare a repeated state or slope with the first one; None: that is not known."""
        if before is not None:
            self._note(torch.linalg.vector_norm(value.detach() - before), torch.linalg.vector_norm(before))

    def _note(self, difference: Tensor, size: Tensor) -> None:
        relative = difference / size.clamp(min=torch.finfo(size.dtype).tiny)
        self._difference = relative if self._difference is None else torch.maximum(self._difference, relative)

    def refuse_difference(self) -> None:
        """Read the largest difference since the last call.

        Raises:
            ValueError: f is not the same as in the solve.
        """
        difference, self._difference = self._difference, None
        if difference is not None and not float(difference) <= self.tolerance:  # NaN is refused too
            raise ValueError(
                "f(t, z) must be the same in backward as in the solve, got another value for the same t and z; between "
                "them, change nothing that f reads (an attribute, a tensor kept from one call to the next, a generator "
                "of its own), or use gradient='backprop'"
            )


def fingerprint(value: Tensor) -> Tensor:
    """Return two numbers that identify a value of f(t, z): its norm, and a sum with increasing weights."""
    value = value.detach().reshape(-1)
    weights = torch.linspace(0.5, 1.5, max(1, value.numel()), dtype=value.dtype, device=value.device)[: value.numel()]
    return torch.stack([torch.linalg.vector_norm(value), value @ weights])
