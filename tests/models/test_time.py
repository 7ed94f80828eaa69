"""One's own code that depends on t: refused where training gives it another t, and used where t is right."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from neuralode_exp import load_run
from neuralode_exp.config import ConfigError
from neuralode_exp.config.preflight import preflight
from tests.conftest import train_here

OWN = """
import torch
from torch import nn
from neuralode_exp.extend import field, system

class Net(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.net = nn.Linear(dim, dim)

@field("clock")
class Clock(Net):
    def forward(self, t, z):
        return self.net(z) + t

@field("vanishing")
class Vanishing(Net):
    def forward(self, t, z):
        return self.net(z) + t * (z - 0.1)

@field("timeless")
class Timeless(Net):
    def forward(self, t, z):
        return nn.functional.dropout(self.net(z)) + 0 * t

@field("of-potential")
class OfPotential(Net):
    def forward(self, t, z):
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            return torch.autograd.grad(self.net(z).square().sum(), z, create_graph=True)[0]

@system("forced", dim=1)
def forced(t, z, *, rate: float = 1.0):
    return torch.cos(t) - rate * z

@system("led", dim=1, inputs=[(-1.0, 1.0)])
def led(t, z, u, *, rate: float = 1.0):
    return u * torch.cos(t) - rate * z

@system("root", dim=1)
def root(t, z):
    return (z - 10).sqrt()
"""
RULE = "must not depend on t on dynamics, which are learned from windows without their times, got "
FIX = "; put the dependence into an input u (dataset.inputs), or add the time as a state"
FORCED = ("dataset=system", "dataset.system=forced")
HYBRID = ("model.field=hybrid", "model.residual=false", "model.free=[rate]")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the user's file and a table, where everything happens."""
    (tmp_path / "timed.py").write_text(OWN)
    rows = [f"{t},{math.sin(t)},{math.cos(t)}" for t in range(30)]
    (tmp_path / "table.csv").write_text("\n".join(["t,x,u", *rows]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


CSV = ("dataset=csv", "dataset.path=table.csv")
REFUSED = {
    ("model.field=clock",): "model.field",
    ("model.field=vanishing",): "model.field",
    ("model.field=clock", "model=resnet"): "model.field",
    ("model.field=clock", "model=resnet", "trainer.shooting=single"): "model.field",
    ("model.field=clock", *CSV): "model.field",
    FORCED: "dataset.system",
    ("dataset=system", "dataset.system=led"): "dataset.system",
    (*FORCED, *HYBRID): "dataset.system",
    (*CSV, "dataset.inputs=[u]", *HYBRID, "model.system=led"): "model.system",
    (*CSV, "dataset.states=[x]", "dataset.delays=0", *HYBRID, "model.system=forced"): "model.system",
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_dependence_on_t_is_refused_where_t_is_another(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        preflight(["extensions=[timed.py]", *words])
    [line] = str(caught.value).splitlines()
    assert line.startswith(f"{REFUSED[words]} {RULE}")
    assert line.endswith(FIX)
    assert "(timed.py, line " in line


@pytest.mark.parametrize(
    "words",
    [
        ("model.field=clock", "dataset=two-moons"),
        ("model.field=clock", "dataset=annuli"),
        ("model.field=clock", *FORCED, "trainer.shooting=single", "model=rknet"),
        (*FORCED, *HYBRID, "trainer.shooting=single"),
        ("model.field=timeless", "model=rknet"),
        ("model.field=of-potential",),
        ("dataset=system", "dataset.system=root"),  # NaN at every time
    ],
)
def test_other_code_is_not_refused(words: tuple[str, ...]) -> None:
    answer = preflight(["extensions=[timed.py]", *words, "check=true"]).answer
    assert str(answer).startswith("ok")


def test_over_whole_trajectories_t_is_that_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constant of z' = cos t - rate z is found, and the solve from 0 is that of the closed form."""
    words = ("extensions=[timed.py]", *FORCED, *HYBRID, "trainer.shooting=single", "trainer.collocation=0")
    few = ("dataset.noise=0", "trainer.max_steps=200", "trainer.lr=0.01", "figures=false", "solver=rk4")
    assert train_here(monkeypatch, *words, *few, "precision=float64", "hydra.run.dir=run") == 0
    model, _ = load_run("run", extensions=["timed.py"])
    t = torch.linspace(0, 5, 11, dtype=torch.float64)
    exact = (torch.cos(t) + torch.sin(t) - torch.exp(-t)) / 2  # at rate 1
    torch.testing.assert_close(model(torch.zeros(1, 1, dtype=torch.float64), t)[:, 0, 0], exact, rtol=0, atol=0.01)
