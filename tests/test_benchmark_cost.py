"""The benchmark's table `cost`: the fit of a step's time to its evaluations, on times whose law is known."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import cost


def test_a_law_is_found_and_what_it_leaves_out_is_seen() -> None:
    stages, h = (np.array(column, dtype=float) for column in list(zip(*cost.CELLS, strict=True))[1:])
    counts, again = stages / h, stages / h - stages
    ms = (30 + 5 * counts + 3 * again)[:, None] * np.array([1.0, 1.0, 2.0])  # a third round is disturbed
    *coefficients, r2 = cost.fit("a step", ms, ["a", "b", "c"], counts, again)
    assert [figure.name for figure in coefficients] == ["a step: a", "a step: b", "a step: c"]
    assert [figure.value for figure in coefficients] == pytest.approx([30, 5, 3])
    assert (r2.value, r2.verdict) == (pytest.approx(1.0), "reached")
    *_, r2 = cost.fit("a step", ms, ["a", "b"], counts)
    expected = np.corrcoef(counts, ms[:, 0])[0, 1] ** 2
    assert r2.value == pytest.approx(expected)
    assert expected < 0.995
