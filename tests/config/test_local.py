"""What a machine has of its own: defaults in conf/local/, tab completion."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import train
from neuralode_exp.config.compose import CONF, Composer
from neuralode_exp.config.hydra_internals import make_loader
from neuralode_exp.config.schema import ImagesKeys


def test_local_files_change_defaults_and_what_is_given_counts_more(tmp_path: Path) -> None:
    (tmp_path / "local" / "dataset").mkdir(parents=True)
    (tmp_path / "local" / "default.yaml").write_text("# @package _global_\nthreads: 3\n")
    (tmp_path / "local" / "dataset" / "mnist.yaml").write_text("root: /somewhere\n")
    composer = Composer(make_loader(CONF, str(tmp_path)))

    def root_and_threads(*words: str) -> tuple[str | None, int | None]:
        config = composer.config(composer.parse(words, []))
        return config.dataset.root if isinstance(config.dataset, ImagesKeys) else None, config.threads

    assert root_and_threads("dataset=mnist") == ("/somewhere", 3)
    assert root_and_threads("dataset=circle") == (None, 3)
    assert root_and_threads("dataset=mnist", "dataset.root=here", "threads=1") == ("here", 1)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("hydra/launcher=sub", "hydra/launcher=submitit_local\nhydra/launcher=submitit_slurm\n"),
        ("dataset=spi", "dataset=spiral-stable-focus\n"),
        ("trainer.l", "trainer.label_smoothing=\ntrainer.loss=\ntrainer.lr=\n"),
    ],
)
def test_tab_completion(
    typed: str, offered: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"python train.py {typed}"
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    monkeypatch.setattr(sys, "argv", ["train.py", "-sc", "query=bash"])
    assert train.command_line() == 0
    assert sorted(capsys.readouterr().out.split()) == offered.split()
