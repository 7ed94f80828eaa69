"""The rows of tags: one added is shown where it says, and what may be minimised is better if it is less."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from neuralode_exp import tags
from neuralode_exp.config.kinds import KINDS
from neuralode_exp.report.columns import chosen_columns, default_columns
from neuralode_exp.report.runs import Run
from neuralode_exp.tags import TAGS, Chart, Tag


@pytest.fixture
def loudness() -> Iterator[Tag]:
    chart = Chart("sound", "loudness")
    tag = Tag(
        "sound/loudness", "of the bells", "dB", bar="dB", final=True, title="loudness (dB)", column=True, chart=chart
    )
    tags.add_tag(tag)
    yield tag
    del TAGS[tag.name]


def test_a_row_is_all_that_a_tag_needs(loudness: Tag) -> None:
    assert loudness.chart is not None
    metrics = {"sound/loudness": 60.0, "unknown": 1.0}
    assert tags.on_bar(metrics) == {"dB": 60.0}
    assert tags.final_values(metrics) == {"final/sound/loudness": 60.0, "final/unknown": 1.0}  # a user's own metric
    assert tags.charts()[loudness.chart] == ["sound/loudness"]
    assert "| `sound/loudness` | of the bells (dB) |" in tags.readme_table()
    run = Run(__file__, "completed", metrics=metrics)  # type: ignore[arg-type]
    assert default_columns([run]) == [loudness]
    assert [column.heading for column in chosen_columns([run], ["final/sound/loudness", "unknown"])] == [
        "loudness (dB)",
        "unknown",
    ]


def test_an_objective_is_better_if_it_is_less_and_is_not_of_test_data() -> None:
    for tag in [*tags.costs(), *(tag for kind in KINDS.values() for tag in kind.objectives)]:
        assert TAGS[tag].less_is_better
        assert "test" not in tag


def test_a_bar_shows_the_error_that_there_is() -> None:
    assert tags.on_bar({"loss/train": 2.0, "error/test": 3.0}) == {"loss": 2.0, "error %": 3.0}
    assert tags.on_bar({"error/test": 3.0, "error/validation": 4.0}) == {"error %": 4.0}


def test_what_runs_are_compared_by_is_the_first_that_they_have() -> None:
    found = tags.compared({"density/nll", "density/kl", "loss/train"})
    assert found is not None
    assert found.name == "density/kl"
    assert tags.compared({"loss/train"}) is None
