"""The user's own code in a config: the files that a request names, and the names and options that they register."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from inspect import Parameter
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from neuralode_exp import registry, user_files
from neuralode_exp.config.errors import ConfigError, Mistake, must_be_one_of, near_miss, quoted, typed
from neuralode_exp.config.options import annotation_of, known_of
from neuralode_exp.config.schema import DATASETS, Config, Dataset, DensityKeys, Model, SystemKeys
from neuralode_exp.config.values import copied
from neuralode_exp.data import dysts_systems
from neuralode_exp.registry import ExtensionError, Kind, Registered
from neuralode_exp.tags import TAGS
from neuralode_exp.tracking.summary import read_summary

# Names that are taken, beside those that the package registers.
OTHERS: dict[Kind, tuple[str, ...]] = {
    "field": (),
    "system": tuple(DATASETS),
    "density": tuple(DATASETS),
    "metric": tuple(TAGS),
}


def load_extensions(values: Mapping[str, Any]) -> None:
    """Import the files that a request names. Never call it with a stored config, which must not run code by itself.

    Raises:
        ConfigError: a file is missing, fails, or registers a name that is taken.
    """
    try:
        files = user_files.load(extensions_in(values))
    except ExtensionError as error:
        raise ConfigError([Mistake("extensions", str(error), fix="correct it")]) from error
    mistakes = list(_of_names(entry for file in files for entry in file.registered))
    if mistakes:
        raise ConfigError(mistakes)


def extensions_in(values: Mapping[str, Any]) -> list[str]:
    """Return the files that a config names, or none if the value is not a list, which validation reports."""
    given = values.get("extensions")
    return [str(word) for word in given] if isinstance(given, (list, tuple)) else []


def _of_names(entries: Iterable[Registered]) -> Iterable[Mistake]:
    own = [(kind, name) for kind, names in OTHERS.items() for name in [*names, *_of_package(kind)]]
    taken: dict[tuple[Kind, str], str] = dict.fromkeys(own, "the package")
    for entry in entries:
        if (before := taken.get((entry.kind, entry.name))) is not None:
            rule = f"must register free names, and {entry.name} is already a {entry.kind} of {before}"
            yield Mistake("extensions", rule, entry.place, "choose another name")
        taken[entry.kind, entry.name] = entry.place
        if entry.kind == "metric" and any(p.default is Parameter.empty for p in entry.options.values()):
            rule = "must give each option of a metric a default, because no key sets it"
            yield Mistake("extensions", rule, f"{entry.name} ({entry.place})", "write it as option=1.0")
        for name, parameter in entry.options.items():
            if annotation_of(parameter) is None:
                rule = "must annotate options as bool, int, float, str, Literal or a list of them"
                yield Mistake("extensions", rule, f"{name} of {entry.name} ({entry.place})", f"as {name}: float = 1.0")


def registered_field(
    model: Model, dataset: Dataset | None, extensions: Sequence[str], mistakes: list[Mistake]
) -> Registered | None:
    """Return the entry that reads `model.options`: the user's field or the system of a hybrid, or None."""
    own = _of_package("field")
    if model.field == "hybrid":
        return _hybrid(model, dataset, extensions, mistakes)
    if model.system is not None or model.free:
        rule = f"is not read by model.field={model.field}"
        mistakes.append(Mistake("model.free" if model.free else "model.system", rule, fix="add model.field=hybrid"))
    if model.field in own:
        if model.options:
            fix = "leave them out, or choose a registered field"
            mistakes.append(Mistake("model.options", f"are not read by model.field={model.field}", fix=fix))
        return None
    entry = _chosen("field", "model.field", model.field, own, extensions, mistakes)
    on = "images" if dataset is not None and dataset.kind == "images" else "vectors"
    if entry is not None and dataset is not None and entry.settings["on"] != on:
        got = f'{entry.name} ({entry.place}), on="{entry.settings["on"]}"'
        fix = f'register it by @field("{entry.name}", on="{on}")'
        mistakes.append(Mistake("model.field", f"must be a field on {on} for dataset={dataset.name}", got, fix))
    return entry


def _hybrid(
    model: Model, dataset: Dataset | None, extensions: Sequence[str], mistakes: list[Mistake]
) -> Registered | None:
    """Return the known system of a hybrid. Its free constants must be numbers in its signature."""
    if dataset is None or user_files.loaded(extensions) is None:
        return None
    entry = known_of(model, dataset, extensions)
    if entry is None and model.system is None:
        fix = "add model.system=NAME"
        mistakes.append(Mistake("model.system", f"must be given for dataset={dataset.name}", fix=fix))
    elif entry is None:
        names = [x.name for x in (*registry.of_package("system"), *user_files.entries("system", extensions))]
        mistakes.append(must_be_one_of("model.system", str(model.system), names))
    else:
        numbers = [key for key, option in entry.options.items() if isinstance(option.default, (int, float))]
        mistakes += [must_be_one_of("model.free", name, numbers) for name in model.free if name not in numbers]
    return entry


def registered_data(dataset: Dataset, extensions: Sequence[str], mistakes: list[Mistake]) -> Registered | None:
    """Return the entry of `dataset.system` or `dataset.density`, or None for a dataset of the package."""
    if isinstance(dataset, SystemKeys):
        return _chosen("system", "dataset.system", dataset.system, (), extensions, mistakes)
    if isinstance(dataset, DensityKeys):
        return _chosen("density", "dataset.density", dataset.density, (), extensions, mistakes)
    return None


def _of_package(kind: Kind) -> list[str]:
    return [entry.name for entry in registry.of_package(kind)]


def _chosen(
    kind: Kind, key: str, name: str, own: Sequence[str], extensions: Sequence[str], mistakes: list[Mistake]
) -> Registered | None:
    """Look a name up. If the files of a stored config are not imported, there is nothing to report."""
    if user_files.loaded(extensions) is None:
        return None
    entry = user_files.find(kind, name, extensions)
    names = [*own, *(entry.name for entry in user_files.entries(kind, extensions))]
    if entry is None and name.startswith(dysts_systems.PREFIX):
        if names := list(dysts_systems.facts()):
            mistakes.append(Mistake(key, "must be a system of dysts", name, near_miss(name, names)))
        else:
            fix = "pip install 'neuralode-exp[dysts]' brings it"
            mistakes.append(Mistake(key, "needs an optional dependency", name, fix))
    elif entry is None and names:
        mistakes.append(must_be_one_of(key, name, names))
    elif entry is None:
        fix = "give it, as extensions=[my_file.py]"
        mistakes.append(Mistake(key, f"must be a {kind} that a file in extensions registers", name, fix))
    return entry


def again(folder: Path | str, config: Config, given: Sequence[str], how: str, *, further: bool = False) -> Config:
    """Import the files that are given again for a stored run, and return its config with these files.

    Args:
        folder: the run's folder.
        config: the stored config.
        given: files or modules.
        how: what the message proposes if files are missing, as `extensions=[my_fields.py]`.
        further: whether files may be given that the run did not have.

    Raises:
        ConfigError: a file is missing, or its content differs from that of the run.
    """
    if not config.extensions and not given:
        return config
    if len(given) != len(config.extensions) and not (further and len(given) > len(config.extensions)):
        rule = f"must be given again, because no stored path is imported: the run had {len(config.extensions)}"
        got = ", ".join(given) or "none"
        raise ConfigError([Mistake("extensions", rule, got, how)])
    summary = read_summary(folder)
    had = dict(summary.get("extensions", {})) if summary else {}
    now = {word: user_files.sha256(word) for word in given}
    missing = [word for word, digest in now.items() if digest not in had.values()]
    gone = [f"{word} {digest}" for word, digest in had.items() if digest not in now.values()]
    if had and (gone if further else missing):  # a run that ended before its first summary has stored no hashes
        got = ", ".join(f"{word} {now[word] or '(no such file)'}" for word in missing)
        fix = f"the run had {', '.join(gone)}"
        raise ConfigError([Mistake("extensions", "must be the files of the run, by SHA-256", got, fix)])
    load_extensions({"extensions": list(given)})
    return config.model_copy(update={"extensions": tuple(given)})


def given_extensions(overrides: Iterable[Override]) -> list[str]:
    """Return the value of `extensions=` on a command line."""
    values = [override.value() for override in overrides if override.key_or_group == "extensions"]
    return [str(word) for word in values[-1]] if values and isinstance(values[-1], list) else []


def store_options(folder: Path, config: Config, values: Mapping[str, Any]) -> None:
    """Replace the config that Hydra has stored by one in which the options have the defaults of their signatures.

    The caller holds the folder's lock. The file is not read, because Hydra may be writing it in another process.

    Args:
        folder: the run's folder.
        config: the validated config, with all options.
        values: the composed config, with its references.
    """
    path = folder / ".hydra" / "config.yaml"
    if not config.extensions or config.resume is not None or not path.is_file():
        return
    from neuralode_exp.tracking.whole_files import write_whole

    whole = copied(values)
    for section in (name for name in ("model", "dataset") if getattr(getattr(config, name), "options", None)):
        whole[section]["options"] = getattr(config, section).model_dump(mode="json")["options"]
    write_whole(path, OmegaConf.to_yaml(OmegaConf.create(whole)).encode())


def spell_extensions(extensions: Sequence[str]) -> str:
    """Write the files as an argument that is typed in a shell."""
    words = [word if re.fullmatch(r"[\w./-]+", word) else quoted(word) for word in extensions]
    spelled = f"extensions=[{','.join(words)}]"
    return spelled if words == list(extensions) else shlex.quote(spelled)


def resuming(folder: Path | str, extensions: Sequence[str]) -> str:
    """Write the arguments with which a run goes on, as they are typed in a shell."""
    return " ".join([typed("resume", str(folder)), *([spell_extensions(extensions)] if extensions else [])])
