"""Grids and searches: their cells, how these are launched and interrupted, and the final table."""

from __future__ import annotations

STUDY = "study.journal"  # file in the folder of a search
# What a job is told by its environment, because Hydra 1.4 lets no job change the settings of the sweeper.
STEPS_AFTER = "NEURALODE_STEPS_AFTER"  # training steps of the jobs that come after it
TRIAL = "NEURALODE_TRIAL"  # number of the trial that it runs


def telling(name: str, value: int) -> str:
    """Return the argument of a job that sets a variable of its environment."""
    return f"+hydra.job.env_set.{name}={value}"
