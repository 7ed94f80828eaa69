"""What autograd holds: adjoint a constant, checkpoint the states of the steps, backprop every stage."""

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


def test_checkpoint_holds_the_states_of_the_steps(f: nn.Module) -> None:
    for n in STEPS:
        saved, peak = bytes_held(f, n, "checkpoint")
        assert saved == n * STATE
        assert peak == n * STATE + 4 * STAGE - STATE  # and four stages of one step, the first at the state itself


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
