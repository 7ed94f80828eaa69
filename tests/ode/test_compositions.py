"""Random compositions of what the core offers: `checkpoint` is `backprop` to round-off, evaluations are counted."""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuralode_exp.ode import Method, Stats, make_method, solve

F64: dict[str, Any] = {"dtype": torch.float64}
SEEDS = range(50)
INNER = make_method("heun2", step_size=0.1)
STOP = 0.45  # where the field jumps, if it does


@dataclass(frozen=True)
class Recipe:
    """What one composition is made of."""

    encoder: bool
    shared: bool  # the encoder ends with a layer of f
    context: bool  # f captures what the encoder made, or a leaf
    chain: bool  # several solves, each from where the last one ended
    nested: bool  # f solves an ODE itself
    frozen: bool
    dropout: bool
    inside: bool  # observations between the first time and the last
    decreasing: bool
    one_step: bool  # the first step is the last
    parts: bool  # the state is a tuple
    adaptive: bool
    max_step: bool
    stops: bool
    method: str

    @property
    def solves(self) -> int:
        return 3 if self.chain else 1


def draw(seed: int) -> Recipe:
    random = Random(seed)
    yes = {field.name: random.random() < 0.4 for field in fields(Recipe) if field.name != "method"}
    adaptive = yes["adaptive"] = random.random() < 0.6
    yes["shared"] &= yes["encoder"]
    yes["dropout"] &= not adaptive  # an adaptive method has no steps for noise
    yes["stops"] &= not yes["one_step"]
    yes["max_step"] &= adaptive and not yes["one_step"]
    names = ["adaptive-heun", "bosh3", "dopri5", "tsit5", "dop853"] if adaptive else ["euler", "midpoint", "rk4"]
    return Recipe(**yes, method=random.choice(names))


def method_of(recipe: Recipe) -> Method:
    if not recipe.adaptive:
        return make_method(recipe.method, step_size=10.0 if recipe.one_step else 0.2)
    if recipe.one_step:
        return make_method(recipe.method, rtol=1e6, atol=1e6, first_step=10.0)
    return make_method(recipe.method, rtol=1e-3, atol=1e-3, max_step=0.15 if recipe.max_step else None)


class Composed(nn.Module):
    """A field of two rows of three numbers, or of the same numbers in two parts."""

    context: Tensor | float = 1.0

    def __init__(self, recipe: Recipe, gradient: str) -> None:
        super().__init__()
        self.recipe, self.gradient = recipe, gradient
        self.first, self.second = nn.Linear(3, 4, **F64), nn.Linear(4, 3, **F64)
        self.first.requires_grad_(not recipe.frozen)
        self.dropout = nn.Dropout(0.3 if recipe.dropout else 0.0)
        self.calls, self.stats = 0, list[Stats]()
        self.inner_calls, self.inner_stats = 0, list[Stats]()

    def solve(self, z0: Any, t: list[float]) -> Any:
        stops = (STOP,) if self.recipe.stops else ()
        solution = solve(self, z0, t, method_of(self.recipe), self.gradient, stops=stops)
        self.stats.append(solution.stats)
        return solution.z

    def inside(self, t: Tensor, z: Tensor) -> Tensor:
        self.inner_calls += 1
        return torch.tanh(self.second(torch.sin(self.first(z))))

    def forward(self, t: Tensor, z: Any) -> Any:
        self.calls += 1
        z = torch.cat(z, 1) if self.recipe.parts else z
        dz = self.second(self.dropout(torch.tanh(self.first(z) + t))) * torch.tanh(torch.as_tensor(self.context))
        if self.recipe.nested:
            inner = solve(self.inside, z, [0.0, 0.2], INNER, self.gradient)
            self.inner_stats.append(inner.stats)
            dz = dz + 0.3 * inner.z[-1]
        if self.recipe.stops and t > STOP:
            dz = dz + self.second.bias
        return (dz[:, :1], dz[:, 1:]) if self.recipe.parts else dz


def compose(recipe: Recipe, seed: int, gradient: str) -> tuple[Composed, Tensor, list[Tensor]]:
    """The field with its counts, a loss, and the leaves that it depends on."""
    torch.manual_seed(seed)
    f, x, leaf = Composed(recipe, gradient), torch.randn(2, 3, **F64), torch.randn(2, 3, **F64).requires_grad_()
    encoder = nn.Sequential(nn.Linear(3, 4, **F64), nn.Tanh(), f.second if recipe.shared else nn.Linear(4, 3, **F64))
    code = encoder(x)
    z = code if recipe.encoder else leaf
    if recipe.context:
        f.context = leaf if recipe.encoder else code
    loss = torch.zeros((), **F64)
    for i in range(recipe.solves):
        t = [0.0, 0.1, 0.32, 0.5, 0.9] if recipe.inside else [0.0, 0.9]
        observed = f.solve(z.split((1, 2), 1) if recipe.parts else z, t[::-1] if recipe.decreasing else t)
        observed = torch.cat(observed, -1) if recipe.parts else observed
        weights = torch.linspace(-1.0, 1.0, observed[1:].numel(), **F64).reshape(observed[1:].shape)
        loss = loss + (weights * observed[1:]).sum() + observed[-1].square().sum() / (i + 1)
        z = observed[-1]
    return f, loss, [leaf, *encoder.parameters(), *f.parameters()]


def gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor | None]:
    """One for each leaf, with its gradient left on the leaf as training has it."""
    loss.backward()
    return [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("seed", SEEDS)
def test_checkpoint_equals_backprop(seed: int) -> None:
    recipe = draw(seed)
    f, loss, leaves = compose(recipe, seed, "backprop")
    exact = gradients(loss, leaves)
    assert sum(g is not None and bool(g.any()) for g in exact) >= 3
    g, same, others = compose(recipe, seed, "checkpoint")
    assert torch.allclose(same, loss, rtol=1e-12, atol=1e-12)
    found = gradients(same, others)
    for expected, got in zip(exact, found, strict=True):
        if expected is None or not expected.any():
            assert got is None or not got.any()
            continue
        assert got is not None
        # Sums of tens of terms in another order, relative to the largest entry.
        assert float((got - expected).abs().max() / expected.abs().max()) < 1e-9
    for ours, theirs in zip(g.stats, f.stats, strict=True):
        assert (ours.accepted, ours.rejected) == (theirs.accepted, theirs.rejected)
        assert 0 <= ours.nfe_forward - theirs.nfe_forward <= 1  # a second look at what f depends on


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("gradient", ["backprop", "checkpoint"])
def test_every_evaluation_is_counted(gradient: str, seed: int) -> None:
    recipe = draw(seed)
    f, loss, leaves = compose(recipe, seed, gradient)
    assert f.calls == sum(stats.nfe_forward for stats in f.stats)
    gradients(loss, leaves)
    assert f.calls == sum(stats.nfe_forward + stats.nfe_backward for stats in f.stats)
    assert f.inner_calls == sum(stats.nfe_forward + stats.nfe_backward for stats in f.inner_stats)
    assert any(stats.nfe_backward for stats in f.stats) <= (gradient == "checkpoint")


def test_every_ingredient_is_drawn_and_left_out() -> None:
    recipes = [draw(seed) for seed in SEEDS]
    for field in fields(Recipe):
        drawn = [getattr(recipe, field.name) for recipe in recipes]
        assert len(set(drawn)) >= 2
        assert field.name == "method" or min(drawn.count(value) for value in (False, True)) >= 5
