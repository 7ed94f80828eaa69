"""What is used of Hydra beyond its public interface does what we take it to do."""

from __future__ import annotations

import warnings

from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import OmegaConf

from neuralode_exp.config.compose import CONF
from neuralode_exp.config.hydra_internals import (
    OWN_FILES,
    command_line_parser,
    make_loader,
    register_plugin,
)


class Mine(Sweeper):
    def __init__(self, value: int) -> None:
        self.value = value

    def setup(self, **context: object) -> None:
        self.context = context

    def sweep(self, arguments: list[str]) -> None:
        raise NotImplementedError


def test_a_loader_composes_beside_whatever_hydra_does() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of files that take the place of a plugin's defaults
        loader = make_loader(CONF)
        launchers = loader.get_group_options("hydra/launcher")
        words = ["hydra/launcher=joblib", "dataset=circle"]
        config = loader.load_configuration("config", words, RunMode.RUN, from_shell=False)
    assert not GlobalHydra.instance().is_initialized()
    assert set(OWN_FILES["launcher"]) <= set(launchers)
    assert config.dataset.name == "circle"
    assert config.hydra.launcher.n_jobs == 2  # of our file, not -1 of the plugin's


def test_the_command_line_is_read_as_hydra_reads_it() -> None:
    flags = command_line_parser().parse_intermixed_args(["-m", "seed=0,1", "--config-dir", "mine", "model=resnet"])
    assert flags.multirun
    assert flags.overrides == ["seed=0,1", "model=resnet"]
    assert flags.config_dir == "mine"
    asked = (flags.help, flags.hydra_help, flags.cfg, flags.info, flags.shell_completion)
    assert not any((*asked, flags.config_path, flags.config_name, flags.experimental_rerun))


def test_a_registered_plugin_is_made_from_its_name_in_yaml() -> None:
    register_plugin(Mine)
    sweeper = {"_target_": f"{__name__}.Mine", "value": 3}
    config = OmegaConf.create({"hydra": {"sweeper": sweeper}})
    made = Plugins.instance().instantiate_sweeper(hydra_context=None, task_function=None, config=config)  # type: ignore[arg-type]
    assert isinstance(made, Mine)
    assert made.value == 3
