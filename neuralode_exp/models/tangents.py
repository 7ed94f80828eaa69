"""Derivatives of a field along a direction, by forward mode."""

from collections.abc import Callable, Sequence

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor


def push_forward(
    f: Callable[..., Tensor], points: Sequence[Tensor], tangents: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Evaluate f at points x_i, and its derivative sum_i (df/dx_i) v_i along the tangents v_i.

    f may call `torch.autograd.grad` itself, as the gradient of a potential does. Such an f may detach a point that has
    no graph, which loses the tangent without a word, so within f the points have one.

    Args:
        f: called with a tensor for each point.
        points: the x_i.
        tangents: the v_i, each of the shape of its point.

    Returns:
        f and its derivative. They have a graph if autograd is on.

    Raises:
        ValueError: f depends on a point, and yet its result has no tangent.
    """
    asked, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    # A solve also evaluates a field inside an autograd.Function, where tangents are switched off. (torch.func.jvp
    # would switch them on, but the tensors that it saves for backward have no storage that could be measured.)
    with torch.set_grad_enabled(not inference), fwAD.dual_level(), fwAD._set_fwd_grad_enabled(True):
        # Points that have a graph are left alone: a leaf beside them would look like something that f depends on.
        bare = not inference and not (asked and any(x.requires_grad for x in points))
        leaves = [x.detach().requires_grad_() if bare else x for x in points]
        value, tangent = fwAD.unpack_dual(f(*map(fwAD.make_dual, leaves, tangents)))
        if tangent is None and _depends(value, leaves):
            raise ValueError(
                "a field must pass on the derivatives of its state in forward mode, got one that detaches it; compute "
                "with its z as it is given"
            )
    tangent = torch.zeros_like(value) if tangent is None else tangent
    return (value, tangent) if asked else (value.detach(), tangent.detach())


def _depends(value: Tensor, points: Sequence[Tensor]) -> bool:
    """Return whether autograd finds a way from a value to one of the points."""
    if not value.requires_grad:
        return False
    found = torch.autograd.grad(
        value.sum(), [x for x in points if x.requires_grad], allow_unused=True, retain_graph=True
    )
    return any(x is not None for x in found)
