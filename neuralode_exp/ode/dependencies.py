"""The tensors that f depends on besides (t, z), and the gradients of one evaluation with respect to them.

They are found in autograd's graph of f(t, z). A leaf of this graph, or a node that is older than the evaluation
(`Node._sequence_nr`), belongs to a tensor that f has taken from elsewhere: a parameter, an encoder's output, or a
weight that another network has made. Each thread counts ages by itself, so a tensor that another thread has made must
be listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

Edge = tuple[Node, int]

# The edges that the solves around this one know, the outermost first. They are needed because backward may evaluate f
# in another thread, where the age of a node cannot be compared with those of the thread that made it.
_AROUND: ContextVar[tuple[dict[Edge, Tensor], ...]] = ContextVar("_AROUND", default=())


class Dependencies:
    """The tensors that f depends on, each known by its edge in autograd's graph.

    Args:
        tensors: tensors that are known already; each requires a gradient.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors: dict[Edge, Tensor] = {}
        self._unnamed: set[Edge] = set()
        self._first_call = 0
        for tensor in tensors:
            self._tensors.setdefault(_edge(tensor), tensor)
        self.tensors = tuple(self._tensors.values())

    @contextmanager
    def around(self) -> Iterator[None]:
        """Within this context, let inner solves treat these tensors as older than their own evaluations."""
        token = _AROUND.set((*_AROUND.get(), self._tensors))
        try:
            yield
        finally:
            _AROUND.reset(token)

    def find(self, root: GradientEdge, start: Node | None) -> bool:
        """Add the leaves in the graph of an evaluation; return whether its other tensors still have to be named.

        Args:
            root: where the graph of the evaluation ends.
            start: its first node, made from z.
        """
        self._first_call = 0 if start is None else start._sequence_nr()
        for edge in _met(root, start, self._tensors):
            if _is_leaf(edge[0]):
                self._tensors[edge] = _variable(edge[0])
            else:
                self._unnamed.add(edge)
        self.tensors = tuple(self._tensors.values())
        return bool(self._unnamed)

    def name_captured(self, evaluate: Callable[[], Tensor]) -> Tensor:
        """Evaluate again, and look among the arguments of f's operations for the tensors of the nodes that were found.

        Raises:
            ValueError: some tensors are no argument of a function of torch.
        """
        with _Arguments(self._unnamed) as seen:
            dz = evaluate()
        self._tensors |= seen.tensors
        self.tensors = tuple(self._tensors.values())
        missing = self._unnamed - seen.tensors.keys()
        if missing:
            names = ", ".join(sorted(node.name() for node, _ in missing))
            raise ValueError(
                f"f(t, z) depends on a tensor with a gradient that cannot be told from its operations ({names}); "
                "pass that tensor in parameters=(...)"
            )
        self._unnamed = set()
        return dz

    def check(self, root: GradientEdge, start: Node | None, t: object) -> None:
        """Refuse a tensor that the first evaluation did not use, because its gradient would be lost.

        Raises:
            ValueError: with the tensor and what to do.
        """
        for node, _ in _met(root, start, self._tensors):
            if not _is_leaf(node) and node._sequence_nr() >= self._first_call:
                raise ValueError(
                    f"f(t, z) must keep no tensor from one call to the next, got at t={_show(t)} one that an earlier "
                    f"call has made ({node.name()}), as torch.nn.utils.parametrize.cached does; make it at each call "
                    "or before the solve, or use gradient='backprop'"
                )
            what = f"a leaf of shape {tuple(_variable(node).shape)}" if _is_leaf(node) else f"one made by {node.name()}"
            raise ValueError(
                f"f(t, z) must depend on no other tensors than at its first evaluation, got at t={_show(t)} {what} "
                "that it did not use there; pass that tensor in parameters=(...)"
            )

    @cached_property
    def made_from_each_other(self) -> bool:
        """Whether one of the tensors was made from another one."""
        ahead = [edge for node, _ in self._tensors for edge in node.next_functions]
        seen: set[Node | None] = {None}
        while ahead:
            node, number = ahead.pop()
            if (node, number) in self._tensors:
                return True
            if node not in seen:
                seen.add(node)
                ahead += node.next_functions  # type: ignore[union-attr]
        return False

    def gradients(
        self, roots: Sequence[GradientEdge], x: Tensor | None, cotangents: Sequence[Tensor]
    ) -> tuple[Tensor | None, ...]:
        """Differentiate with respect to x and to the tensors themselves, not to those from which they were made."""
        assert x is not None
        with _silent(self.tensors):
            return self._gradients(roots, (x, *self.tensors), cotangents)

    def _gradients(
        self, roots: Sequence[GradientEdge], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]
    ) -> tuple[Tensor | None, ...]:
        if not self.made_from_each_other:
            return torch.autograd.grad(roots, inputs, cotangents, allow_unused=True)
        captured = [node for node, _ in self._tensors if not _is_leaf(node)]
        # If f depends on a tensor and also on what that was made from, autograd would continue behind the tensor. The
        # gradient would count twice, and a graph outside this solve would be used up. So the node of the tensor passes
        # on nothing, and no graph is freed.
        handles = [node.register_prehook(lambda adj: (None,) * len(adj)) for node in captured]
        try:
            return torch.autograd.grad(roots, inputs, cotangents, allow_unused=True, retain_graph=True)
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def _silent(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Within this context, call no hooks of the user on these tensors and keep their `retain_grad` values.

    They are meant for the gradient of the whole solve, not for that of one evaluation.
    """
    heard = [x for x in tensors if x._backward_hooks or (x.retains_grad and not x.is_leaf)]
    if not heard:
        yield
        return
    before = [(dict(x._backward_hooks or {}), x.grad if x.retains_grad else None) for x in heard]
    for x in heard:
        if x._backward_hooks:
            x._backward_hooks.clear()
    try:
        yield
    finally:
        for x, (hooks, grad) in zip(heard, before, strict=True):
            if hooks:
                x._backward_hooks.update(hooks)  # type: ignore[union-attr]
            if x.retains_grad and not x.is_leaf:
                x.grad = grad


class _Arguments(TorchFunctionMode):
    """Looks for tensors among the arguments of torch's functions, by their edges."""

    def __init__(self, wanted: set[Edge]) -> None:
        super().__init__()
        self.wanted = wanted
        self.tensors: dict[Edge, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for x in tree_leaves((args, kwargs)):
            if isinstance(x, Tensor) and x.grad_fn is not None:
                edge = _edge(x)
                if edge in self.wanted:
                    self.tensors[edge] = x
        return func(*args, **(kwargs or {}))


def _met(root: GradientEdge, start: Node | None, known: dict[Edge, Tensor]) -> list[Edge]:
    """Return the edges from an evaluation's graph to leaves and older nodes that are not known yet."""
    assert start is not None
    first, around = start._sequence_nr(), _AROUND.get()
    met, seen = [], {start}
    ahead: list[tuple[Node | None, int]] = [(root.node, root.output_nr)]
    while ahead:
        node, number = ahead.pop()
        if node is None or node in seen or (node, number) in known:
            continue
        older = node._sequence_nr() < first or any((node, number) in edges for edges in around)
        if _is_leaf(node) or older:
            met.append((node, number))
        else:
            seen.add(node)
            ahead += node.next_functions
    return met


def _show(t: object) -> str:
    single = not isinstance(t, Tensor) or t.numel() == 1
    return f"{float(t.detach() if isinstance(t, Tensor) else t):.6g}" if single else "several times"  # type: ignore[arg-type]


def _is_leaf(node: Node) -> bool:
    return type(node).__name__ == "AccumulateGrad"


def _variable(leaf: Node) -> Tensor:
    """Return the tensor of a leaf's node."""
    variable: Tensor = leaf.variable  # type: ignore[attr-defined]
    return variable


def _edge(tensor: Tensor) -> Edge:
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr
