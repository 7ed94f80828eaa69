"""The chaotic systems of dysts (Gilpin 2021, arXiv 2110.05266), under the names `dysts/NAME`.

States are in standard deviations of the attractor about its mean, and times in periods, as dysts has measured them.
Hence one learning rate, one window and one noise suit all systems. Their options are the parameters of dysts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from inspect import Parameter, Signature, signature
from pathlib import Path
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

from neuralode_exp.extend import system
from neuralode_exp.registry import add_source, of_package

PREFIX = "dysts/"
PERIODS = 2.0  # length of a trajectory
LEFT_OUT = "MacArthur"  # a matrix of each state, which the translation of its code to batches does not cover


@cache
def facts() -> dict[str, dict[str, Any]]:
    """Return the data of dysts on its autonomous systems without delay, or nothing if dysts is not installed."""
    spec = find_spec("dysts")
    if spec is None or spec.origin is None:
        return {}
    known = json.loads((Path(spec.origin).parent / "data" / "chaotic_attractors.json").read_text())
    return {
        PREFIX + name: x
        for name, x in known.items()
        if not (x["delay"] or x["nonautonomous"]) and x.get("std") and x.get("period") and name != LEFT_OUT
    }


def register(name: str) -> None:
    """Register a system of dysts if it is not yet registered. A name that dysts does not have is ignored."""
    if name not in facts() or any(entry.name == name for entry in of_package("system")):
        return
    known = facts()[name]
    lists = {key: value for key, value in known["parameters"].items() if isinstance(value, list)}

    def f(t: Any, z: Any, **numbers: Any) -> Any:
        import torch

        centre, size = (z.new_tensor(known[key]) for key in ("mean", "std"))
        state = (centre + size * z).reshape(-1, z.shape[-1]).T
        of_lists = {key: z.new_tensor(x).view(len(x), -1) for key, x in lists.items()}
        values = _right_hand_side(name, state, known["period"] * t, {**numbers, **of_lists})
        dz = torch.stack([torch.as_tensor(x, dtype=z.dtype, device=z.device).expand(state.shape[1:]) for x in values])
        return known["period"] * dz.T.reshape(z.shape) / size

    given = [Parameter(key, Parameter.POSITIONAL_OR_KEYWORD) for key in ("t", "z")]
    numbers = {key: value for key, value in known["parameters"].items() if key not in lists}
    options = [Parameter(key, Parameter.KEYWORD_ONLY, default=value) for key, value in numbers.items()]
    f.__signature__ = Signature([*given, *options])  # type: ignore[attr-defined]
    f.__doc__ = known["description"]

    def exponent(**given: Any) -> float | None:
        at_defaults = all(given[key] == value for key, value in numbers.items())
        return known["maximum_lyapunov_estimated"] * known["period"] if at_defaults else None

    exponent.__signature__ = Signature([option.replace(default=Parameter.empty) for option in options])  # type: ignore[attr-defined]
    at = zip(known["initial_conditions"], known["mean"], known["std"], strict=True)
    system(
        name,
        dim=known["embedding_dimension"],
        t_max=PERIODS,
        start=[(x - mean) / std for x, mean, std in at],
        lyapunov=exponent,
    )(f)


def _right_hand_side(name: str, state: Any, t: Any, parameters: Mapping[str, Any]) -> Any:
    """Evaluate dz/dt of a system of dysts, with a state of shape (d, n) and given parameters.

    Most systems have a static function `_rhs` of numbers. The others have a method `rhs` of an object with parameters.
    """
    functions = _functions(name.removeprefix(PREFIX))
    if "rhs" not in functions:
        return functions["_rhs"](*state, t, **parameters)
    model = SimpleNamespace(**parameters)
    for key, function in functions.items():
        is_method = next(iter(signature(function).parameters), "") == "self"
        setattr(model, key, MethodType(function, model) if is_method else function)
    return model.rhs(state, t)


@cache
def _functions(name: str) -> dict[str, FunctionType]:
    """Return the functions of a class of dysts, adapted to tensors. They consist of arithmetic and calls of NumPy."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about numba, which is not needed
        from dysts import flows

    found: dict[str, FunctionType] = {}
    for base in reversed(getattr(flows, name).__mro__):
        for key, value in vars(base).items() if base.__module__ == flows.__name__ else ():
            function = getattr(value, "__func__", value)  # unwraps a static method
            function = getattr(function, "py_func", function)  # numba compiles only for numbers
            if isinstance(function, FunctionType):
                numpy = _NumPy()
                of_tensors = {"np": numpy, "max": numpy.maximum, "min": numpy.minimum}
                found[key] = FunctionType(function.__code__, {**function.__globals__, **of_tensors}, key)
    return found


class _NumPy:
    """Calls NumPy's functions for numbers, and torch's functions of the same name for tensors."""

    def __getattr__(self, name: str) -> Any:
        import numpy as np
        import torch

        of_numbers: Any = getattr(np, name)
        of_tensors: Any = getattr(torch, name, None)
        if name == "dot":  # a product of vectors, whose components are rows here
            of_tensors = lambda a, b: (a * b).sum(0)  # noqa: E731
        if not callable(of_numbers):
            return of_numbers

        def call(*values: Any) -> Any:
            like = next((x for x in values if isinstance(x, torch.Tensor)), None)
            return of_numbers(*values) if like is None else of_tensors(*(torch.as_tensor(x).to(like) for x in values))

        return call


add_source(PREFIX, register)
