"""One policy for training steps that fail: a solve that cannot be finished, a loss or gradient that is not finite."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from neuralode_exp.ode import SolverError

log = logging.getLogger(__name__)


class NonFiniteGradient(RuntimeError):
    """The loss of a batch, or its gradient, is NaN or infinite, though every solve went through."""


class Failures:
    """Counts failed steps by kind, for each replica, and ends the run or freezes a replica when they pile up.

    Args:
        policy: `skip` leaves the step out, `raise` ends the run at the first one.
        most: consecutive failures of a replica that freeze it; with one replica, that end the run.
    """

    def __init__(self, policy: str, most: int, replicas: int) -> None:
        self.policy, self.most = policy, most
        self.total = 0
        self.kinds: Counter[str] = Counter()
        self.consecutive = torch.zeros(replicas, dtype=torch.long)
        self.frozen = torch.zeros(replicas, dtype=torch.bool)

    def count(self, step: int, failed: Tensor, error: RuntimeError) -> None:
        """Note that the replicas of the mask `failed` made no progress at this step.

        Raises:
            RuntimeError: the error itself, if the policy is `raise` or no replica is left.
        """
        self.total += int(failed.sum())
        self.kinds[type(error).__name__] += 1
        self.consecutive[failed] += 1
        who = f" (replicas {failed.nonzero().flatten().tolist()})" if len(failed) > 1 else ""
        log.warning("step %d skipped%s: %s: %s", step, who, type(error).__name__, error)
        if self.policy == "raise":
            raise error
        self.frozen |= self.consecutive >= self.most
        if bool(self.frozen.all()):
            log.error("%d steps failed one after another; the run ends", self.most)
            raise error

    def progressed(self, replicas: Tensor) -> None:
        self.consecutive[replicas] = 0

    def state(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "kinds": dict(self.kinds),
            "consecutive": self.consecutive,
            "frozen": self.frozen,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.total, self.kinds = state["total"], Counter(state["kinds"])
        self.consecutive, self.frozen = state["consecutive"].cpu(), state["frozen"].cpu()


def diverged_replicas(error: SolverError, replicas: int) -> Tensor:
    """Which replicas a failed solve of the whole stack is to be blamed on, a mask of shape (replicas,).

    Those with non-finite entries in the offending state; if all are finite, the one with the largest.
    """
    if replicas == 1:
        return torch.ones(1, dtype=torch.bool)
    # A state is (replicas, batch, d), with further axes before these in backward or at several times.
    by_replica = error.state.movedim(-3, 0).reshape(replicas, -1).cpu()
    bad = ~torch.isfinite(by_replica).all(dim=1)
    if not bool(bad.any()):
        bad[by_replica.abs().amax(dim=1).argmax()] = True
    return bad
