"""What happens when a training step fails, because a solve fails or because a loss or gradient is not finite."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from neuralode_exp.models.replicas import Replicas

log = logging.getLogger(__name__)


class NonFiniteGradient(RuntimeError):
    """The loss of a batch or its gradient is NaN or infinite, although every solve succeeded."""


class Failures:
    """Count failed steps of each replica. After too many in a row, freeze the replica or end the run.

    Args:
        policy: `skip` leaves the step out, `raise` ends the run at the first failure.
        most: number of consecutive failures that freeze a replica. A single replica ends the run instead.
        replicas: records which replicas are frozen.
    """

    def __init__(self, policy: str, most: int, replicas: Replicas) -> None:
        self.policy, self.most, self.replicas = policy, most, replicas
        self.total = 0
        self.consecutive = torch.zeros(replicas.n, dtype=torch.long)

    def count(self, step: int, failed: Tensor, error: RuntimeError) -> None:
        """Record that this step failed for the replicas in the mask `failed`, shape (R,).

        Raises:
            RuntimeError: the given error, if the policy is `raise` or no replica is left.
        """
        self.total += int(failed.sum())
        self.consecutive[failed] += 1
        who = f" (replicas {failed.nonzero().flatten().tolist()})" if len(failed) > 1 else ""
        log.warning("step %d skipped%s: %s: %s", step, who, type(error).__name__, error)
        if self.policy == "raise":
            raise error
        self.replicas.freeze(self.consecutive >= self.most)
        if bool(self.replicas.frozen.all()):
            log.error("%d steps failed one after another; the run ends", self.most)
            raise error

    def progressed(self, replicas: Tensor) -> None:
        self.consecutive[replicas] = 0

    def state(self) -> dict[str, Any]:
        return {"total": self.total, "consecutive": self.consecutive, "frozen": self.replicas.frozen}

    def restore(self, state: dict[str, Any]) -> None:
        self.total, self.consecutive = state["total"], state["consecutive"].cpu()
        self.replicas.freeze(state["frozen"].cpu())
