"""Keyword arguments of what is registered, as keys of the config: checked against their signatures."""

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
# Of a kind of data: what is registered for it, and the keys that all such datasets have.
OF_DATA: dict[str, tuple[Kind, type[Dataset]]] = {
    "dynamics": ("system", DynamicsKeys),
    "densities": ("density", DensitiesKeys),
}
S = TypeVar("S", bound=Section)


class Options(Section):
    """Keyword arguments of a registered class or function; those of one are the fields of a subclass."""

    model_config = ConfigDict(protected_namespaces=())


@cache
def schema_of(entry: Registered, base: type[S]) -> type[S]:
    """Return the options of what was registered, as a section of the config or further keys of one.

    A dataset's keys have no default: it stands in its file.
    """
    defaults = base is Options
    fields: dict[str, Any] = {
        name: (annotation_of(option), option.default if defaults and option.default is not Parameter.empty else ...)
        for name, option in entry.options.items()
    }
    return create_model(base.__name__, __base__=base, **fields)


def own_keys(name: str, kind: str) -> type[Dataset] | None:
    """Return the keys of a system or density of the package; None of any other dataset."""
    of_kind, base = OF_DATA.get(kind, (None, Dataset))
    entry = user_files.find(of_kind, name, ()) if of_kind else None
    return schema_of(entry, base) if entry else None


def data_of(dataset: Dataset, extensions: tuple[str, ...]) -> tuple[Registered, dict[str, Any]] | None:
    """Return the registered system or density behind a dataset, with its options; None of any other dataset."""
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
    """Return the system that `model.field=hybrid` takes for known: `model.system`, or that of the dataset."""
    if model.system is not None:
        return user_files.find("system", model.system, extensions)
    found = data_of(dataset, tuple(extensions))
    return found[0] if found and found[0].kind == "system" else None


def dim_of(dataset: Dataset, extensions: tuple[str, ...]) -> int | None:
    """Return the dimension of what is registered for a dataset; None where only data tell."""
    found = data_of(dataset, extensions)
    return found[0].setting("dim", found[1]) if found else None


def input_of(dataset: Dataset) -> str | None:
    """Return how inputs are read; None where the data have none, or none is to be seen."""
    reading = getattr(dataset, "input", "none")
    return None if reading == "none" else reading


def has_inputs(config: Config) -> bool:
    """Return whether the field is to see inputs."""
    found = data_of(config.dataset, config.extensions)
    given = found[0].driven if found else bool(getattr(config.dataset, "inputs", ()))
    return given and input_of(config.dataset) is not None


def annotation_of(option: Parameter) -> Any:
    """Return the type of an option, by its annotation or its default; None where YAML cannot say it."""
    if option.annotation is not Parameter.empty:
        return option.annotation if _is_plain(option.annotation) else None
    default = option.default
    if isinstance(default, (bool, str)):
        return type(default)
    return int | float if isinstance(default, (int, float)) else None


def _is_plain(annotation: Any) -> bool:
    if annotation in (bool, int, float, str, type(None)) or get_origin(annotation) is Literal:
        return True
    if get_origin(annotation) is Annotated:  # with a range, as annotated_types.Gt(0)
        return _is_plain(get_args(annotation)[0])
    if get_origin(annotation) in (typing.Union, types.UnionType, tuple, list):
        return all(member is ... or _is_plain(member) for member in get_args(annotation))
    return False


def readme_tables() -> dict[str, str]:
    """Return the README's tables of what the package has registered, by their headings."""
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
