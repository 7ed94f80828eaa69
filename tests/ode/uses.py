"""Uses of `solve` in which a gradient is easily lost: chains of solves, and tensors that a field captures.

A use takes `run(f, z0, t, **parameters) -> z` and gives a loss with the leaves whose gradients it is about, all of them
different from zero. Whatever it draws, it draws anew from torch's default generator, so that two runs with one seed
are the same model. `uses_of_fields` has more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Run = Callable[..., Tensor]
Loss = tuple[Tensor, dict[str, Tensor]]
USES: dict[str, Callable[[Run], Loss]] = {}
RANDOM = {"dropout", "noise_beside_a_state", "a_hamiltonian_with_noise"}  # no continuous solution
DIFFERENT_TIMES = {"times_that_need_a_gradient", "an_end_that_is_learnt"}  # torchdiffeq differentiates its steps for t
SPAN = [0.0, 1.0]
F64: dict[str, Any] = {"dtype": torch.float64}


def use(case: Callable[[Run], Loss]) -> Callable[[Run], Loss]:
    USES[case.__name__] = case
    return case


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, **F64).requires_grad_()


def mlp(inputs: int = 2, outputs: int = 2, *, activation: nn.Module | None = None, width: int = 5) -> nn.Sequential:
    layers = nn.Linear(inputs, width, **F64), activation or nn.Tanh(), nn.Linear(width, outputs, **F64)
    return nn.Sequential(*layers)


class Field(nn.Module):
    """dz/dt = net(z), and a place to hold more."""

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net = net or mlp()

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        dz: Tensor = self.net(z)
        return dz


class Conditioned(Field):
    """dz/dt = net(z) + tanh(ctx) * z: ctx is a plain attribute, no parameter and no buffer."""

    ctx: Any

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return self.net(z) + torch.tanh(self.ctx) * z


def named(**modules: nn.Module) -> dict[str, Tensor]:
    return {f"{name}.{key}": p for name, module in modules.items() for key, p in module.named_parameters()}


def size(z: Tensor) -> Tensor:
    return (z * torch.linspace(0.5, 1.5, z.numel(), dtype=z.dtype).reshape(z.shape)).sum() + z.square().sum()


@use
def one_solve(run: Run) -> Loss:
    f, z0 = Field(), leaf(3, 2)
    return size(run(f, z0, SPAN)[-1]), {**named(f=f), "z0": z0}


@use
def two_solves_in_a_row(run: Run) -> Loss:
    f, z0 = Field(), leaf(3, 2)
    z = run(f, run(f, z0, SPAN)[-1], [1.0, 2.0])[-1]
    return size(z), {**named(f=f), "z0": z0}


@use
def two_solves_side_by_side(run: Run) -> Loss:
    f, z0 = Field(), leaf(3, 2)
    return size(run(f, z0, SPAN)[-1]) + size(run(f, 2 * z0, SPAN)[-1]), {**named(f=f), "z0": z0}


@use
def a_start_made_with_the_weights_of_f(run: Run) -> Loss:
    f, x = Field(), leaf(3, 2)
    return size(run(f, f.net(x), SPAN)[-1]), {**named(f=f), "x": x}


@use
def a_start_that_is_an_expression_of_a_weight(run: Run) -> Loss:
    f = Field()
    weight = f.net[0].weight
    return size(run(f, weight.sum(0) * torch.ones(3, 1, **F64) + weight[:3], SPAN)[-1]), named(f=f)


@use
def a_start_that_is_a_weight_of_f(run: Run) -> Loss:
    f = Conditioned()
    f.ctx = z0 = leaf(3, 2)
    return size(run(f, z0, SPAN)[-1]), {**named(f=f), "z0": z0}


@use
def ode_rnn(run: Run) -> Loss:
    f, cell, readout, x = Field(), nn.GRUCell(1, 2, **F64), nn.Linear(2, 1, **F64), torch.randn(4, 3, 1, **F64)
    h = torch.zeros(3, 2, **F64)
    for i in range(4):
        h = cell(x[i], run(f, h, [0.3 * i, 0.3 * (i + 1)])[-1])
    return size(readout(h)), named(f=f, cell=cell, readout=readout)


@use
def an_encoder_in_front(run: Run) -> Loss:
    f, encoder, x = Field(), mlp(4), torch.randn(3, 4, **F64)
    return size(run(f, encoder(x), SPAN)[-1]), named(f=f, encoder=encoder)


@use
def a_module_that_holds_what_an_encoder_made(run: Run) -> Loss:
    f, encoder, x, z0 = Conditioned(), mlp(4), torch.randn(3, 4, **F64), leaf(3, 2)
    f.ctx = encoder(x)
    return size(run(f, z0, SPAN)[-1]), {**named(f=f, encoder=encoder), "z0": z0}


@use
def one_encoder_for_the_start_and_the_context(run: Run) -> Loss:
    f, encoder, x = Conditioned(), mlp(4), torch.randn(3, 4, **F64)
    f.ctx = code = encoder(x)
    return size(run(f, code, SPAN)[-1]), named(f=f, encoder=encoder)


@use
def a_context_from_the_solve_before(run: Run) -> Loss:
    f, g, z0 = Field(), Conditioned(), leaf(3, 2)
    g.ctx = run(f, z0, SPAN)[-1]
    return size(run(g, torch.ones(3, 2, **F64), SPAN)[-1]), {**named(f=f, g=g), "z0": z0}


@use
def a_module_that_holds_a_plain_tensor(run: Run) -> Loss:
    f, z0 = Conditioned(), leaf(3, 2)
    f.ctx = gain = leaf(2)
    return size(run(f, z0, SPAN)[-1]), {**named(f=f), "gain": gain, "z0": z0}


@use
def a_module_that_needs_no_gradient_but_holds_one(run: Run) -> Loss:
    f = Conditioned().requires_grad_(False)
    f.ctx = gain = leaf(2)
    return size(run(f, torch.ones(3, 2, **F64), SPAN)[-1]), {"gain": gain}


@use
def a_closure_over_a_leaf(run: Run) -> Loss:
    rate, z0 = leaf(2), leaf(3, 2)
    return size(run(lambda t, z: torch.sin(rate * z), z0, SPAN)[-1]), {"rate": rate, "z0": z0}


@use
def a_closure_alone_needs_a_gradient(run: Run) -> Loss:
    rate = leaf(2)
    return size(run(lambda t, z: torch.sin(rate * z), torch.ones(3, 2, **F64), SPAN)[-1]), {"rate": rate}


@use
def a_closure_over_views(run: Run) -> Loss:
    weights, z0 = leaf(3, 2, 2), leaf(3, 2)
    first, second = weights[0], weights[1:].sum(0)
    z = run(lambda t, z: torch.tanh(z @ first) @ second - z @ weights[2], z0, SPAN)[-1]
    return size(z), {"weights": weights, "z0": z0}


def hypernetwork(run: Run, listed: Callable[[Tensor], dict[str, Any]]) -> Loss:
    hyper, code, z0 = mlp(3, 4), torch.randn(3, **F64), leaf(3, 2)
    w = hyper(code).reshape(2, 2)
    return size(run(lambda t, z: torch.tanh(z @ w), z0, SPAN, **listed(w))[-1]), {**named(hyper=hyper), "z0": z0}


@use
def hypernetwork_not_listed(run: Run) -> Loss:
    return hypernetwork(run, lambda w: {})


@use
def hypernetwork_with_an_empty_list(run: Run) -> Loss:
    return hypernetwork(run, lambda w: {"parameters": ()})


@use
def hypernetwork_listed(run: Run) -> Loss:
    return hypernetwork(run, lambda w: {"parameters": [w]})


@use
def hypernetwork_in_pieces(run: Run) -> Loss:
    hyper, z0 = mlp(3, 6), leaf(3, 2)
    w, b = hyper(torch.randn(3, **F64)).split((4, 2))
    scale, shift = b.unbind()
    z = run(lambda t, z: torch.tanh(z @ w.view(2, 2) * scale + shift), z0, SPAN)[-1]
    return size(z), {**named(hyper=hyper), "z0": z0}


@use
def half_of_them_listed(run: Run) -> Loss:
    a, b, z0 = leaf(2), leaf(2), leaf(3, 2)
    z = run(lambda t, z: torch.sin(a * z) + torch.cos(b * z), z0, SPAN, parameters=[a])[-1]
    return size(z), {"a": a, "b": b, "z0": z0}


@use
def a_tensor_and_the_leaf_behind_it(run: Run) -> Loss:
    p, z0 = leaf(2), leaf(3, 2)
    w = torch.exp(p) * 0.3
    return size(run(lambda t, z: torch.sin(w * z) + p * z, z0, SPAN)[-1]), {"p": p, "z0": z0}


@use
def two_tensors_of_one_graph(run: Run) -> Loss:
    p, z0 = leaf(2), leaf(3, 2)
    w = torch.exp(p)
    v = torch.sin(w)
    return size(run(lambda t, z: torch.sin(w * z) + v * z, z0, SPAN)[-1]), {"p": p, "z0": z0}


@use
def a_tensor_that_the_loss_uses_too(run: Run) -> Loss:
    p, z0 = leaf(2), leaf(3, 2)
    w = torch.exp(p)
    z = run(lambda t, z: torch.sin(w * z), z0, SPAN)[-1]
    return size(z) + size(w * z), {"p": p, "z0": z0}
