"""The keyword arguments of registered classes and functions as keys of the config, checked by their signatures."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from functools import cache
from inspect import Parameter
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import ConfigDict, create_model

from neuralode_exp import registry, user_files
from neuralode_exp.config.schema import (
    Config,
    Dataset,
    DensitiesKeys,
    DensityKeys,
    DynamicsKeys,
    Model,
    Section,
    SystemKeys,
)
from neuralode_exp.data import dysts_systems, named_densities, named_systems
from neuralode_exp.models.fields import named as named_fields
from neuralode_exp.registry import Kind, Registered

REGISTERED_BY_IMPORT = (named_systems, dysts_systems, named_densities, named_fields)
# Kind of data -> the kind of its registered entries, and the keys that all its datasets have.
OF_DATA: dict[str, tuple[Kind, type[Dataset]]] = {
    "dynamics": ("system", DynamicsKeys),
    "densities": ("density", DensitiesKeys),
}
S = TypeVar("S", bound=Section)


class Options(Section):
    """Keyword arguments of a registered class or function. A subclass has them as its fields."""

    model_config = ConfigDict(protected_namespaces=())


@cache
def schema_of(entry: Registered, base: type[S]) -> type[S]:
    """Return a schema of the options of a registered class or function: a section of its own, or `base` with more keys.

    A dataset's keys have no defaults here, because its YAML file has them.
    """
    defaults = base is Options
    fields: dict[str, Any] = {
        name: (annotation_of(option), option.default if defaults and option.default is not Parameter.empty else ...)
        for name, option in entry.options.items()
    }
    return create_model(base.__name__, __base__=base, **fields)


def own_keys(name: str, kind: str) -> type[Dataset] | None:
    """Return the keys of one of the package's systems or densities, or None for any other dataset."""
    of_kind, base = OF_DATA.get(kind, (None, Dataset))
    entry = user_files.find(of_kind, name, ()) if of_kind else None
    return schema_of(entry, base) if entry else None


def data_of(dataset: Dataset, extensions: tuple[str, ...]) -> tuple[Registered, dict[str, Any]] | None:
    """Return the registered system or density of a dataset, with its options, or None for any other dataset."""
    if isinstance(dataset, SystemKeys):
        entry = user_files.find("system", dataset.system, extensions)
    elif isinstance(dataset, DensityKeys):
        entry = user_files.find("density", dataset.density, extensions)
    else:
        kind, _ = OF_DATA.get(dataset.kind, (None, Dataset))
        entry = user_files.find(kind, dataset.name, ()) if kind else None
        return (entry, {name: getattr(dataset, name) for name in entry.options}) if entry else None
    return (entry, dict(dataset.options)) if entry else None


def known_of(model: Model, dataset: Dataset, extensions: Sequence[str]) -> Registered | None:
    """Return the known part of `model.field=hybrid`: `model.system`, or the system of the dataset."""
    if model.system is not None:
        return user_files.find("system", model.system, extensions)
    found = data_of(dataset, tuple(extensions))
    return found[0] if found and found[0].kind == "system" else None


def dim_of(dataset: Dataset, extensions: tuple[str, ...]) -> int | None:
    """Return the dimension of a dataset's registered system or density, or None if only the data show it."""
    found = data_of(dataset, extensions)
    return found[0].setting("dim", found[1]) if found else None


def input_of(dataset: Dataset) -> str | None:
    """Return how inputs are read between their times, or None if the data have no inputs or `dataset.input=none`."""
    reading = getattr(dataset, "input", "none")
    return None if reading == "none" else reading


def has_inputs(config: Config) -> bool:
    """Return whether the field gets the inputs of the data."""
    found = data_of(config.dataset, config.extensions)
    given = found[0].driven if found else bool(getattr(config.dataset, "inputs", ()))
    return given and input_of(config.dataset) is not None


def number_of_inputs(config: Config) -> int:
    """Return how many inputs the field gets from the data."""
    if not has_inputs(config):
        return 0
    found = data_of(config.dataset, config.extensions)
    return len(found[0].settings["inputs"] if found else config.dataset.inputs)  # type: ignore[attr-defined]


def annotation_of(option: Parameter) -> Any:
    """Return the type of an option, by its annotation or its default, or None if YAML has no such type."""
    if option.annotation is not Parameter.empty:
        return option.annotation if _is_plain(option.annotation) else None
    default = option.default
    if isinstance(default, (bool, str)):
        return type(default)
    return int | float if isinstance(default, (int, float)) else None


def _is_plain(annotation: Any) -> bool:
    if annotation in (bool, int, float, str, type(None)) or get_origin(annotation) is Literal:
        return True
    if get_origin(annotation) is Annotated:  # an annotation with a range, such as annotated_types.Gt(0)
        return _is_plain(get_args(annotation)[0])
    if get_origin(annotation) in (typing.Union, types.UnionType, tuple, list):
        return all(member is ... or _is_plain(member) for member in get_args(annotation))
    return False


def readme_tables() -> dict[str, str]:
    """Return the README's tables of the package's registered entries, by their headings."""
    heads: dict[Kind, str] = {
        "system": "`dataset=`, systems",
        "density": "`dataset=`, densities",
        "field": "`model.field=`",
    }
    return {head: _readme_table(head, registry.of_package(kind)) for kind, head in heads.items()}


def _readme_table(head: str, entries: list[Registered]) -> str:
    rows = (f"| `{x.name}` | {x.about} | {' '.join(f'`{key}`' for key in x.options)} |" for x in entries)
    return "\n".join([f"| {head} | what it is | its keys |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(*readme_tables().values(), sep="\n\n")
