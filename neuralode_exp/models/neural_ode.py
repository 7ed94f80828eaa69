"""The one object of these models that solves: a vector field, its method and how its solves are differentiated."""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from neuralode_exp.ode import Gradient, Method, Stats, solve

Field = TypeVar("Field", bound=nn.Module)


class NeuralODE(nn.Module, Generic[Field]):
    """z(t) of dz/dt = f(t, z), z(t[0]) = z0.

    All states of a batch share the steps of an adaptive method.

    Args:
        field: f, called with a scalar t and a z of z0's shape.
        method: of the solves, from `make_method`.
        gradient: how they are differentiated, see `solve`.

    Attributes:
        method, gradient: may be set anew at any time: a trained field can be solved by another method. They are no
            part of the state_dict.
        stats: what the last solve cost; backward fills in its part.

    Example:
        >>> import torch
        >>> from neuralode_exp.models.neural_ode import NeuralODE
        >>> from neuralode_exp.ode import make_method
        >>> class Decay(torch.nn.Module):
        ...     def forward(self, t, z):
        ...         return -z
        >>> ode = NeuralODE(Decay(), make_method("rk4", step_size=0.1))
        >>> ode(torch.ones(10, 2), torch.linspace(0, 1, 5)).shape, ode.stats.nfe_forward
        (torch.Size([5, 10, 2]), 48)
    """

    def __init__(self, field: Field, method: Method, gradient: Gradient = "backprop") -> None:
        super().__init__()
        self.field = field
        self.method = method
        self.gradient: Gradient = gradient
        self.stats = Stats()

    def forward(
        self,
        z0: Tensor,
        t: Tensor | Sequence[float],
        f: Callable[[Tensor, Tensor], Tensor] | None = None,
        parameters: Iterable[Tensor] | None = None,
    ) -> Tensor:
        """Solve to the times t.

        Args:
            z0: initial states.
            t: times, shape (T,), increasing or decreasing.
            f: what this solve evaluates in the place of the field: the field with what is the same at each of its
                evaluations computed once, or together with something else.
            parameters: tensors that f depends on; None takes the field's.

        Returns:
            shape (T, *z0.shape).

        Raises:
            SolverError: if the solve cannot be finished.
        """
        depends_on = self.field.parameters() if parameters is None else parameters
        solution = solve(f or self.field, z0, t, self.method, self.gradient, parameters=depends_on)
        self.stats = solution.stats
        return solution.z

    def advance(self, z0: Tensor, duration: Tensor) -> Tensor:
        """Solve for a time of its own in each state, z(duration), from t = 0.

        All are one solve on [0, D], D the longest, of dz/ds = (duration / D) f(s, z), so that no step is longer than
        the method's step size. That is z(duration) where f does not depend on t.

        Args:
            z0: shape (..., d).
            duration: positive, shape (..., 1).

        Returns:
            shape (..., d).

        Raises:
            SolverError: if the solve cannot be finished.
        """
        longest = duration.max()
        pace = duration / longest
        return self(z0, [0.0, float(longest)], lambda s, z: pace * self.field(s, z))[-1]

    def eigenvalues(self, z: Tensor) -> Tensor:
        """Eigenvalues of df/dz at t = 0 and a state z, shape (..., d): the same shape, complex128."""
        return eigenvalues(lambda z: self.field(z.new_zeros(()), z), z)


def eigenvalues(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Eigenvalues of df/dz at z, shape (..., d), for an f of states (..., B, d) that treats each of a batch alone."""
    with torch.enable_grad():
        copies = z.detach().unsqueeze(-2).repeat_interleave(z.shape[-1], -2).requires_grad_()
        outputs = f(copies).diagonal(dim1=-2, dim2=-1).sum()  # the i-th component of the i-th copy
        return torch.linalg.eigvals(torch.autograd.grad(outputs, copies)[0].double())
