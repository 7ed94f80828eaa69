"""Keys that are set in plain dictionaries come to what Hydra and OmegaConf make of them."""

from __future__ import annotations

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf

from neuralode_exp.config.compose import Composer
from neuralode_exp.config.errors import ConfigError
from neuralode_exp.config.hydra_internals import make_loader
from neuralode_exp.config.values import copied, plain, resolved, set_value
from tests.conftest import ROOT

CELLS = [
    (),
    ("seed=3", "trainer.lr=0.1", "device=cpu", "trainer.patience=null", "figures=false"),
    ("solver.rtol=1e-3", "trainer.max_steps=7"),
    ("dataset.tolerance=1e-3",),  # solver.rtol refers to it
    ("objective='loss/train'",),
    ("objective=${oc.env:HOME}",),
    ("trainer.lr=${solver.rtol}",),  # a reference to a reference
    ("extensions=['${device}',b]",),
    ("objective='of ${device}'",),
    ("+trainer.new=1", "++model.options.deep.new={a:1,b:[1,{c:2}]}"),
    ("~seed", "~trainer.lr"),
    ("+model.options.b=2", "+model.options={a:1}", "++model.options={b:[3]}"),
    ("trainer={lr:1}", "trainer={momentum:2}"),
    ("model.width=???",),
]


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer(make_loader(ROOT / "conf"))


@pytest.mark.parametrize("dataset", ["circle", "mnist", "eight-gaussians"])
@pytest.mark.parametrize("words", CELLS)
def test_as_hydra_sets_and_omegaconf_resolves_it(composer: Composer, dataset: str, words: tuple[str, ...]) -> None:
    files = composer._load(composer.parse([f"dataset={dataset}"], []))
    theirs, ours = OmegaConf.create(files.values), copied(files.values)
    before = repr(files.values)
    OmegaConf.set_struct(theirs, True)
    for override in composer.parse(words, []):
        ConfigLoaderImpl._apply_overrides_to_config([override], theirs)
        set_value(ours, override)
    assert resolved(ours) == plain(theirs)
    assert repr(files.values) == before


def test_a_key_below_a_value_is_refused(composer: Composer) -> None:
    [override] = composer.parse(["++trainer.lr.of=1"], [])
    with pytest.raises(ConfigError, match=r"\+\+trainer.lr.of=1 cannot be set"):
        composer.config([override])


def test_a_reference_to_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="a cannot be resolved"):
        resolved({"a": "${b.c}"})
