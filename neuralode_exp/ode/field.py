"""The user's f(t, z), with counted and checked evaluations that are differentiated one at a time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.autograd.graph import GradientEdge, get_gradient_edge

from neuralode_exp.ode.autocast import Autocast
from neuralode_exp.ode.dependencies import Dependencies
from neuralode_exp.ode.errors import SolverError
from neuralode_exp.ode.randomness import Generators
from neuralode_exp.ode.repeats import Repeats
from neuralode_exp.ode.state import describe

if TYPE_CHECKING:
    from neuralode_exp.ode.compiled import Compiler

WATCHED = 8  # number of first evaluations whose results must not be written to later
# What torch says of a change in place that its graph does not allow.
IN_PLACE = ("used in an in-place operation", "being modified inplace")
Terms = tuple[Tensor | None, ...]  # a gradient for each tensor that f depends on; None is zero


class Stage(NamedTuple):
    """One evaluation of f.

    Attributes:
        value: f(t, z), without a graph unless the solve itself is differentiated by autograd.
        x: a leaf that stands for z if the evaluation was linearised, else None.
        root: where the graph of f(t, x) ends; None if there is no graph.
        terms: further results of this evaluation (the parameter terms of the adjoint).
    """

    value: Tensor
    x: Tensor | None = None
    root: GradientEdge | None = None
    terms: Terms | None = None

    def without_value(self) -> Stage:
        """Return the stage with its graph alone."""
        return self._replace(value=self.value.new_empty(0))


class How(NamedTuple):
    """How f is called: under which autocast, and whether it calls autograd itself."""

    device_type: str
    autocast: torch.dtype | None
    itself: bool


class VectorField:
    """f with a counter of its evaluations (NFE) and checks of its results.

    f may call `torch.autograd.grad` on its z, as a Hamiltonian field does, even if the solve itself needs no graph: an
    evaluation that fails without a graph is repeated with one. f must write neither to its z nor to its results.

    Args:
        f: called as f(t, z) with a scalar t.
        z0: the initial state; f's results must have its shape and dtype.
        of_module: the f of the user, before states were packed; if it is a Module, f depends on its parameters.

    Attributes:
        nfe: number of evaluations so far.
        depends_on: the tensors besides the state that get a gradient, see `find_dependencies`.
        repeats: compares repeated evaluations in backward with the first ones.
        compiler: compiles the evaluations after the second; None: nothing is compiled.

    Raises:
        ValueError: if f does not return a tensor of the shape and dtype of z, or writes to one in place.
    """

    def __init__(self, f: Callable[[Tensor, Tensor], Tensor], z0: Tensor, of_module: object = None) -> None:
        self.f = f
        self.of_module = of_module
        self.nfe = 0
        self.shape, self.dtype = z0.shape, z0.dtype
        self._autocast = Autocast(z0.device.type)
        self.generators = Generators(z0.device)
        self.dependencies = Dependencies(())
        self._differentiates_itself = False
        self._special = self._autocast.enabled  # or f differentiates itself
        self._returned: list[tuple[weakref.ref[Tensor], int]] = []
        self.repeats = Repeats(self._autocast.dtype or self.dtype)
        self.compiler: Compiler | None = None

    @property
    def how(self) -> How:
        """How f is called within a compiled function."""
        return How(self._autocast.device_type, self._autocast.dtype, self._differentiates_itself)

    @property
    def depends_on(self) -> tuple[Tensor, ...]:
        return self.dependencies.tensors

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        self.nfe += 1
        first = self.nfe == 1
        if first:
            self.generators.watch()
        if self.generators.watched:
            self.generators.before_evaluation()
        if self.compiler is not None and self.nfe > 2:
            compiled = self.compiler.evaluate(self, t, z)
            if compiled is not None:
                return compiled
        version = None if z.is_inference() else z._version
        try:
            dz = self._specially(t, z) if self._special else self.f(t, z)
        except SolverError:
            raise
        except RuntimeError as error:
            dz = self._again(t, z, first, error)
        if version is not None and z._version != version:
            raise ValueError("f(t, z) must not change z in place, got a z that it has written to; compute a new tensor")
        if first and self.compiler is not None and self.generators.moved:
            self._compile_no_draws()
        if not isinstance(dz, Tensor):
            raise ValueError(f"f(t, z) must return dz/dt, a tensor, got {type(dz).__name__}; does it end in return?")
        if self.nfe <= WATCHED:
            self._watch(dz)
        if dz.dtype != self.dtype and self._autocast.enabled and dz.is_floating_point():
            dz = dz.to(self.dtype)
        if dz.shape != self.shape or dz.dtype != self.dtype:
            raise ValueError(
                f"f(t, z) must return dz/dt with the shape and dtype of z, got {describe(dz)} for z of {describe(z)}"
            )
        return dz

    def _compile_no_draws(self) -> None:
        from neuralode_exp.ode.compiled import warn_uncompiled

        self.compiler = None
        warn_uncompiled("f draws random numbers, which a program would draw in another order")

    def stage(self, t: Tensor, z: Tensor) -> Stage:
        """Evaluate f as a stage of a step."""
        return Stage(self(t, z))

    def linearise(self, t: Tensor, z: Tensor) -> Stage:
        """Evaluate f with autograd's graph, which starts at a leaf that stands for z and at what f depends on."""
        with torch.enable_grad():
            x, start = begin_graph(z)
            with self.dependencies.around():
                dz = self(t, start)
            root = get_gradient_edge(dz) if dz.requires_grad else None
        if root is not None:
            self.dependencies.check(root, start.grad_fn, t)
        self.repeats.evaluated(dz)
        return Stage(dz.detach(), x, root)

    def vjp(self, stage: Stage, cotangent: Tensor) -> tuple[Tensor | None, Terms]:
        """Return the vector-Jacobian products cotangent^T df/dz and cotangent^T df/dtheta, once for an evaluation."""
        if stage.root is None:
            return None, (None,) * len(self.depends_on)
        adj_z, *terms = self.dependencies.gradients((stage.root,), stage.x, (cotangent,))
        return adj_z, tuple(terms)

    def find_dependencies(self, t: Tensor, z: Tensor, listed: Sequence[Tensor]) -> Stage:
        """Evaluate f once at the start, linearised, to find the tensors on which its result depends.

        These are the leaves of autograd's graph of f(t, z) and its tensors that are older than the evaluation. The
        parameters of f, if it is a Module, and the listed tensors are added.

        Raises:
            ValueError: a tensor cannot be identified; it must be passed in `parameters=`.
        """
        own = self.of_module.parameters() if isinstance(self.of_module, nn.Module) else ()
        self.dependencies = Dependencies(p for p in (*listed, *own) if p.requires_grad)
        self.generators.watch()
        with torch.enable_grad():
            x, start = begin_graph(z)
            dz = self(t, start)
            if unpack_dual(dz).tangent is not None:
                raise ValueError(
                    "f(t, z) must depend on no tensor with a tangent (forward mode), which a solve would lose, got one "
                    "that does; differentiate by backward"
                )
            root = get_gradient_edge(dz) if dz.requires_grad else None
            if root is not None and self.dependencies.find(root, start.grad_fn):
                # Autograd gives the node of a captured tensor, not the tensor. A second evaluation looks for the
                # tensor among the arguments of f's operations.
                self.generators.rewind()
                start = x.view_as(x)
                dz = self.dependencies.name_captured(lambda: self(t, start))
                root = get_gradient_edge(dz)
        self.generators.first_evaluation_done()
        return Stage(dz.detach(), x, root)

    def _watch(self, dz: Tensor) -> None:
        """Check that f has not written to an earlier result, and look at this one from now on."""
        if any((x := earlier()) is not None and x._version != v for earlier, v in self._returned):
            raise ValueError(
                "f(t, z) must return a new tensor at each call, got one that it returned before and has written to "
                "since; leave out=, or return a clone"
            )
        if not dz.is_inference():  # in inference mode nothing is known of changes in place
            self._returned.append((weakref.ref(dz), dz._version))

    def _specially(self, t: Tensor, z: Tensor, itself: bool = False) -> Tensor:
        """Evaluate an f that runs under autocast or calls autograd itself."""
        with self._autocast.again() if self._autocast.enabled else nullcontext():
            return self._with_graph(t, z) if itself or self._differentiates_itself else self.f(t, z)

    def _again(self, t: Tensor, z: Tensor, first: bool, error: RuntimeError) -> Tensor:
        """Repeat an evaluation that failed without a graph from z with one; raise the error if that does not help."""
        if any(text in str(error) for text in IN_PLACE):
            raise ValueError(
                f"f(t, z) must not change z or a weight in place, got {str(error).splitlines()[0].rstrip('.')!r} from "
                "torch; compute a new tensor"
            ) from error
        graph = self._differentiates_itself or (torch.is_grad_enabled() and z.requires_grad)
        if graph or torch.is_inference_mode_enabled():
            raise error
        self.generators.undo(first)
        self.nfe += 1
        try:
            dz = self._specially(t, z, itself=True)
        except RuntimeError:
            raise error from None
        self._differentiates_itself = self._special = True
        return dz

    def _with_graph(self, t: Tensor, z: Tensor) -> Tensor:
        """Evaluate an f that needs a graph from its z; the result keeps a graph only if the caller wants one."""
        asked = torch.is_grad_enabled()
        with torch.enable_grad():
            dz = self.f(t, z if asked and z.requires_grad else z.detach().requires_grad_())
        return dz if asked or not isinstance(dz, Tensor) else dz.detach()


class Linearised:
    """f whose stages keep their graphs, so that backward need not repeat them."""

    def __init__(self, f: VectorField) -> None:
        self.f = f
        self.stage = f.linearise

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        return self.f(t, z)


class Finding:
    """f whose first evaluation finds the tensors that f depends on, see `VectorField.find_dependencies`."""

    def __init__(self, f: VectorField, listed: Sequence[Tensor]) -> None:
        self.f, self.listed = f, listed
        self.found = False

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        return self.stage(t, z).value

    def stage(self, t: Tensor, z: Tensor) -> Stage:
        found, self.found = self.found, True
        return self.f.stage(t, z) if found else self.f.find_dependencies(t, z, self.listed)


Time = float | Tensor  # a number, or one number for each row of the state: a tensor that broadcasts against it


def time_like(t: Time, z: Tensor) -> Tensor:
    """Return t as a tensor with z's dtype and device, made on the device (`torch.tensor` would copy from the host)."""
    return t.to(z.dtype) if isinstance(t, Tensor) else torch.full((), t, dtype=z.dtype, device=z.device)


def begin_graph(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return a leaf that stands for z and a view of it, the first node of an evaluation: older ones are of others."""
    x = z.detach().requires_grad_()
    return x, x.view_as(x)


def accumulate(sums: list[Tensor | None], terms: Sequence[Tensor | None], weight: float = 1.0) -> None:
    """sums[i] += weight * terms[i] in place, where None is zero."""
    if weight == 0.0:
        return
    for i, term in enumerate(terms):
        if term is None:
            continue
        total = sums[i]
        if total is None:
            sums[i] = term * weight
        else:
            total.add_(term, alpha=weight)
