"""Past values as states: which delay, what they are, and what is held out of them."""

import math
from pathlib import Path

import pytest
import torch

from neuralode_exp.data.delays import delay_of, embed, oscillates, state_to_start_from
from neuralode_exp.data.measured import observe
from neuralode_exp.trainers.dynamics.segments import windows_for

T = torch.arange(120.0, dtype=torch.float64) / 5
PERIOD = 8.0
WAVE = 300 + torch.sin(2 * math.pi * T / PERIOD)[:, None]
NOISY = WAVE + 0.05 * torch.randn(WAVE.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_what_swings_oscillates_and_what_decays_with_noise_does_not() -> None:
    assert oscillates([NOISY])
    decay = torch.exp(-T / 3)[:, None]
    assert not oscillates([decay + 0.02 * (NOISY - WAVE) / 0.05])
    assert not oscillates([decay, decay])


def test_the_delay_is_a_quarter_of_a_period() -> None:
    assert delay_of([T], [NOISY]) == pytest.approx(PERIOD / 4, rel=0.2)


def test_past_values_are_those_of_then() -> None:
    t, z = embed(T, torch.stack([T, T.square()], 1), 2, 0.3)
    assert float(t[0]) == pytest.approx(0.6)
    torch.testing.assert_close(z[:, [0, 2, 4]], torch.stack([t, t - 0.3, t - 0.6], 1))
    torch.testing.assert_close(z[:, 3], (t - 0.3).square(), rtol=0, atol=0.011)  # on straight lines between rows
    same = embed(T, NOISY, 0, 0.0)
    assert torch.equal(same[0], T)
    assert torch.equal(same[1], NOISY)


def test_a_state_to_start_from_has_less_than_the_noise() -> None:
    off = []
    for n in range(60, 120, 3):
        found = state_to_start_from(T[:n], NOISY[:n], 1, 2.0)
        true = 300 + torch.sin(2 * math.pi * (T[n - 1] - torch.tensor([0.0, 2.0])) / PERIOD)
        off.append(found - true)
    assert float(torch.stack(off).square().mean().sqrt()) < 0.8 * 0.05


def test_one_column_that_oscillates_is_learned_with_its_past_and_judged_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "wave.csv"
    path.write_text("t,x\n" + "".join(f"{float(t)},{float(x)}\n" for t, x in zip(T, NOISY[:, 0], strict=True)))
    observed = observe(path, 0.2, 0, torch.float64, units="spread", delays="auto")
    assert observed.scale is not None
    assert observed.scale.names[0] == "x"
    assert "states are also the values" in observed.note
    (held_out,) = observed.validation
    assert held_out.z.shape == (24, 1, 2)  # all of what is held out has its past in what is not
    assert held_out.judged[:, 0, 1].isnan().all()
    torch.testing.assert_close(observed.scale.outward(held_out.observed[:, 0])[:, 0], NOISY[-24:, 0])
    plain = observe(path, 0.2, 0, torch.float64, units="spread", delays=0)
    assert plain.states[0].shape == (96, 1)
    assert "add dataset.delays=auto" in plain.warnings[0]
    with pytest.raises(ValueError, match="`delays` must leave 5 observations with a past, got 90"):
        observe(path, 0.2, 0, torch.float64, units="spread", delays=90)


def test_a_column_that_never_changes_changes_no_number_of_steps() -> None:
    for constant in (0.0, 0.1, 1e6 / 3):
        both = torch.cat([NOISY, torch.full_like(NOISY, constant)], 1)
        assert windows_for([both]) == windows_for([NOISY])
        assert delay_of([T], [both]) == delay_of([T], [NOISY])
    assert windows_for([torch.full((9, 2), 0.1)]) == (4, 8)  # nothing moves: the whole of it
