"""Make a `Config` from a mapping, or report all its mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from neuralode_exp.config.errors import ConfigError, Mistake, must_be_one_of, spell, suggest
from neuralode_exp.config.kinds import KINDS, dataset_class
from neuralode_exp.config.later import with_later_keys
from neuralode_exp.config.options import Options, dim_of, schema_of
from neuralode_exp.config.own import extensions_in, registered_data, registered_field
from neuralode_exp.config.rules import across_sections
from neuralode_exp.config.schema import Config, Dataset, Model, Section, Solver, Top, Trainer
from neuralode_exp.config.values import plain
from neuralode_exp.registry import Registered

RULES = {
    "bool": "must be true or false",
    "dict": "must be a group of keys",
    "finite_number": "must be finite",
    "float": "must be a number",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int": "must be a whole number",
    "list": "must be a list",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "string": "must be text",
    "string_pattern_mismatch": "must be auto, cpu, cuda, cuda:0 (or another number) or mps",
    "missing": "must be given",  # a place in a list of fixed length
    "too_long": "must have at most {max_length} entries",
    "too_short": "must not be empty",
    "tuple": "must be a list",
    "value": "{error}",  # raised by a validator in the schema
}
SECTIONS = tuple(name for name in Config.model_fields if name not in Top.model_fields)
S = TypeVar("S", bound=Section)


def validate(values: Mapping[str, Any]) -> Config:
    """Check a config and return it typed.

    Args:
        values: plain keys and values as YAML gives them, without Hydra's own. Numbers may be written as text. A key
            that was added later may be missing, and then has its neutral value, see `later`.

    Raises:
        ConfigError: the config is wrong; it lists all mistakes.
    """
    values = with_later_keys(values)
    mistakes: list[Mistake] = []
    in_no_section = {key: value for key, value in values.items() if key not in SECTIONS}
    top = check_section("", Top, in_no_section, mistakes)
    extensions = extensions_in(values)
    if dataset := _check_dataset(values.get("dataset"), mistakes):
        dataset = _with_options("dataset", dataset, registered_data(dataset, extensions, mistakes), mistakes)
    if model := check_section("model", Model, values.get("model"), mistakes):
        model = _with_options("model", model, registered_field(model, dataset, extensions, mistakes), mistakes)
    solver = check_section("solver", Solver, values.get("solver"), mistakes)
    trainer = check_section("trainer", Trainer, values.get("trainer"), mistakes)
    mistakes += across_sections(top, dataset, model, solver, trainer)
    if mistakes or not (top and dataset and model and solver and trainer):
        raise ConfigError(mistakes)
    return Config(**dict(top), dataset=dataset, model=model, solver=solver, trainer=trainer)


def stored_config(folder: Path | str) -> Config:
    """Return the config that is stored in a run's folder.

    Raises:
        FileNotFoundError: the folder is not that of a run.
        ConfigError: the file is damaged, or another version of the program wrote it, with other keys.
    """
    path = Path(folder) / ".hydra" / "config.yaml"
    try:
        stored = OmegaConf.load(path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        got = f"a damaged file ({type(error).__name__})"
        raise ConfigError([Mistake(str(path), "must be YAML", got, "start the run again in a new folder")]) from error
    if not isinstance(stored, DictConfig):
        raise ConfigError([Mistake(str(path), "must hold keys", "a list", "start the run again in a new folder")])
    return validate(plain(stored))


def _check_dataset(values: object, mistakes: list[Mistake]) -> Dataset | None:
    given = values if isinstance(values, Mapping) else {}
    if given.get("kind") not in (None, *KINDS):  # the keys of an unknown kind are unknown too
        mistakes.append(must_be_one_of("dataset.kind", spell(given["kind"]), KINDS))
        return None
    dataset = check_section("dataset", dataset_class(given.get("name"), given.get("kind")), values, mistakes)
    try:
        if dataset is not None:
            dim_of(dataset, ())
    except ValueError as error:  # options that contradict each other
        key, _, rule = str(error).lstrip("`").partition("` ")
        mistakes.append(Mistake(f"dataset.{key}", rule))
    return dataset


def _with_options(section: str, part: S, entry: Registered | None, mistakes: list[Mistake]) -> S | None:
    """Return a section in which the options of the registered entry are checked and complete."""
    if entry is None:
        return part
    wrong: list[Mistake] = []
    options = check_section(f"{section}.options", schema_of(entry, Options), part.model_dump()["options"], wrong)
    for mistake in wrong:
        parameter = entry.options.get(mistake.key.rpartition(".")[2].partition("[")[0])
        default = "" if parameter is None else f"; the default is {spell(parameter.default)}"
        mistakes.append(replace(mistake, fix=mistake.fix or f"{entry.name} is in {entry.place}{default}"))
    return part.model_copy(update={"options": options.model_dump()}) if options else None


def check_section(section: str, schema: type[S], values: object, mistakes: list[Mistake]) -> S | None:
    """Return the section typed, or None after adding what is wrong with it to `mistakes`."""
    if not isinstance(values, Mapping):
        mistakes.append(Mistake(section, "must be a group of keys", spell(values)))
        return None
    given = {str(key): value for key, value in values.items() if value != "???"}  # OmegaConf's mark of a missing value
    try:
        return schema.model_validate(given)
    except ValidationError as invalid:
        # A key that may be a number or a list fails as both, but is reported once.
        first = {error["loc"][0]: error for error in reversed(invalid.errors())}
        mistakes += [_explain(section, schema, error) for error in reversed(first.values())]
        return None


def _explain(section: str, schema: type[Section], error: ErrorDetails) -> Mistake:
    kind, name = error["type"], str(error["loc"][0])
    key = f"{section}.{name}" if section else name
    if kind == "missing" and len(error["loc"]) == 1:
        return Mistake(key, "must be given", fix=f"add {key}=VALUE")
    if kind == "extra_forbidden":
        names = [*schema.model_fields, *(() if section else SECTIONS)]
        if not names:
            return Mistake(key, "is not a key", fix="there are no options")
        return Mistake(key, "is not a key", fix=suggest(name, names, f"{section}." if section else ""))
    places = error["loc"][1:]
    key += "".join(f"[{place}]" for place in places if isinstance(place, int))
    annotation = schema.model_fields[name].annotation
    got = spell(error["input"])
    choices = _choices(annotation)
    if kind == "literal_error":
        return must_be_one_of(key, got, choices)
    rule = RULES.get(kind) or RULES[kind.split("_")[0]]
    rule = rule.format(**error.get("ctx", {}))
    if any(isinstance(place, str) for place in places) and choices in ([], ["null"]):
        rule = "must be a number or a list of numbers"
    else:
        rule += "".join(f" or {choice}" for choice in choices)
    return Mistake(key, rule, got)


def _choices(annotation: Any) -> list[str]:
    """Return the words that are allowed as the value of a key."""
    if annotation is type(None):
        return ["null"]
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    is_union = get_origin(annotation) in (Union, UnionType)
    return [choice for member in get_args(annotation) for choice in _choices(member)] if is_union else []
