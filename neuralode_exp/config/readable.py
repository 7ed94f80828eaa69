"""Check the data of a request: files can be read, batches are not too large, states are within the precision.

These checks come last and only for a request without other mistakes, because they import torch.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from neuralode_exp.config.errors import Mistake, spell
from neuralode_exp.config.folders import wrong_folder
from neuralode_exp.config.image_files import of_own_images
from neuralode_exp.config.options import dim_of, input_of
from neuralode_exp.config.schema import (
    TRAINING_IMAGES,
    AnnuliKeys,
    Config,
    CsvKeys,
    Dataset,
    DensitiesKeys,
    DensityKeys,
    DynamicsKeys,
    ImagesKeys,
    OwnImagesKeys,
    PointsKeys,
    SystemKeys,
)
from neuralode_exp.user_files import find

if TYPE_CHECKING:
    from neuralode_exp.data.observed import Observed
    from neuralode_exp.data.points import PointTarget

LISTED = 8  # kinds of mistake that are listed for one file
MOST_WINDOWS = 2**24  # the most that torch.multinomial accepts


def of_images(config: Config) -> Iterator[Mistake]:
    """Yield the mistakes in the folder or file of the images, and in keys that ask for more images than there are."""
    dataset = config.dataset
    if isinstance(dataset, OwnImagesKeys):
        yield from of_own_images(dataset, config.trainer)
        return
    assert isinstance(dataset, ImagesKeys)
    n, mistake = _training_images(dataset.root, dataset.name)
    if mistake:
        yield mistake
    elif dataset.validation >= n:
        rule = f"must be below the {n} training images"
        yield Mistake("dataset.validation", rule, spell(dataset.validation), "0 holds out none")
    elif config.trainer.batch_size > n - dataset.validation:
        left = n - dataset.validation
        rule = f"must be at most {left}, the training images"
        yield Mistake("trainer.batch_size", rule, spell(config.trainer.batch_size), f"{min(128, left)} fits")


@functools.lru_cache
def _training_images(root: str, name: str) -> tuple[int, Mistake | None]:
    from neuralode_exp.data.fetch import DataError
    from neuralode_exp.data.mnist import SETS, read_local_files

    try:
        files = read_local_files(Path(root).expanduser(), SETS.get(name, SETS["mnist"]))
    except (DataError, OSError) as error:
        return 0, Mistake("dataset.root", f"cannot be used: {error}")
    if files is None:  # the files will be fetched
        return TRAINING_IMAGES, wrong_folder("dataset.root", str(Path(root).expanduser()))
    labels = files["train-labels-idx1-ubyte"]
    return int.from_bytes(labels[4:8], "big"), None


def of_labels(config: Config) -> Iterator[Mistake]:
    """Yield the mistakes in the radii and the number of labelled points."""
    dataset, n = config.dataset, config.trainer.batch_size
    assert isinstance(dataset, AnnuliKeys)
    if not dataset.r1 < dataset.r2 < dataset.r3:
        got = f"{dataset.r1:g}, {dataset.r2:g}, {dataset.r3:g}"
        yield Mistake("dataset.r1", "must be below dataset.r2, and r2 below dataset.r3", got, "0.5, 1, 1.5 are usual")
    if n > dataset.train:
        yield Mistake("trainer.batch_size", f"must be at most the {dataset.train} training points", spell(n))


def of_dynamics(config: Config) -> Iterator[Mistake]:
    """Yield the mistakes in a file of trajectories, or in a system whose states leave the range of the precision."""
    dataset, trainer = config.dataset, config.trainer
    if isinstance(dataset, DynamicsKeys) and trainer.shooting == "multiple":
        windows = dataset.trajectories * (dataset.points - (trainer.window or 1))
        if windows > MOST_WINDOWS:
            rule = f"times dataset.trajectories must give at most {MOST_WINDOWS} windows, as torch draws from no more"
            yield Mistake("dataset.points", rule, spell(windows), "lower one of them")
            return
    if not isinstance(dataset, SystemKeys):  # `try_out` checks the user's own
        yield from _of_trajectories(dataset, config.precision)


@functools.lru_cache
def _of_trajectories(dataset: Dataset, precision: str) -> tuple[Mistake, ...]:
    import torch

    from neuralode_exp.data.dynamics import check_times, make_dynamics
    from neuralode_exp.data.systems import make_system

    dtype = getattr(torch, precision)
    try:
        if isinstance(dataset, CsvKeys):
            _table(dataset, precision)
        elif not isinstance(dataset, DynamicsKeys) or find("system", dataset.name, ()) is None:
            pass  # the run reports what is missing
        elif _may_leave(dataset):
            make_dynamics(dataset.name, dtype=dtype, **{**dataset.arguments(), "input": input_of(dataset) or "hold"})
        else:
            constants = {key: x for key, x in dataset.arguments().items() if key not in DynamicsKeys.model_fields}
            check_times(dataset.t_max or make_system(dataset.name, **constants).t_max, dataset.points, dtype)
    except (OSError, ValueError) as error:
        return tuple(_as_mistakes(error, dataset))
    return ()


def dimension(config: Config) -> int | None:
    """Return the dimension of states or points, or None for images, unreadable data and code of others."""
    dataset = config.dataset
    if isinstance(dataset, AnnuliKeys):
        return dataset.dim + config.model.augment
    try:
        if isinstance(dataset, CsvKeys):
            return int(_table(dataset, config.precision).states[0].shape[1])
        return _points(dataset).dim if isinstance(dataset, PointsKeys) else dim_of(dataset, config.extensions)
    except (OSError, ValueError):  # the checks above report it
        return None


def understood(config: Config) -> list[str]:
    """Return how the user's table is read, and warnings of what looks like a mistake. It can be read."""
    dataset = config.dataset
    if not isinstance(dataset, CsvKeys | PointsKeys):
        return []
    found = _table(dataset, config.precision) if isinstance(dataset, CsvKeys) else _points(dataset)
    return [found.note, *found.warnings]


@functools.lru_cache(1)
def _table(dataset: CsvKeys, precision: str) -> Observed:
    import torch

    from neuralode_exp.data.measured import observe

    return observe(dtype=getattr(torch, precision), **dataset.arguments())


@functools.lru_cache(1)
def _points(dataset: PointsKeys) -> PointTarget:
    from neuralode_exp.data.points import PointTarget

    return PointTarget(**dataset.arguments())


def _may_leave(dataset: DynamicsKeys) -> bool:
    """Return whether states may leave the range of the precision: for a linear system or a box of the user's.

    Non-linear systems stay in range when they start in their own boxes, and checking them would take seconds.
    """
    return "matrix" in type(dataset).model_fields or dataset.low is not None or dataset.high is not None


def of_densities(config: Config) -> Iterator[Mistake]:
    """Yield the mistakes in a file of points, or in the scales of a density."""
    if not isinstance(config.dataset, DensityKeys):  # `try_out` checks the user's own
        yield from _of_points(config.dataset, config.precision)


@functools.lru_cache
def _of_points(dataset: Dataset, precision: str) -> tuple[Mistake, ...]:
    import torch

    from neuralode_exp.data.densities import make_density
    from neuralode_exp.data.dynamics import largest_state

    try:
        if isinstance(dataset, PointsKeys):  # points are standardised, hence always in range
            _points(dataset)
            return ()
        scales = {key: x for key, x in dataset.arguments().items() if key not in DensitiesKeys.model_fields}
        target = make_density(dataset.name, **scales)
    except (OSError, ValueError) as error:
        return tuple(_as_mistakes(error, dataset))
    limit = largest_state(getattr(torch, precision))
    if float(target.box.abs().max()) <= limit:
        return ()
    key = max(scales, key=lambda key: scales[key])
    rule = f"must have states below {limit:.1e}, whose squares {precision} can hold"
    fix = "use other units" + ("" if precision == "float64" else " or precision=float64")
    return (Mistake(f"dataset.{key}", rule, spell(scales[key]), fix),)


def _as_mistakes(error: OSError | ValueError, dataset: Dataset) -> Iterator[Mistake]:
    """Yield each line of a reader's error as a mistake. A key in backticks is one of the dataset's."""
    path = getattr(dataset, "path", None)
    if isinstance(error, OSError):
        yield Mistake("dataset.path", "must be a file that can be read", f"{path} ({error.strerror})", "choose another")
        return
    lines = str(error).splitlines()
    for line in lines[:LISTED]:
        found = re.match(r"`(\w+)` ", line)
        key, rule = (found[1], line[found.end() :]) if found else ("path", f"cannot be used: {line}")
        yield Mistake(f"dataset.{key}", re.sub(r"`(\w+)`", r"dataset.\1", rule))
    if len(lines) > LISTED:
        yield Mistake("dataset.path", f"has further mistakes: {lines[-1]}")
