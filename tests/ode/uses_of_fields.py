"""More uses of `solve` in which a gradient is easily lost: kinds of fields, of times and of losses; see `uses`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from tests.ode.uses import F64, SPAN, Conditioned, Field, Loss, Run, leaf, mlp, named, size, use


@use
def frozen_layers(run: Run) -> Loss:
    f, z0 = Field(), leaf(3, 2)
    f.net[0].requires_grad_(False)
    return size(run(f, z0, SPAN)[-1]), {"weight": f.net[2].weight, "bias": f.net[2].bias, "z0": z0}


@use
def shared_layers(run: Run) -> Loss:
    layer = nn.Linear(2, 2, **F64)
    f, z0 = Field(nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), layer)), leaf(3, 2)
    return size(run(f, z0, SPAN)[-1]), {**named(layer=layer), "z0": z0}


@use
def a_layer_shared_with_the_encoder(run: Run) -> Loss:
    f, x = Field(), torch.randn(3, 2, **F64)
    encoder = nn.Sequential(f.net[0], nn.Tanh(), nn.Linear(5, 2, **F64))
    return size(run(f, encoder(x), SPAN)[-1]), {**named(encoder=encoder), **named(f=f)}


@use
def a_module_whose_parameters_are_empty(run: Run) -> Loss:
    net, z0 = mlp(), leaf(3, 2)
    weights = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    net.requires_grad_(False)
    return size(run(lambda t, z: functional_call(net, weights, (z,)), z0, SPAN)[-1]), {**weights, "z0": z0}


class Replica(nn.Module):
    """As `nn.parallel.replicate` makes them: weights that are plain, computed tensors."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return torch.tanh(F.linear(z, self.weights["weight"], self.weights["bias"]))


@use
def a_replica(run: Run) -> Loss:
    layer, z0 = nn.Linear(2, 2, **F64), leaf(3, 2)
    f = Replica({name: p * 1.0 for name, p in layer.named_parameters()})
    return size(run(f, z0, SPAN)[-1]), {**named(layer=layer), "z0": z0}


@use
def dropout(run: Run) -> Loss:
    f, z0 = Field(nn.Sequential(mlp(), nn.Dropout(0.4), nn.Linear(2, 2, **F64))), leaf(3, 2)
    return size(run(f, z0, SPAN)[-1]), {**named(f=f), "z0": z0}


@use
def noise_beside_a_state(run: Run) -> Loss:
    f, encoder, x = Field(), mlp(4), torch.randn(3, 4, **F64)
    z = run(lambda t, z: f(t, z) * (1 + 0.1 * torch.randn_like(z)), encoder(x), SPAN)[-1]
    return size(z), named(f=f, encoder=encoder)


class Hamiltonian(nn.Module):
    """dq/dt = dH/dp, dp/dt = -dH/dq, by a derivative that f takes itself."""

    def __init__(self) -> None:
        super().__init__()
        self.h = mlp(2, 1)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(self.h(z).sum(), z, create_graph=True)
        return torch.stack((slope[..., 1], -slope[..., 0]), -1)


@use
def hamiltonian(run: Run) -> Loss:
    f, z0 = Hamiltonian(), leaf(3, 2)
    # The energy's own constant, the last bias, moves nothing.
    weights = {name: p for name, p in named(f=f).items() if name != "f.h.2.bias"}
    return size(run(f, z0, SPAN)[-1]), {**weights, "z0": z0}


@use
def a_hamiltonian_with_noise(run: Run) -> Loss:
    """The numbers are drawn before f asks for the gradient: an evaluation that has to be repeated draws others."""
    f, z0 = Hamiltonian(), leaf(3, 2)

    def noisy(t: Tensor, z: Tensor) -> Tensor:
        noise = torch.randn_like(z)
        return f(t, z) * (1 + 0.1 * noise)

    return size(run(noisy, z0, SPAN)[-1]), {"weight": f.h[0].weight, "z0": z0}


@use
def a_gradient_by_torch_func(run: Run) -> Loss:
    h, z0 = mlp(2, 1), leaf(3, 2)
    z = run(lambda t, z: torch.func.grad(lambda x: h(x).sum())(z), z0, SPAN)[-1]
    return size(z), {"weight": h[0].weight, "z0": z0}


@use
def batch_norm_in_eval(run: Run) -> Loss:
    norm = nn.BatchNorm1d(2, **F64).eval()
    f, z0 = Field(nn.Sequential(mlp(), norm)), leaf(3, 2)
    return size(run(f, z0, SPAN)[-1]), {**named(f=f), "z0": z0}


@use
def in_place_relu(run: Run) -> Loss:
    """No unit changes sign, so that the adjoint sees no kink."""
    f, z0 = Field(mlp(activation=nn.ReLU(inplace=True))), leaf(3, 2)
    with torch.no_grad():
        f.net[0].weight.mul_(0.1)
        f.net[0].bias.copy_(torch.tensor([3.0, -3.0, 3.0, 3.0, -3.0]))
    return size(run(f, z0, SPAN)[-1]), {**named(f=f), "z0": z0}


@use
def in_place_on_what_f_returns(run: Run) -> Loss:
    f, z0 = Field(), leaf(3, 2)
    return size(run(lambda t, z: f(t, z).mul_(0.5).sub_(0.1 * z), z0, SPAN)[-1]), {**named(f=f), "z0": z0}


@use
def weight_norm(run: Run) -> Loss:
    f, z0 = Field(parametrizations.weight_norm(nn.Linear(2, 2, **F64))), leaf(3, 2)
    return size(run(f, z0, SPAN)[-1]), {**named(f=f), "z0": z0}


@use
def activations_that_f_checkpoints(run: Run) -> Loss:
    f, z0 = Field(), leaf(3, 2)
    z = run(lambda t, z: checkpoint(f.net, z, use_reentrant=False), z0, SPAN)[-1]
    return size(z), {**named(f=f), "z0": z0}


@use
def a_weight_that_is_detached_in_one_place(run: Run) -> Loss:
    w, z0 = leaf(2, 2), leaf(3, 2)
    return size(run(lambda t, z: torch.tanh(z @ w) - z @ w.detach(), z0, SPAN)[-1]), {"w": w, "z0": z0}


@use
def a_field_that_depends_on_time(run: Run) -> Loss:
    f, z0 = mlp(3), leaf(3, 2)
    z = run(lambda t, z: f(torch.cat((z, t.expand(3, 1)), 1)), z0, [0.2, 1.1])[-1]
    return size(z), {**named(f=f), "z0": z0}


@use
def a_constant_field(run: Run) -> Loss:
    z0 = leaf(3, 2)
    return size(run(lambda t, z: torch.ones_like(z), z0, SPAN)[-1]), {"z0": z0}


@use
def a_constant_that_is_learnt(run: Run) -> Loss:
    speed, z0 = leaf(2), leaf(3, 2)
    return size(run(lambda t, z: speed.expand(3, 2), z0, SPAN)[-1]), {"speed": speed, "z0": z0}


@use
def a_leaf_returned_as_it_is(run: Run) -> Loss:
    speed, z0 = leaf(3, 2), leaf(3, 2)
    return size(run(lambda t, z: speed, z0, SPAN)[-1]), {"speed": speed, "z0": z0}


@use
def a_computed_tensor_returned_as_it_is(run: Run) -> Loss:
    encoder, z0 = mlp(), leaf(3, 2)
    speed = encoder(torch.randn(3, 2, **F64))
    return size(run(lambda t, z: speed, z0, SPAN)[-1]), {**named(encoder=encoder), "z0": z0}


@use
def the_state_returned_as_it_is(run: Run) -> Loss:
    z0 = leaf(3, 2)
    return size(run(lambda t, z: z, z0, SPAN)[-1]), {"z0": z0}


@use
def several_observations(run: Run) -> Loss:
    f, z0 = Field(), leaf(3, 2)
    return size(run(f, z0, [0.0, 0.1, 0.15, 0.7, 1.0])), {**named(f=f), "z0": z0}


@use
def an_observation_that_the_loss_leaves_out(run: Run) -> Loss:
    f, z0 = Field(), leaf(3, 2)
    return size(run(f, z0, [0.0, 0.3, 0.6, 1.0])[1]), {**named(f=f), "z0": z0}


@use
def decreasing_times(run: Run) -> Loss:
    f, z0 = Conditioned(), leaf(3, 2)
    f.ctx = gain = leaf(2)
    return size(run(f, z0, [1.0, 0.8, 0.3, 0.0])), {**named(f=f), "gain": gain, "z0": z0}


@use
def times_that_need_a_gradient(run: Run) -> Loss:
    f, z0, t = Field(), leaf(3, 2), torch.tensor([0.0, 0.4, 1.0], **F64).requires_grad_()
    return size(run(f, z0, t)), {**named(f=f), "z0": z0, "t": t}


@use
def an_end_that_is_learnt(run: Run) -> Loss:
    f, z0, end = Conditioned(), leaf(3, 2), leaf(1)
    f.ctx = end
    return size(run(f, z0, torch.cat((torch.zeros(1, **F64), end.exp())))[-1]), {**named(f=f), "z0": z0, "end": end}


@use
def two_losses(run: Run) -> Loss:
    f, z0 = Field(), leaf(3, 2)
    z = run(f, z0, SPAN)
    z[-1, 0].square().sum().backward(retain_graph=True)
    return size(z[-1]), {**named(f=f), "z0": z0}


@use
def a_critic_and_a_generator(run: Run) -> Loss:
    """Two solves through one field of which only the second is differentiated before the first."""
    f, z0 = Field(), leaf(3, 2)
    first = run(f, z0, SPAN)[-1]
    second = run(f, first.detach() * z0, SPAN)[-1]
    size(second).backward()
    return size(first), {**named(f=f), "z0": z0}
