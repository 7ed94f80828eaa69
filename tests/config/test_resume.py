"""resume=FOLDER: the stored config whatever conf/ says by now, and only what cannot change the result beside it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from neuralode_exp.config import Config, ConfigError, identity, stored_config
from neuralode_exp.config.compose import CONF, Composer
from neuralode_exp.config.hydra_internals import make_loader
from neuralode_exp.config.own import resuming
from neuralode_exp.config.preflight import preflight
from neuralode_exp.tracking.summary import new_summary, write_summary


def stop(folder: Path, config: Config, status: str = "interrupted") -> None:
    """Leave in `folder` what Hydra and a run of this config leave when it stops."""
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(config.model_dump(mode="json")), folder / ".hydra" / "config.yaml")
    summary = new_summary(identity(config), torch.device("cpu"))
    write_summary(folder, {**summary, "status": status})  # type: ignore[typeddict-item]


def mistakes(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        preflight(list(argv))
    return str(caught.value)


def test_hydra_is_told_to_read_the_stored_config_and_to_write_in_its_folder(tmp_path: Path, compose) -> None:
    folder = tmp_path / "it's, a=run [1]"
    stop(folder, compose("seed=7", "dataset=van-der-pol", "dataset.mu=3"))
    request = preflight(["device=cpu", f"resume='{str(folder).replace(chr(39), chr(92) + chr(39))}'"])
    assert request.argv[:2] == ["--config-path", str(folder / ".hydra")]
    assert "device=cpu" in request.argv
    assert "hydra.output_subdir=null" in request.argv


@pytest.mark.parametrize(
    "text", ["a/b", "sp ace", "it's", r"C:\runs\a", "end\\", r"\'", r"a\\'b\\", "a=[1],{2}", "$HOME!"]
)
def test_what_is_typed_to_go_on_reaches_hydra_as_it_is(text: str) -> None:
    words = shlex.split(resuming(text, [f"{text}.py", "my.py"]))
    folder, files = Composer(make_loader(CONF)).parse(words, [])
    assert (folder.value(), files.value()) == (text, [f"{text}.py", "my.py"])


def test_what_needs_no_quotes_has_none() -> None:
    assert resuming("outputs/2026-01-31/a+b_c", ["my_fields.py"]) == (
        "resume=outputs/2026-01-31/a+b_c extensions=[my_fields.py]"
    )


def test_the_defaults_of_today_do_not_matter(tmp_path: Path, compose) -> None:
    stored = compose("trainer.lr=0.123", "solver=rk4")
    stop(tmp_path / "run", stored)
    assert stored_config(tmp_path / "run") == stored
    answer = preflight([f"resume={tmp_path / 'run'}", "check=true"]).answer
    assert f"solver=rk4 seed=0, identity {identity(stored)}" in str(answer)


def test_keys_that_change_the_result_are_refused_with_both_values(tmp_path: Path, compose) -> None:
    folder = tmp_path / "run"
    stop(folder, compose())
    assert mistakes(f"resume={folder}", "trainer.lr=0.5", "seed=3", "threads=1").splitlines() == [
        "seed cannot change in a run that goes on, got 3; leave it out: the run has 0",
        "trainer.lr cannot change in a run that goes on, got 0.5; leave it out: the run has 0.02",
    ]
    assert mistakes(f"resume={folder}", "model=resnet") == (
        "model=resnet cannot change in a run that goes on; leave it out or start a new run"
    )


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_a_run_that_stopped_goes_on(status: str, tmp_path: Path, compose) -> None:
    stop(tmp_path / "run", compose(), status)
    assert preflight([f"resume={tmp_path / 'run'}"]).argv


def test_a_completed_run_is_not_repeated(tmp_path: Path, compose) -> None:
    stop(tmp_path / "run", compose(), "completed")
    line = f"resume must be an unfinished run, got {tmp_path / 'run'}, which is completed; nothing is left to do"
    assert mistakes(f"resume={tmp_path / 'run'}") == line


def test_a_run_that_is_still_running_is_left_alone(tmp_path: Path, compose) -> None:
    stop(tmp_path / "run", compose(), "running")  # by this process
    assert "must be a run that has stopped" in mistakes(f"resume={tmp_path / 'run'}")


def test_the_folder_of_another_run_is_refused_with_the_keys_that_differ(tmp_path: Path, compose) -> None:
    folder = tmp_path / "run"
    stop(folder, compose())
    assert preflight([f"hydra.run.dir={folder}", "threads=1"]).argv
    assert mistakes(f"hydra.run.dir={folder}", "trainer.lr=0.5", "seed=1") == (
        f"hydra.run.dir must not hold another run, got {folder} with seed 0, not 1, trainer.lr 0.02, not 0.5; "
        "choose another folder"
    )


def test_a_run_with_a_damaged_file_is_refused_with_its_name(tmp_path: Path, compose) -> None:
    folder = tmp_path / "run"
    stop(folder, compose(), "interrupted")
    metrics, config = folder / "metrics.csv", folder / ".hydra" / "config.yaml"
    metrics.write_text("step,tag,value\n1,loss/train,0.5\n2,loss/train\n")
    line = f"resume cannot go on: {metrics}:3 must be step,tag,value, got '2,loss/train'; delete that line"
    assert mistakes(f"resume={folder}") == line
    metrics.unlink()
    config.write_text("seed: [")
    line = f"{config} must be YAML, got a damaged file (ParserError); start the run again in a new folder"
    assert mistakes(f"resume={folder}") == line
    config.write_text("- seed")
    assert mistakes(f"resume={folder}").startswith(f"{config} must hold keys, got a list; ")


def test_a_grid_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").touch()
    assert mistakes(f"resume={tmp_path}") == (
        f"resume must be the folder of a run, got {tmp_path} (the folder of a grid); "
        f"use its command with hydra.sweep.dir={tmp_path}"
    )


def test_a_config_of_another_version_is_named(tmp_path: Path, compose) -> None:
    folder = tmp_path / "run"
    stop(folder, compose())
    stored = OmegaConf.load(folder / ".hydra" / "config.yaml")
    stored["old_key"] = 1
    OmegaConf.save(stored, folder / ".hydra" / "config.yaml")
    assert mistakes(f"resume={folder}").startswith("old_key is not a key")
