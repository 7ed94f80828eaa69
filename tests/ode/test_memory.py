"""What autograd holds: adjoint a constant, checkpoint the states of the steps and one step's stages, backprop all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from neuralode_exp.ode import make_method, solve
from neuralode_exp.tracking.memory import SavedTensors

STEPS = (2, 4, 8, 16)
BATCH, SIZE, WIDTH = 64, 8, 32
STATE = BATCH * SIZE * 4  # bytes of z in float32
STAGE = STATE + BATCH * WIDTH * 4  # what one evaluation holds for its own backward: z and tanh(...)


@pytest.fixture
def f() -> nn.Module:
    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(SIZE, WIDTH), nn.Tanh(), nn.Linear(WIDTH, SIZE))

        def forward(self, t: Tensor, z: Tensor) -> Tensor:
            return self.net(z)

    return Field()


def bytes_held(f: nn.Module, steps: int, gradient: str) -> tuple[int, int]:
    """(when backward starts, most at once until it ends) of rk4 over [0, 1]."""
    z0 = torch.ones(BATCH, SIZE, requires_grad=True)
    with SavedTensors(exclude=f) as probe:
        z = solve(f, z0, [0.0, 1.0], make_method("rk4", step_size=1 / steps), gradient).z
        loss = z[-1].sum()
        probe.backward_starts()
        loss.backward()
    return probe.saved_bytes, probe.peak_bytes


def test_adjoint_holds_the_observations(f: nn.Module) -> None:
    held = [bytes_held(f, n, "adjoint") for n in STEPS]
    assert {saved for saved, _ in held} == {2 * STATE}
    # And one evaluation at a time, at a z that lies beside its adjoint in one storage.
    assert {peak for _, peak in held} == {2 * STATE + STAGE + STATE}


def test_checkpoint_holds_the_states_at_the_steps_ends_and_the_stages_of_the_last(f: nn.Module) -> None:
    for n in STEPS:
        saved, peak = bytes_held(f, n, "checkpoint")
        assert saved == peak == (n + 1) * STATE + 4 * STAGE - STATE  # the first of the four stages is at a kept state


def test_checkpoint_lets_the_stages_of_a_rejected_last_step_go(f: nn.Module) -> None:
    # Over all of [0, 1] the error estimate is about 1e-7.
    method = make_method("dopri5", rtol=1e-9, atol=1e-9, first_step=1.0)
    with SavedTensors(exclude=f) as probe:
        solution = solve(f, torch.ones(BATCH, SIZE, requires_grad=True), [0.0, 1.0], method, "checkpoint")
        probe.backward_starts()
    assert solution.stats.rejected > 0
    # The first stage is the closing one of the step before, evaluated again in backward.
    assert probe.saved_bytes == solution.stats.accepted * STATE + STATE + 5 * STAGE
    assert probe.peak_bytes == 7 * STAGE  # of the first trial, with its first and its closing stage


def test_each_of_several_solves_keeps_one_step(f: nn.Module) -> None:
    z = torch.ones(BATCH, SIZE, requires_grad=True)
    with SavedTensors(exclude=f) as probe:
        for _ in range(3):
            z = solve(f, z, [0.0, 1.0], make_method("rk4", step_size=0.5), "checkpoint").z[-1]
        probe.backward_starts()
    # The second and the third start from one of the two states that the solve before them gives in one storage.
    assert probe.saved_bytes == 3 * (3 * STATE + 4 * STAGE - STATE) + 2 * STATE


def test_backprop_holds_every_stage(f: nn.Module) -> None:
    for n in STEPS:
        saved, peak = bytes_held(f, n, "backprop")
        assert saved == peak == 4 * n * STAGE


def test_graph_is_released_without_backward(f: nn.Module) -> None:
    """A solution that is dropped takes its tensors along: nothing holds on in a cycle."""
    for gradient in ("backprop", "checkpoint", "adjoint"):
        with SavedTensors(exclude=f) as probe:
            z = solve(f, torch.ones(BATCH, SIZE), [0.0, 1.0], make_method("rk4", step_size=0.5), gradient).z
            del z
            probe.backward_starts()
        assert probe.saved_bytes == 0
