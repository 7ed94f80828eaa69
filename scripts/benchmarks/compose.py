"""The config of a run, from the words of its command line."""

from __future__ import annotations

from pathlib import Path

from neuralode_exp.config import Config, Mistake
from neuralode_exp.config.compose import Composer
from neuralode_exp.config.hydra_internals import make_loader

ROOT = Path(__file__).parents[2]


def composer() -> Composer:
    return Composer(make_loader(ROOT / "conf"))


def compose(*words: str) -> Config:
    mistakes: list[Mistake] = []
    composing = composer()
    overrides = composing.parse(words, mistakes)
    assert not mistakes, mistakes
    return composing.config(overrides)
