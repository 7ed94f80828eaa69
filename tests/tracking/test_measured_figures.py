"""Pictures of a fit to a table: what is drawn is in its units."""

import numpy as np
import pytest

from neuralode_exp.tracking.figures.measured import Forecast, draw_forecast, draw_learned_field


def test_a_forecast_stands_beside_what_was_held_out_and_persistence() -> None:
    t = np.arange(4.0)
    observed = np.stack([10 + t, 5 - t], 1)
    learned = np.stack([observed + off for off in (0, 1, 2)])
    learned[:, 3, 0] = 1e9  # runs away
    figure = draw_forecast(Forecast(["hare", "lynx"], t, observed, learned, np.array([2.0, 4.0])))
    hare, lynx, residuals = figure.axes
    assert [ax.get_title() for ax in (hare, lynx)] == ["hare", "lynx"]
    held_out, persistence, forecast = hare.lines
    assert held_out.get_ydata().tolist() == [10, 11, 12, 13]
    assert set(persistence.get_ydata()) == {11}
    assert forecast.get_ydata()[:3].tolist() == [11, 12, 13]
    assert hare.get_ylim()[1] < 20
    assert residuals.lines[1].get_ydata().tolist() == pytest.approx([0.25] * 4)


def test_a_learned_field_shows_the_observations() -> None:
    x, y = np.linspace(0, 2, 5), np.linspace(3, 5, 4)
    figure = draw_learned_field(["a", "b"], x, y, np.ones((4, 5, 2)), [np.array([[1.0, 4.0]])])
    (ax,) = figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 2), (3, 5))
