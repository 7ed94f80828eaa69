"""The axes of a grid or a search: where they are written, which values they have, and the cells that they span."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from neuralode_exp.config.compose import Composer
from neuralode_exp.config.errors import ConfigError, Mistake, spell


def in_files(params: object) -> list[str]:
    """Return the axes that a file has in `hydra.sweeper.params` as arguments; none if that is no group of keys."""
    values = OmegaConf.to_container(params) if isinstance(params, DictConfig) else params
    return [f"{key}={spell(value)}" for key, value in values.items()] if isinstance(values, Mapping) else []


def axes_of(composer: Composer, overrides: list[Override], mistakes: list[Mistake] | None = None) -> list[Override]:
    """Return the axes of a grid: first those in files, then those of the command line."""
    params = OmegaConf.select(composer.hydra(overrides), "sweeper.params")
    found = composer.parse(in_files(params), [] if mistakes is None else mistakes)
    return [*found, *(o for o in overrides if not o.is_hydra_override())]


def expand(overrides: Iterable[Override], *, whole: bool = True) -> Iterator[list[str]]:
    """Yield the cells of a grid, each a list of arguments. If two overrides set a key, the later one counts.

    The values of an interval cannot be listed. Then only its two ends are tried, and only one axis is varied at a time.

    Args:
        overrides: the axes.
        whole: whether to yield all cells; False: only one axis is varied at a time, as suffices for a search.
    """
    overrides = list(overrides)
    axes = {override.get_key_element(): values_of(override) for override in overrides}
    if whole and not any(isinstance(override.value(), IntervalSweep) for override in overrides):
        yield from map(list, itertools.product(*axes.values()))
        return
    if not all(axes.values()):
        return
    first = {key: values[0] for key, values in axes.items()}
    yield list(first.values())
    for key, values in axes.items():
        for value in values[1:]:
            yield list({**first, key: value}.values())


def values_of(override: Override) -> list[str]:
    """Return an argument for each value of an axis; of an interval for its two ends."""
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    if override.is_sweep_override():
        with contextlib.suppress(ValueError):  # a range with a step of 0
            return [f"{key}={value}" for value in override.sweep_string_iterator()]
        return []
    return [str(override.input_line)]


def wrong_axes(composer: Composer, axes: Sequence[Override], *, is_search: bool) -> Iterator[Mistake]:
    """Yield the mistakes in axes that do not depend on a single cell."""
    for override in (axis for axis in axes if not values_of(axis)):
        is_glob = isinstance(override.value(), Glob)
        fix = "it matches the name of no file" if is_glob else "range(0,3) is 0, 1 and 2"
        yield Mistake(override.key_or_group, "must have a value", override.get_value_string(), fix)
    intervals = [override for override in axes if isinstance(override.value(), IntervalSweep)]
    for override in () if is_search else intervals:
        fix = "list them, or search with hydra/sweeper=optuna"
        yield Mistake(override.key_or_group, "must have listed values in a grid", override.get_value_string(), fix)
    chosen = [axis for axis in axes if axis.key_or_group == "experiment" and axis.is_sweep_override()]
    for word in (word for axis in chosen for word in values_of(axis)):
        with contextlib.suppress(ConfigError):  # the cells report it
            if in_files(OmegaConf.select(composer.hydra(composer.parse([word], [])), "sweeper.params")):
                fix = "start it in a command of its own"
                yield Mistake("experiment", "cannot be swept over a file that has axes", word.partition("=")[2], fix)


def wrong_search(hydra: DictConfig, axes: Sequence[Override]) -> Iterator[Mistake]:
    """Yield what Optuna cannot search, and the mistakes in the arguments of its sampler."""
    from hydra.utils import instantiate

    from neuralode_exp.sweep.space import distribution  # imports Optuna, which only a search needs
    from neuralode_exp.sweep.study import seeded

    for axis in (axis for axis in axes if axis.is_sweep_override()):
        try:
            distribution(axis)
        except ValueError as error:
            got, reason = axis.get_value_string(), str(error).split("\n")[0]
            yield Mistake(axis.key_or_group, "must be a range or a choice that Optuna can search", got, reason)
    sampler: Any = hydra.sweeper.sampler
    try:
        seeded(instantiate(sampler), 0)
    except Exception as error:  # any error of Optuna's is shown to the user
        given = {key: value for key, value in sampler.items() if not str(key).startswith("_")}
        got, reason = spell(given), str(error).strip().split("\n")[0]
        yield Mistake("hydra.sweeper.sampler", "must have arguments that Optuna accepts", got, reason)
