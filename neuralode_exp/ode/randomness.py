"""Fields that draw random numbers: repeated evaluations draw the same numbers, as in `torch.utils.checkpoint`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

State = tuple[Tensor, ...]  # state of the CPU's generator, and of the device's generator if z is not on the CPU


class Generators:
    """The global random generators of the CPU and of a device, for the evaluations of one solve.

    Attributes:
        log: their states before each evaluation, if the first evaluation has drawn random numbers; else None.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.log: list[State] | None = None
        self._start: State | None = None
        self._replayed: Iterator[State] | None = None

    @property
    def watched(self) -> bool:
        """Whether `before_evaluation` must be called before each evaluation."""
        return self.log is not None or self._replayed is not None

    @property
    def draws(self) -> bool:
        """Whether the first evaluation drew random numbers."""
        return self.log is not None

    def state(self) -> State:
        cpu = torch.get_rng_state()
        if self.device.type == "cpu":
            return (cpu,)
        return cpu, torch.get_device_module(self.device).get_rng_state(self.device)

    def restore(self, state: State) -> None:
        torch.set_rng_state(state[0])
        if len(state) > 1:
            torch.get_device_module(self.device).set_rng_state(state[1], self.device)

    def watch(self) -> None:
        """Store the state before the first evaluation."""
        self._start = self.state()

    @property
    def moved(self) -> bool:
        """Whether random numbers have been drawn since the first evaluation began."""
        assert self._start is not None
        return self.moved_from(self._start)

    def rewind(self) -> None:
        """Restore the state before the first evaluation, which is then repeated."""
        assert self._start is not None
        self.restore(self._start)

    def undo(self, first: bool) -> None:
        """Restore the state before this evaluation, if it is the first one or logged; others draw new numbers."""
        if self.log:
            self.restore(self.log[-1])
        elif first:
            self.rewind()

    def first_evaluation_done(self) -> None:
        """Check whether the first evaluation drew random numbers; if so, keep the states from here on."""
        assert self._start is not None
        if self.moved:
            self.log = [self._start]

    def before_evaluation(self) -> None:
        if self._replayed is not None:
            self.restore(next(self._replayed))
        elif self.log is not None:
            self.log.append(self.state())

    def refuse_draws(self, since: State | None = None) -> None:
        """Refuse an f that drew random numbers, for a gradient that solves a continuous equation.

        Args:
            since: a state of the generators, which tells whether later evaluations drew; None: only the first one is
                known.

        Raises:
            ValueError: with what to do instead.
        """
        if self.draws or (since is not None and self.moved_from(since)):
            raise ValueError(
                "gradient='adjoint' solves a continuous equation, which f(t, z) must define, got an f that draws "
                "random numbers; fix the noise for a whole solve, or use gradient='checkpoint'"
            )

    def mark(self) -> int:
        """Return the number of logged evaluations."""
        return 0 if self.log is None else len(self.log)

    def since(self, mark: int) -> list[State] | None:
        """Return the states before the evaluations since a mark; None if f draws nothing."""
        return None if self.log is None else self.log[mark:]

    @contextmanager
    def replay(self, states: Sequence[State] | None) -> Iterator[None]:
        """Within this context, let evaluations draw the same numbers as those that began with these states."""
        if states is None:
            yield
            return
        before, self._replayed = self.state(), iter(states)
        try:
            yield
        finally:
            self._replayed = None
            self.restore(before)

    def moved_from(self, before: State) -> bool:
        """Return whether random numbers have been drawn since that state."""
        return any(not torch.equal(a, b) for a, b in zip(before, self.state(), strict=True))
