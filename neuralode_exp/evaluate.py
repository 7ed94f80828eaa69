"""Evaluate a trained run again, under another solver, on other data or on another device."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from neuralode_exp.build import build_task, pick_device
from neuralode_exp.config import Config, ConfigError, Mistake
from neuralode_exp.config.cells import without_meaning
from neuralode_exp.config.compose import CONF, Composer
from neuralode_exp.config.hydra_internals import make_loader
from neuralode_exp.config.later import with_later_keys
from neuralode_exp.config.own import given_extensions
from neuralode_exp.config.preflight import of_what_is_there
from neuralode_exp.load import Weights, completed_run, restore_weights, stored_shape
from neuralode_exp.run import seed_everything
from neuralode_exp.trainers.task import Task

MAY_CHANGE = ("solver", "dataset", "device", "threads", "precision")


@dataclass(frozen=True)
class Evaluation:
    """Metrics by tag: those that the run has stored, and those of this evaluation.

    `nfe/test`, the evaluations of a solve of the test data, is not among the stored ones.
    """

    config: Config
    stored: dict[str, float]
    now: dict[str, float]


def evaluate(folder: Path, words: Sequence[str] = (), weights: Weights = "last") -> Evaluation:
    """Compute the test metrics of a completed run with some of its keys changed.

    Args:
        folder: the folder of the run.
        words: the changes, such as `solver=dopri5` and `solver.rtol=1e-6`: keys of `solver` and `dataset`, and
            `device`, `threads` and `precision`. `extensions=[my_fields.py]` names the user's own files of the run.
        weights: `last`, those at the end of training, by which runs are judged, or `best`, those best on held-out data.

    Raises:
        NotLoadable: there is no completed run, or the weights do not fit the data.
        ConfigError: with all mistakes in `words`.
        SolverError: the solver fails on the trained model.
    """
    stored, summary = completed_run(folder, extensions_of(words))
    config = changed_config(folder, stored, words)
    task = task_with_weights(folder, config, weights)
    with torch.no_grad():
        now = task.final()
        if config.solves_ode and (solved := task.solved()) is not None:
            now["nfe/test"] = solved.nfe
    return Evaluation(config, {tag: summary["metrics"][tag] for tag in now if tag in summary["metrics"]}, now)


def task_with_weights(folder: Path, config: Config, weights: Weights) -> Task:
    """Build the task of a changed config in evaluation mode, with the weights of a run and data in that run's units."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    seed_everything(config.seed)
    task = build_task(config, pick_device(config.device))
    restore_weights(task.model, folder, weights)
    if shape := stored_shape(folder, weights):
        task.take_units(shape)
    task.module.eval()
    return task


def extensions_of(words: Sequence[str]) -> list[str]:
    """Return the user's own files that the arguments name."""
    return given_extensions(Composer(make_loader(CONF)).parse(words, []))


def changed_config(folder: Path, stored: Config, words: Sequence[str]) -> Config:
    """Return a run's config with some keys changed.

    Raises:
        ConfigError: with everything that is wrong.
    """
    mistakes: list[Mistake] = []
    composer = Composer(make_loader(CONF))
    given = composer.parse(words, mistakes)
    of_files = [override for override in given if override.key_or_group == "extensions"]
    overrides = [override for override in given if override not in of_files]
    mistakes += [mistake for override in overrides if (mistake := _not_to_change(override))]
    if mistakes:
        raise ConfigError(mistakes)
    written = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml"))
    base = OmegaConf.create(with_later_keys(written))  # type: ignore[arg-type]  # a run's config is a mapping
    base.weights = None  # the run has weights of its own
    if stored.solves_ode:
        # Nothing is trained here, so a solver without gradients, error estimates or compiled steps will do.
        base.model.name, base.model.gradient = "odenet", "adjoint"
        base.trainer.error, base.solver.compile = 0.0, False
    elif any(override.key_or_group.split(".")[0] == "solver" for override in overrides):
        raise ConfigError([Mistake("solver", "is not used", f"model={stored.model.name}", "leave it out")])
    base.extensions = list(stored.extensions)
    rest = _choose_files(composer, base, overrides, of_files)
    if base.dataset.kind != stored.dataset.kind:
        fix = f"choose one like {stored.dataset.name}"
        raise ConfigError([Mistake("dataset", f"must be of {stored.dataset.kind}", base.dataset.name, fix)])
    with tempfile.TemporaryDirectory() as directory:  # Hydra composes what lies in a folder
        OmegaConf.save(base, Path(directory) / "config.yaml")
        config = Composer(make_loader(Path(directory))).config(rest)
    if mistake := without_meaning(config):
        raise ConfigError([mistake])
    if mistakes := of_what_is_there(config, trains=False):
        raise ConfigError(mistakes)
    return config


def _choose_files(
    composer: Composer, base: DictConfig, overrides: Sequence[Override], of_files: Sequence[Override]
) -> list[Override]:
    """Replace sections by the chosen files of `conf/`, and return the other overrides.

    Args:
        composer: composes the files.
        base: the stored config, which is changed.
        overrides: the changes.
        of_files: `extensions=[...]`, whose files register the systems and densities of a dataset.
    """
    sections = {o.key_or_group for o in overrides} & {"dataset", "solver"}
    # The keys of another dataset are only known, and given, together with its name.
    chosen = [
        o for o in overrides if o.key_or_group in sections or o.key_or_group.split(".")[0] in sections & {"dataset"}
    ]
    files = composer.config([*chosen, *of_files])
    if "dataset" in sections:
        base.dataset = files.dataset.model_dump(mode="json")
    if "solver" in sections:
        base.solver.name, base.solver.engine = files.solver.name, files.solver.engine
    return [o for o in overrides if o not in chosen]


def _not_to_change(override: Override) -> Mistake | None:
    key = override.key_or_group
    if override.is_sweep_override():
        fix = "neuralode_exp.work_precision takes several"
        return Mistake(key, "must have one value", override.get_value_string(), fix)
    if override.is_delete() or override.is_add() or key.split(".")[0] not in MAY_CHANGE:
        return Mistake(key, "cannot change in a trained run", fix=f"only {', '.join(MAY_CHANGE)} can")
    return None
