"""Counts of a solve, collected while it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Stats:
    """Counts of a solve.

    Attributes:
        nfe_forward: evaluations of the vector field in the forward solve.
        nfe_backward: evaluations of the vector field by backward so far; `backprop` makes none.
        accepted: accepted steps of the forward solve.
        rejected: rejected steps of the forward solve.
        first_step: absolute size of the first accepted step; None before it, or if steps cannot be seen.
        opening: absolute size that the first accepted step proposed by its error for the next one. A similar solve may
            begin with it. `first_step` was chosen before any error was known, and is usually smaller.
        stored_states: number of states that `reversible` kept between the first and the last; None for other gradients.
        reconstruction: largest relative difference between a state that backward reconstructed and the kept one.
        records: (t, dt, error ratio, accepted) of every trial step, or None; fixed steps have the ratio 0.
    """

    nfe_forward: int = 0
    nfe_backward: int = 0
    accepted: int = 0
    rejected: int = 0
    first_step: float | None = None
    opening: float | None = None
    stored_states: int | None = None
    reconstruction: float | None = None
    records: list[tuple[float, float, float, bool]] | None = None

    @property
    def trials(self) -> int:
        """Number of tried steps, accepted or rejected."""
        return self.accepted + self.rejected

    def record(self, t: float, dt: float, ratio: float, accepted: bool) -> None:
        self.accepted += accepted
        self.rejected += not accepted
        if accepted and self.first_step is None:
            self.first_step = abs(dt)
        if self.records is not None:
            self.records.append((t, dt, ratio, accepted))
