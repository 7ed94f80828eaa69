"""The README keeps its word: its commands are valid requests, its tables name what conf/ has, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from claims.headlines import headlines

from neuralode_exp.config.options import readme_tables
from neuralode_exp.config.preflight import preflight
from neuralode_exp.tags import readme_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^    \.venv/bin/python train\.py (.+)$", README, re.MULTILINE)


def table(group: str) -> set[str]:
    """Names in the first column of the tables whose heading is `group=`."""
    tables = [table.partition("\n\n")[0] for table in README.split(f"\n| `{group}=`")[1:]]
    rows = [row for table in tables for row in table.splitlines()[2:]]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


@pytest.mark.parametrize("command", [command for command in COMMANDS if "--help" not in command])
def test_a_command_is_a_valid_request(command: str) -> None:
    words = [word for word in command.split() if not word.startswith("hydra/launcher=")]
    request = preflight([*words, "check=true"])
    assert re.search("^ok", str(request.answer), re.MULTILINE)
    assert request.note is None


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 6


def test_the_table_of_tags_is_that_of_the_code() -> None:
    assert readme_table() in README


def test_the_tables_of_what_is_registered_are_those_of_the_code() -> None:
    for table in readme_tables().values():
        assert table in README


def test_the_table_of_results_is_that_of_the_files() -> None:
    assert headlines(ROOT / "results") in README, "write it by `python scripts/results.py render`"


def test_every_launcher_is_told() -> None:
    assert table("hydra/launcher") == {"basic"} | {path.stem for path in (ROOT / "conf/hydra/launcher").glob("*.yaml")}


@pytest.mark.parametrize("group", ["model", "dataset", "solver", "experiment"])
def test_a_table_names_every_option(group: str) -> None:
    assert table(group) == {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
