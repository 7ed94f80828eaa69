"""The precision and the device of a model, by its weights."""

import itertools

from torch import Tensor, nn


def first_weight(module: nn.Module) -> Tensor | None:
    """Return the first parameter, or without parameters the first floating buffer, or None if there is neither."""
    found = itertools.chain(module.parameters(), module.buffers())
    return next((x for x in found if x.is_floating_point()), None)
