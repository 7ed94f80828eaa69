"""Several networks of one architecture, trained side by side in one batch of tensors.

You need not read this to train one network: one replica is the plain module, and `Replicas(1)` treats its loss and
gradients as usual.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from neuralode_exp.models.fields.hamiltonian import HamiltonianField
from neuralode_exp.models.fields.mlp import MLPField
from neuralode_exp.models.fields.second_order import SecondOrder


class Replicas:
    """R networks whose parameters, gradients, moments and states have a first axis of size R.

    For R = 1 there is no such axis.

    A replica whose training fails must not disturb the others. It is left out of one step, or it is frozen, which means
    left out of all further steps. In a solve the numbers of such a replica are replaced by 0. So its state does not
    change, and it neither overflows nor shortens the adaptive steps of the others. Its weights and moments stay as they
    were.

    Args:
        n: R.

    Attributes:
        frozen: mask of the replicas that are left out for good, shape (R,).
        out: mask of the replicas that are left out now; it includes the frozen ones.
        some_out: whether any replica is left out now.
    """

    def __init__(self, n: int = 1) -> None:
        self.n = n
        self.frozen = self.out = torch.zeros(n, dtype=torch.bool)
        self.some_out = False

    def freeze(self, replicas: Tensor) -> None:
        """Leave out for good the replicas of a mask of shape (R,)."""
        self.frozen = self.frozen | replicas
        self.leave_out(self.frozen)

    def leave_out(self, replicas: Tensor) -> None:
        """Leave out the replicas of a mask of shape (R,) too, until `take_back`."""
        self.out = self.out | replicas
        self.some_out = bool(self.out.any())

    def take_back(self) -> None:
        """Let all replicas take part again that are not frozen."""
        self.out = torch.zeros_like(self.frozen)
        self.leave_out(self.frozen)

    def masked(self, x: Tensor) -> Tensor:
        """Return x, whose first axis is that of the replicas, with 0 in place of the replicas that are left out."""
        if not self.some_out:
            return x
        return torch.where(self.out.to(x.device).view(-1, *[1] * (x.dim() - 1)), 0.0, x)

    def expand(self, x: Tensor) -> Tensor:
        """Return the same x for each replica, shape (R, *x.shape); x itself for one network."""
        return x if self.n == 1 else x.expand(self.n, *x.shape)

    def join(self, each: Sequence[Tensor]) -> Tensor:
        """Stack one tensor for each replica, shape (R, ...); for one network return its tensor."""
        return each[0] if self.n == 1 else torch.stack(list(each))

    def blame(self, state: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Leave out the replicas that made a solve fail, and return their mask, shape (R,).

        These are the replicas with non-finite entries in the offending state. If all entries are finite, it is the
        replica with the largest one. If all of these were left out already, every replica is left out, because no
        replica is left without which the solve could be repeated.

        Args:
            state: shape (..., R, B, d), with further axes in backward or at several times. Of several parts the first
                is looked at. A state with fewer axes (from backward through several parts) blames all replicas.
        """
        state = state[0] if isinstance(state, tuple) else state
        if self.n == 1 or state.dim() < 3:
            bad = torch.ones_like(self.out)
        else:
            each = state.movedim(-3, 0).reshape(self.n, -1).cpu()
            bad = ~torch.isfinite(each).all(dim=1)
            if not bool(bad.any()):
                bad[each.abs().amax(dim=1).argmax()] = True
        new = bad & ~self.out
        self.leave_out(new if bool(new.any()) else torch.ones_like(new))
        return new

    @torch.no_grad()
    def gradient_norms(self, parameters: Iterable[Tensor]) -> Tensor:
        """Return the norm of each replica's whole gradient, shape (R,), on the CPU."""
        squares = [
            torch.linalg.vector_norm(p.grad.reshape(self.n, -1), dim=1) for p in parameters if p.grad is not None
        ]
        return torch.linalg.vector_norm(torch.stack(squares), dim=0).cpu()

    @torch.no_grad()
    def clip(self, parameters: Iterable[Tensor], norms: Tensor, largest: float, good: Tensor) -> None:
        """Shrink the gradients of the replicas in `good` to norms of at most `largest`, and set the others to 0."""
        factors = torch.clamp(largest / norms.clamp(min=1e-12), max=1.0).where(good, torch.zeros(()))
        if not bool((factors != 1.0).any()):
            return
        for p in parameters:
            if p.grad is not None:
                each, factor = p.grad.view(self.n, -1), factors.to(p.grad)[:, None]
                p.grad.copy_(torch.where(factor == 0, 0.0, each * factor).view_as(p.grad))  # NaN times 0 is NaN

    @contextmanager
    def only(self, good: Tensor, parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """In a step of the optimiser, keep weights and moments of the replicas that are not in the mask `good`."""
        kept = []
        if not bool(good.all()):
            moments = [x for p in parameters for x in optimizer.state[p].values() if torch.is_tensor(x) and x.dim()]
            kept = [(x.data, x.data[~good.to(x.device)].clone()) for x in (*parameters, *moments)]
        yield
        for tensor, values in kept:
            tensor[~good.to(tensor.device)] = values


def stack(fields: Sequence[nn.Module], replicas: Replicas) -> nn.Module:
    """Make one field on states (R, B, d) from R fields on states (B, d); a single field is returned as it is."""
    return fields[0] if len(fields) == 1 else Stack(fields, replicas)


def _takes_stacks(field: nn.Module) -> bool:
    """Return whether a field's own code works with stacked parameters."""
    if isinstance(field, SecondOrder):
        field = field.field
    return type(field) in (MLPField, HamiltonianField)


class Stack(nn.Module):
    """R vector fields of one architecture as one, on states of shape (R, B, d).

    Any module can be stacked, by `torch.func.vmap`. The code of `MLPField` and `HamiltonianField` also works with
    stacked parameters, as batched products, and is three times as fast.

    Args:
        fields: the networks; their parameters are copied.
        replicas: says which networks are left out; their derivative is 0.

    Attributes:
        stacked: a network whose parameters have a first axis of size R.
    """

    def __init__(self, fields: Sequence[nn.Module], replicas: Replicas) -> None:
        super().__init__()
        self.stacked = copy.deepcopy(fields[0])
        parameters, buffers = stack_module_state(list(fields))
        for name, x in parameters.items():
            self.stacked.get_parameter(name).data = x.detach()
        for name, x in buffers.items():
            self.stacked.get_buffer(name).data = x
        self.replicas = replicas
        self.batched = _takes_stacks(fields[0])

    def one(self, k: int) -> nn.Module:
        """Return a copy of the k-th network, for states (B, d)."""
        network = copy.deepcopy(self.stacked)
        for x in (*network.parameters(), *network.buffers()):
            x.data = x.data[k].clone()
        return network

    def forward(self, t: Tensor, z: Tensor, *u: Tensor) -> Tensor:
        """Evaluate dz/dt, shape (R, B, d), at time t for z (R, B, d) and inputs u (R, B, m), if there are any."""
        if z.dim() != 3 or len(z) != self.replicas.n:
            raise ValueError(
                f"states of replicas must have the shape ({self.replicas.n}, batch, d), got {tuple(z.shape)}"
            )
        if self.batched and not self.replicas.some_out:
            return self.stacked(t, z, *u)
        named = (*self.stacked.named_parameters(), *self.stacked.named_buffers())
        tensors = {name: self.replicas.masked(x) for name, x in named}

        def f(tensors: dict[str, Tensor], *zu: Tensor) -> Tensor:
            return functional_call(self.stacked, tensors, (t, *zu))

        dz = f(tensors, z, *u) if self.batched else vmap(f, randomness="different")(tensors, z, *u)
        return self.replicas.masked(dz)
