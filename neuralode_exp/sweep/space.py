"""The search space: Hydra's sweep syntax, read as Optuna's distributions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna import Study
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)

from neuralode_exp.config.errors import ConfigError, Mistake

Space = dict[str, BaseDistribution]


def split(overrides: Iterable[Override]) -> tuple[Space, list[str]]:
    """Split arguments into the search space and fixed ones. Of two arguments with the same key the later counts.

    `interval(a,b)` is continuous, and `int(interval(a,b))` has whole numbers. `range(a,b,step)` has the same values as
    in a grid. `tag(log, ...)` draws the logarithm evenly. Any other sweep is a choice of the values that it lists.
    """
    by_key = {override.get_key_element(): override for override in overrides}
    space = {key: distribution(override) for key, override in by_key.items() if override.is_sweep_override()}
    fixed = [str(override.input_line) for override in by_key.values() if not override.is_sweep_override()]
    return space, fixed


def words(parameters: Mapping[str, object]) -> list[str]:
    """Return a trial's parameters as arguments."""
    return [f"{key}={value}" for key, value in parameters.items()]


def require_same(study: Study, space: Space) -> None:
    """Refuse a space from which the trials of the study cannot have been drawn.

    Raises:
        ConfigError: with the key that differs.
    """
    for trial in study.get_trials(deepcopy=False)[-1:]:
        for key in trial.distributions.keys() & space.keys():
            try:
                check_distribution_compatibility(trial.distributions[key], space[key])
            except ValueError:
                got, fix = f"{space[key]} after {trial.distributions[key]}", "search in another hydra.sweep.dir"
                raise ConfigError([Mistake(key, "must be searched as in the study's trials", got, fix)]) from None


def distribution(override: Override) -> BaseDistribution:
    """Return Optuna's distribution of a sweep.

    Raises:
        ValueError: Optuna has none, because its ends are in the wrong order or have no logarithm.
    """
    value = override.value()
    log = "log" in getattr(value, "tags", ())
    if isinstance(value, IntervalSweep):
        whole = all(isinstance(end, int) for end in (value.start, value.end))
        kind = IntDistribution if whole else FloatDistribution
        return kind(value.start, value.end, log=log)
    choices = list(override.sweep_string_iterator())
    if not isinstance(value, RangeSweep):
        return CategoricalDistribution(choices)
    numbers = sorted(map(float, choices))
    if all(isinstance(part, int) for part in (value.start, value.step)):
        return IntDistribution(int(numbers[0]), int(numbers[-1]), log=log, step=1 if log else abs(int(value.step)))
    return FloatDistribution(numbers[0], numbers[-1], log=log, step=None if log else abs(float(value.step)))
