"""The label of a run: a short name that people can read in a list of runs.

    odenet-circle-dopri5+lr-0.1+seed-1

names model, dataset and solver, then each key that changes the result and differs from the value in `conf/` for this
model, dataset and solver. The label depends on nothing else, so that a cell has the same label in every grid.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import omegaconf
from omegaconf import DictConfig, OmegaConf

from neuralode_exp.config.errors import spell
from neuralode_exp.config.identity import WITHOUT_EFFECT, identity, with_effect
from neuralode_exp.config.kinds import KINDS
from neuralode_exp.config.options import OF_DATA
from neuralode_exp.config.own import load_extensions
from neuralode_exp.config.schema import DATASETS, Config, Model, Solver, Top, Trainer
from neuralode_exp.config.validation import validate
from neuralode_exp.config.values import flatten, plain
from neuralode_exp.registry import of_package

LENGTH = 80
HASHES = ("extensions", "weights.sha256")  # keys that nobody reads
OF_A_VALUE = 24  # the end of a longer value is kept, because a path ends with the file's name


def label(config: Config) -> str:
    """Return the label of a run, at most 80 characters of `[A-Za-z0-9._+-]`.

    If it would be longer, the words of the keys are cut to three letters. If that is not enough, the last keys are only
    counted.
    """
    groups = {"model": config.model.name, "dataset": config.dataset.name, "solver": config.solver.name}
    if not config.solves_ode:
        del groups["solver"]
    start = "-".join(map(_safe, groups.values()))
    changed = _changed(config, groups)
    seed = f"+seed-{changed.pop('seed')}" if "seed" in changed else ""
    values = sorted((_short(key), value) for key, value in changed.items())
    named = "".join(f"+{key}-{value}" for key, value in values)
    if len(start + named + seed) <= LENGTH:
        return start + named + seed
    cut = [f"+{re.sub('[A-Za-z]+', lambda word: word[0][:3], key)}-{value}" for key, value in values]
    tries = (["".join(cut[:n]), f"+{len(cut) - n}-more" * (n < len(cut)), seed] for n in range(len(cut), -1, -1))
    fitting = (start + "".join(parts) for parts in tries if len(start + "".join(parts)) <= LENGTH)
    return next(fitting, start[:LENGTH])


def folder_name(config: Config) -> str:
    """Return the name of a cell's folder: its label and the first 8 digits of its identity."""
    return joined(label(config), identity(config))


def joined(label: str, identity: str) -> str:
    """Return the folder name for a label and an identity."""
    return f"{label}-{identity[:8]}"


def _changed(config: Config, groups: dict[str, str]) -> dict[str, str]:
    """Return the keys whose values differ from those of `conf/`, with their values as text."""
    read = {key: value for key, value in with_effect(config).items() if key not in HASHES}
    usual = dict(_usual(*groups.items()))
    for group, name in groups.items():
        if usual.get(f"{group}.name") != name:  # without a file in conf/ it has no usual values
            usual |= {key: value for key, value in read.items() if key.startswith(f"{group}.")}
    if read.get("solver.atol") == read.get("solver.rtol"):
        usual["solver.atol"] = read.get("solver.atol")  # the default of atol is rtol
    return {key: _cut(_text(value)) for key, value in read.items() if key not in usual or value != usual[key]}


@cache
def _usual(*chosen: tuple[str, str]) -> dict[str, Any]:
    """Return the dotted keys with their values in `conf/` for chosen files such as ("model", "odenet")."""
    from neuralode_exp.config.compose import CONF  # imported here, as below: only labels need Hydra's loader

    composed = _composed(dict(chosen)["dataset"]).copy()
    for group, name in chosen:
        path = CONF / group / f"{name}.yaml"
        if group != "dataset" and path.is_file():
            composed[group] = OmegaConf.merge(composed[group], OmegaConf.load(path))
    return flatten(plain(composed))


@cache
def _composed(dataset: str) -> DictConfig:
    """Compose `conf/` with a dataset, but without model, solver and the files in `conf/local/`."""
    from hydra.types import RunMode

    from neuralode_exp.config.compose import CONF
    from neuralode_exp.config.hydra_internals import make_loader

    loader = make_loader(CONF)
    words = [f"dataset={dataset}"] if dataset in loader.get_group_options("dataset") else []
    local = {"local": "~local", "local/dataset": "~local/dataset@dataset"}
    words += ["~model", "~solver", *(word for folder, word in local.items() if (CONF / folder).is_dir())]
    composed = loader.load_configuration("config", words, RunMode.RUN, from_shell=False)
    OmegaConf.set_struct(composed, False)
    del composed["hydra"]
    return composed


def register_resolvers() -> None:
    """Define the resolvers `${label:}`, `${folder_name:}` and `${identity:}`, which describe the config around them."""
    # OmegaConf 2.4 has renamed the function and warns of the old name.
    is_new = not omegaconf.__version__.startswith("2.3.")
    register: Callable[..., None] = OmegaConf.register_resolver if is_new else OmegaConf.register_new_resolver
    for name, of_config in {"label": label, "folder_name": folder_name, "identity": identity}.items():
        register(name, _resolver(of_config), replace=True)


def _resolver(of_config: Callable[[Config], str]) -> Callable[..., str]:
    def of_root(*, _root_: DictConfig) -> str:
        values = plain(_root_)
        load_extensions(values)  # a worker of a launcher resolves this before anything else
        return of_config(validate(values))

    return of_root


@cache
def _sections_of_names() -> Counter[str]:
    """Return for each name of a key the number of sections that have it."""
    datasets = [*DATASETS.values(), *(kind.dataset for kind in KINDS.values())]
    own = {name for kind, _ in OF_DATA.values() for entry in of_package(kind) for name in entry.options}
    dataset = {name for keys in datasets for name in keys.model_fields if f"dataset.{name}" not in WITHOUT_EFFECT} | own
    return Counter([*Top.model_fields, *Model.model_fields, *Solver.model_fields, *Trainer.model_fields, *dataset])


def _short(key: str) -> str:
    """Return the last part of a key, with its section if other sections have a key of that name."""
    key = key.removesuffix(".name")
    name = key.rpartition(".")[2]
    return name if _sections_of_names()[name] == 1 else key


def _cut(text: str) -> str:
    return text if len(text) <= OF_A_VALUE else text[-OF_A_VALUE:].lstrip("-_+.")


def _text(value: object) -> str:
    if isinstance(value, list):
        return "_".join(map(_text, value))
    return _safe(f"{value:.6g}".replace("e+", "e") if isinstance(value, float) else spell(value))


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_")
