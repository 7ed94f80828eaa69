"""What a run must have so that it records a number that may be minimised.

The rows of `neuralode_exp.tags` name these conditions. The config's package imports those rows, so nothing of it is
imported here before a condition is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuralode_exp.config.schema import Config


@dataclass(frozen=True)
class Condition:
    """What a run must have so that it records a number.

    Args:
        words: what a message says that the number needs.
        holds: whether a run has it, by its config.
    """

    words: str
    holds: Callable[[Config], bool]


def _has_cuda(c: Config) -> bool:
    if c.device != "auto":
        return c.device.startswith("cuda")
    import torch

    return torch.cuda.is_available()


def _counts_steps(c: Config) -> bool:
    from neuralode_exp.ode.solvers import SOLVERS

    by_likelihood = c.dataset.kind != "densities" or c.trainer.loss != "flow-matching"
    return c.solves_ode and by_likelihood and SOLVERS[c.solver.name].scipy is None


def _knows_field(c: Config) -> bool:
    from neuralode_exp.config.options import data_of

    return data_of(c.dataset, c.extensions) is not None


def _knows_eigenvalues(c: Config) -> bool:
    from neuralode_exp.config.options import data_of
    from neuralode_exp.data.systems import known_system

    found = data_of(c.dataset, c.extensions)
    return found is not None and known_system(*found).fixed_point is not None


def _knows_density(c: Config) -> bool:
    import torch

    from neuralode_exp.config.options import data_of
    from neuralode_exp.data.densities import known_density

    if (found := data_of(c.dataset, c.extensions)) is None:
        return False
    density = known_density(*found)
    return density.log_prob(density.sample(1, torch.Generator().manual_seed(0))) is not None


CUDA = Condition("a CUDA device", _has_cuda)
NOT_MPS = Condition("a CPU or a CUDA device", lambda c: c.device != "mps")
HELD_OUT = Condition("held-out data (dataset.validation above 0)", lambda c: getattr(c.dataset, "validation", 0) > 0)
KNOWN_FIELD = Condition("a dataset whose true system is known", _knows_field)
KNOWN_EIGENVALUES = Condition("a dataset whose true system has a known fixed point", _knows_eigenvalues)
KNOWN_DENSITY = Condition("a dataset whose true density is known", _knows_density)
COUNTED_STEPS = Condition("training solves whose steps are counted", _counts_steps)
REVERSIBLE = Condition("model.gradient=reversible", lambda c: c.model.gradient == "reversible")
THREE_STEPS = Condition("at least three training steps", lambda c: (c.trainer.max_steps or 3) >= 3)
