"""Fields that draw random numbers: what their evaluations drew can be drawn again, as `torch.utils.checkpoint` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

State = tuple[Tensor, ...]  # of the CPU's generator, and of the device's if that is another one


class Generators:
    """The global generators of the CPU and of a device, around the evaluations of one solve.

    Attributes:
        log: the state before each evaluation, once `watch` has found that f draws; else None.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.log: list[State] | None = None
        self._start: State | None = None
        self._replayed: Iterator[State] | None = None

    @property
    def watched(self) -> bool:
        """Whether an evaluation must tell that it begins."""
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
        """Note the state before the first evaluation."""
        self._start = self.state()

    def rewind(self) -> None:
        """Go back to before the first evaluation, which is made again."""
        assert self._start is not None
        self.restore(self._start)

    def first_evaluation_done(self) -> None:
        """See whether it drew: if so, the states are kept from here on."""
        assert self._start is not None
        if self.moved_from(self._start):
            self.log = [self._start]

    def before_evaluation(self) -> None:
        if self._replayed is not None:
            self.restore(next(self._replayed))
        elif self.log is not None:
            self.log.append(self.state())

    def refuse_draws(self) -> None:
        """Refuse an f whose first evaluation drew, for a gradient that solves a continuous equation.

        Raises:
            ValueError: with the ways out.
        """
        if self.draws:
            raise ValueError(
                "gradient='adjoint' solves a continuous equation, which f(t, z) must define, got an f that draws "
                "random numbers; fix the noise for a whole solve, or use gradient='checkpoint'"
            )

    def mark(self) -> int:
        """How many evaluations have been logged."""
        return 0 if self.log is None else len(self.log)

    def since(self, mark: int) -> list[State] | None:
        """The states before the evaluations since a mark; None if f draws nothing."""
        return None if self.log is None else self.log[mark:]

    @contextmanager
    def replay(self, states: Sequence[State] | None) -> Iterator[None]:
        """Let the evaluations inside draw what the ones with these states drew."""
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
        """Whether something has been drawn since that state."""
        return any(not torch.equal(a, b) for a, b in zip(before, self.state(), strict=True))
