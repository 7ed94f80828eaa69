"""Values that are set without OmegaConf give what OmegaConf gives, or are left to it."""

from __future__ import annotations

import pytest

from neuralode_exp.config.compose import Composer
from neuralode_exp.config.hydra_internals import make_loader
from neuralode_exp.config.quick import with_values
from neuralode_exp.config.validation import validate
from tests.conftest import ROOT

CELLS = [
    (),
    ("seed=3", "trainer.lr=0.1", "device=cpu", "trainer.patience=null", "figures=false"),
    ("solver.rtol=1e-3", "trainer.max_steps=7"),
    ("dataset.tolerance=1e-3",),  # solver.rtol refers to it
    ("objective='loss/train'",),
]
LEFT = [
    ("dataset.root=${oc.env:HOME}",),
    ("trainer.lr=${trainer.momentum}",),
    ("+trainer.new=1",),
    ("~seed",),
    ("trainer={lr:1}",),
    ("model.nokey=1",),
    ("model.name=resnet",),
    ("model.width=???",),
]


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer(make_loader(ROOT / "conf"))


@pytest.mark.parametrize("dataset", ["circle", "mnist", "eight-gaussians"])
@pytest.mark.parametrize("words", CELLS)
def test_as_omegaconf_resolves_it(
    composer: Composer, dataset: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = composer.parse([f"dataset={dataset}", *words], [])
    quick = with_values(composer._load(overrides[:1]).unresolved, overrides[1:])
    assert quick is not None
    monkeypatch.setattr("neuralode_exp.config.compose.with_values", lambda *_: None)
    assert validate(quick) == composer.config(overrides)


@pytest.mark.parametrize("words", LEFT)
def test_what_takes_more_is_left_to_omegaconf(composer: Composer, words: tuple[str, ...]) -> None:
    overrides = composer.parse(words, [])
    assert with_values(composer._load([]).unresolved, overrides) is None
