"""The label of a run: what it is, in words that a person reads in a list of runs.

    odenet-circle-dopri5+lr-0.1+seed-1

is model, dataset and solver, then each key that its result depends on and whose value is not the one that this model,
dataset and solver have in `conf/`. Nothing else enters: a cell has the same label in every grid.
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
OF_A_VALUE = 24  # of which the end is kept: a file's name is the end of its path


def label(config: Config) -> str:
    """Return what a run is in at most 80 characters of `[A-Za-z0-9._+-]`.

    Where they do not suffice, the words of the keys are cut to three letters, then keys are counted instead of named.
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
    """Return the name of a cell's folder: its label, and of its identity what tells it from the others."""
    return joined(label(config), identity(config))


def joined(label: str, identity: str) -> str:
    """Return the name of the folder of a label and an identity that are known."""
    return f"{label}-{identity[:8]}"


def _changed(config: Config, groups: dict[str, str]) -> dict[str, str]:
    """Return the keys whose values are not those of `conf/`, with their values as text."""
    read = {key: value for key, value in with_effect(config).items() if key != "extensions"}  # hashes tell nobody
    usual = dict(_usual(*groups.items()))
    for group, name in groups.items():
        if usual.get(f"{group}.name") != name:  # it has no file in conf/, so nothing of it is usual
            usual |= {key: value for key, value in read.items() if key.startswith(f"{group}.")}
    if read.get("solver.atol") == read.get("solver.rtol"):
        usual["solver.atol"] = read.get("solver.atol")  # by itself it is as rtol
    return {key: _cut(_text(value)) for key, value in read.items() if key not in usual or value != usual[key]}


@cache
def _usual(*chosen: tuple[str, str]) -> dict[str, Any]:
    """Return the dotted keys with the values that they have with these files of `conf/`, as ("model", "odenet")."""
    from neuralode_exp.config.compose import CONF  # brings Hydra: not to whom no label matters

    composed = _composed(dict(chosen)["dataset"]).copy()
    for group, name in chosen:
        path = CONF / group / f"{name}.yaml"
        if group != "dataset" and path.is_file():
            composed[group] = OmegaConf.merge(composed[group], OmegaConf.load(path))
    return flatten(plain(composed))


@cache
def _composed(dataset: str) -> DictConfig:
    """Compose `conf/` with a dataset, without model, solver and this machine's own files in `conf/local/`."""
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
    """Let YAML say `${label:}` and `${folder_name:}` of the config that they stand in."""
    # OmegaConf 2.4 calls it otherwise, and warns of the name that 2.3 has.
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
    """Return in how many sections there is a key of that name."""
    datasets = [*DATASETS.values(), *(kind.dataset for kind in KINDS.values())]
    own = {name for kind, _ in OF_DATA.values() for entry in of_package(kind) for name in entry.options}
    dataset = {name for keys in datasets for name in keys.model_fields if f"dataset.{name}" not in WITHOUT_EFFECT} | own
    return Counter([*Top.model_fields, *Model.model_fields, *Solver.model_fields, *Trainer.model_fields, *dataset])


def _short(key: str) -> str:
    """Return the last word of a key, with its section where another has a key of that name."""
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
