"""`precision=bf16`: convolutions in bfloat16, weights, states and losses in float32."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from neuralode_exp.build import build_task
from neuralode_exp.config import Config
from neuralode_exp.config.machine import wrong_precision
from neuralode_exp.trainers.classification.task import Classification
from neuralode_exp.trainers.optimisation import make_optimizer
from tests.conftest import TINY_IMAGES

SMALL = (*TINY_IMAGES, "dataset.validation=16", "dataset.test=16", "model.channels=32", "solver.step_size=1")
MODELS = {
    "resnet": ("model=resnet", "model.blocks=2"),
    "odenet": ("model=odenet", "model.gradient=checkpoint", "solver=rk4"),
    "torchdiffeq": ("model=odenet", "solver=rk4", "solver.engine=torchdiffeq"),
}


def trained(config: Config, device: str, steps: int = 5) -> tuple[list[float], Classification]:
    torch.manual_seed(0)
    task, losses = build_task(config, torch.device(device)), []
    assert isinstance(task, Classification)
    optimizer = make_optimizer(task.module, config.trainer)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss = task.loss(step)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, task


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("name", MODELS)
def test_it_learns_as_float32_does(name: str, device: str, compose: Callable[..., Config]) -> None:
    words = (*SMALL, *MODELS[name], "trainer.lr=0.01")
    exact, _ = trained(compose(*words), device)
    losses, task = trained(compose(*words, "precision=bf16"), device)
    assert losses == pytest.approx(exact, abs=0.01)  # bfloat16 has 8 bits; 5e-4 was seen, of losses of order 2
    assert losses != exact
    assert {p.dtype for p in task.module.parameters()} == {torch.float32}
    task.module.eval()
    with torch.no_grad():
        assert math.isfinite(task.evaluate()["loss/validation"])
        solved = task.solved()
        assert solved.error == task.final()["error/test"]
    assert (solved.states.dtype == torch.float32) == (name != "resnet")  # z of the solve


@pytest.mark.parametrize("key", ["kinetic", "jacobian", "taylor"])
def test_regularisers_agree_with_float32(key: str, compose: Callable[..., Config]) -> None:
    """Also that of order 2, whose tangents autocast does not reach."""
    hardness, losses = {}, {}
    for precision in ("float32", "bf16"):
        words = (*SMALL, *MODELS["odenet"], f"trainer.{key}=0.1", f"precision={precision}")
        task = build_task(compose(*words), torch.device("cpu"))
        torch.manual_seed(1)
        loss, penalised = task.penalised_loss(1)
        penalised.backward()
        losses[precision] = float(penalised.detach() - loss.detach())
        task.module.eval()
        torch.manual_seed(2)
        hardness[precision] = task.hardness()
    # Rounding switches some ReLUs of this small random network; 5 % was seen.
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.1)
    assert hardness["bf16"] == pytest.approx(hardness["float32"], rel=0.1)


def test_convolutions_are_rounded_and_states_are_not(compose: Callable[..., Config]) -> None:
    task = build_task(compose(*SMALL, *MODELS["odenet"], "precision=bf16"), torch.device("cpu"))
    seen: dict[str, set[torch.dtype]] = {"z": set(), "conv": set(), "logits": set()}
    field = task.module.body.ode.field
    field.register_forward_pre_hook(lambda _, args: seen["z"].add(args[1].dtype))
    field.conv1.register_forward_hook(lambda _, args, out: seen["conv"].add(out.dtype))
    task.module.stem.conv1.register_forward_hook(lambda _, args, out: seen["conv"].add(out.dtype))
    loss = task.loss(1)
    assert loss.dtype == torch.float32
    loss.backward()
    assert seen["z"] == {torch.float32}
    assert seen["conv"] == {torch.bfloat16}
    exact = build_task(compose(*SMALL, *MODELS["odenet"]), torch.device("cpu"))
    exact.module.load_state_dict(task.module.state_dict())
    with torch.no_grad():  # the consistency is in float64 whatever the run's precision
        assert exact.final()["solver/consistency"] == task.final()["solver/consistency"]


def test_what_a_cpu_computes_in() -> None:
    assert wrong_precision("cpu", "bf16") is None
    assert wrong_precision("cpu", "float64") is None


@pytest.mark.cuda
def test_what_a_cuda_device_computes_in() -> None:
    found = wrong_precision("cuda", "bf16")
    assert (found is None) == (torch.cuda.get_device_capability() >= (8, 0))
