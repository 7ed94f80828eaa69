"""What a solve cost, counted as it goes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Stats:
    """What a solve cost.

    Attributes:
        nfe_forward: evaluations of the vector field in the forward solve.
        nfe_backward: evaluations of the vector field made by backward so far; 0 for `backprop`, which makes none.
        accepted: accepted steps of the forward solve.
        rejected: rejected steps of the forward solve.
        first_step: unsigned size of the first accepted step; None before it, and where steps cannot be seen.
        opening: unsigned size to begin another solve like this one with, which the first accepted step's error permits.
        stored_states: states that `reversible` kept between the first and the last one; None for other gradients.
        reconstruction: largest relative difference of a state that backward reconstructed from the kept one.
        records: (t, dt, error ratio, accepted) of every trial step if asked for; fixed steps have the ratio 0.
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
        """Steps tried, accepted and rejected."""
        return self.accepted + self.rejected

    def record(self, t: float, dt: float, ratio: float, accepted: bool) -> None:
        self.accepted += accepted
        self.rejected += not accepted
        if accepted and self.first_step is None:
            self.first_step = abs(dt)
        if self.records is not None:
            self.records.append((t, dt, ratio, accepted))
