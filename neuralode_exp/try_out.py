"""Call the user's registered code once on a tiny input, before a run has a folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from neuralode_exp import registry, user_files
from neuralode_exp.config.errors import Mistake
from neuralode_exp.config.options import has_inputs, known_of, number_of_inputs
from neuralode_exp.config.readable import dimension
from neuralode_exp.config.schema import Config, DensityKeys, SystemKeys
from neuralode_exp.models.fields.traced import Traced
from neuralode_exp.models.replicas import Replicas, stack
from neuralode_exp.registry import Registered
from neuralode_exp.trainers.settings import registered_data

ROWS = 3
SIDES = (6, 6)  # size of the features of an image of 28 x 28
TIMES = (0.37, 1.9, 7.3, 41.0)  # at which f must be as at t = 0
Result = TypeVar("Result")


class Wrong(Exception):
    """Registered code does not behave as it must."""

    def __init__(self, mistake: Mistake) -> None:
        self.mistake = mistake


def try_out(config: Config) -> Mistake | None:
    """Return what is wrong with the registered field, system or density of a config; None if they work."""
    with torch.random.fork_rng(devices=[]):
        try:
            dim = config.model.channels + config.model.augment if config.dataset.kind == "images" else _of_data(config)
            if config.model.field == "hybrid" and dim is not None:
                _of_hybrid(config, dim)
            field = user_files.find("field", config.model.field, config.extensions)
            if field is not None and field not in registry.of_package("field") and dim is not None:
                _of_field(field, config, dim)
        except Wrong as wrong:
            return wrong.mistake
    return None


def _of_data(config: Config) -> int | None:
    """Check the user's registered system or density, and return its dimension."""
    dataset = config.dataset
    if isinstance(dataset, SystemKeys):
        return _of_system(config)
    if isinstance(dataset, DensityKeys):
        return _of_density(config)
    return dimension(config)


def _of_system(config: Config) -> int:
    entry, options = registered_data(config)
    dim = _call("dataset.system", entry, lambda: entry.setting("dim", options))
    if not isinstance(dim, int) or dim < 1:
        raise Wrong(Mistake("dataset.system", "must have dim, a whole number above 0", repr(dim), f"see {entry.place}"))
    z = torch.full((ROWS, dim), 0.1, dtype=torch.float64)
    t = torch.zeros((), dtype=torch.float64)
    u = [torch.full((ROWS, len(entry.settings["inputs"])), 0.1, dtype=torch.float64)] if entry.driven else []
    dz = _call("dataset.system", entry, lambda: entry.make(t, z, *u, **options))
    _must_be("dataset.system", entry, "dz/dt of the shape of z", dz, tuple(z.shape))
    _must_have_dtype("dataset.system", entry, dz, z.dtype)
    _must_not_depend_on_time("dataset.system", entry, config, lambda t, z: entry.make(t, z, *u, **options), z)
    if entry.settings["energy"] is not None:
        energy = _call("dataset.system", entry, lambda: entry.setting("energy", options)(z))
        _must_be("dataset.system", entry, "one number for each state by its energy", energy, (ROWS,))
    return dim


def _of_hybrid(config: Config, dim: int) -> None:
    entry = known_of(config.model, config.dataset, config.extensions)
    assert entry is not None  # by validation
    needs = entry.setting("dim", config.model.options)
    if needs != dim:
        rule = f"must be a system of {dim} dimensions, as the data"
        raise Wrong(Mistake("model.system", rule, f"{entry.name} of {needs}", "choose another"))
    if entry.driven and not has_inputs(config):
        raise Wrong(
            Mistake("model.system", "must have its inputs in the data", entry.name, "name them: dataset.inputs")
        )
    if entry not in registry.of_package("system"):  # those have no t
        z, inputs = torch.full((ROWS, dim), 0.1), number_of_inputs(config)
        u = [torch.full((ROWS, inputs), 0.1)] if entry.driven else []
        key, f = "model.system", lambda t, z: entry.make(t, z, *u, **config.model.options)
        dz = _call(key, entry, lambda: f(z.new_zeros(()), z))
        _must_be(key, entry, "dz/dt of the shape of z", dz, tuple(z.shape))
        _must_not_depend_on_time(key, entry, config, f, z)


def _of_density(config: Config) -> int:
    entry, options = registered_data(config)
    density = _call("dataset.density", entry, lambda: entry.make(**options))
    x = _call("dataset.density", entry, lambda: density.sample(ROWS, torch.Generator().manual_seed(0)))
    d = x.shape[1] if isinstance(x, Tensor) and x.dim() == 2 else 1
    _must_be("dataset.density", entry, "points (n, d) by sample(n, generator)", x, (ROWS, d))
    if hasattr(density, "log_prob"):
        log_p = _call("dataset.density", entry, lambda: density.log_prob(x.double()))
        _must_be("dataset.density", entry, "one number for each point by log_prob(x)", log_p, (ROWS,))
    return d


def _of_field(entry: Registered, config: Config, dim: int) -> None:
    key, n = "model.field", config.trainer.replicas
    inputs = number_of_inputs(config)
    given = [dim, inputs] if entry.driven else [dim]
    fields = [_call(key, entry, lambda: entry.make(*given, **config.model.options)) for _ in range(min(n, 2))]
    if not isinstance(fields[0], nn.Module):
        raise Wrong(Mistake(key, "must be an nn.Module", f"{entry.name} ({entry.place})", "derive the class from it"))
    t, z = torch.zeros(()), torch.full((ROWS, dim, *SIDES) if config.dataset.kind == "images" else (ROWS, dim), 0.1)
    u = [torch.full((ROWS, inputs), 0.1)] if entry.driven and inputs else []
    before = torch.get_rng_state()
    dz = _call(key, entry, lambda: fields[0](t, z, *u))
    _must_be(key, entry, "dz/dt of the shape of z", dz, tuple(z.shape))
    _must_have_dtype(key, entry, dz, z.dtype)
    if not dz.isfinite().all():
        raise Wrong(Mistake(key, "must give finite dz/dt in a trial", f"{entry.name} ({entry.place})", "correct it"))
    _must_not_depend_on_time(key, entry, config, lambda t, z: fields[0](t, z, *u), z)
    adjoint = config.solves_ode and config.model.gradient == "adjoint"
    if adjoint and not torch.equal(before, torch.get_rng_state()):  # for example, Dropout
        rule = "must not be adjoint with a field that draws random numbers, as its equation changes with them"
        raise Wrong(Mistake("model.gradient", rule, f"{entry.name} ({entry.place})", "use model.gradient=checkpoint"))
    if config.dataset.kind == "densities":
        _must_have_tangents(entry, fields[0], t, torch.randn(ROWS, dim))
    if n == 1:
        return
    try:
        stack(fields, Replicas(2))(t, *(x.expand(2, *x.shape) for x in (z, *u)))
    except Exception as error:  # of torch.func, or of the user's code under it
        rule = f"must be 1, as model.field={entry.name} cannot be stacked by torch.func"
        why = str(error).strip().split("\n")[0]
        raise Wrong(Mistake("trainer.replicas", rule, f"{n}: {why}", "use -m seed=0,1,2")) from error


def _must_have_tangents(entry: Registered, field: nn.Module, t: Tensor, z: Tensor) -> None:
    """Compare a Jacobian product with finite differences: a field that detaches z would give 0 without an error."""
    key, v, h = "model.field", torch.randn(z.shape), 1e-2
    _, [product] = _call(key, entry, lambda: Traced(field).with_products(t, z, v[None]))
    with torch.no_grad():
        differences = (field(t, z + h * v) - field(t, z - h * v)) / (2 * h)
    off = float((product.detach() - differences).norm() / differences.norm().clamp(min=1e-3))
    if not off < 0.1:  # rounding in float32 and curvature are far below this
        rule = "must have forward-mode derivatives for the trace of a density"
        got = f"one that is {off:.0%} off the field's differences"
        raise Wrong(Mistake(key, rule, got, f"do not detach z in {entry.name} ({entry.place})"))


def _must_not_depend_on_time(
    key: str, entry: Registered, config: Config, f: Callable[[Tensor, Tensor], Tensor], z: Tensor
) -> None:
    """Refuse a dependence on t where training has the time since a window began, scaled by its duration, or no time.

    Over whole trajectories t is the time of the data.
    """
    whole = config.trainer.shooting == "single" and config.solves_ode
    if config.dataset.kind != "dynamics" or whole:
        return
    z = z + torch.linspace(0, 0.9, z.numel(), dtype=z.dtype).view(z.shape)  # a term may vanish at one state

    def at(t: float) -> Tensor:
        with torch.random.fork_rng(devices=[]):  # the same random numbers at each time
            dz: Tensor = _call(key, entry, lambda: f(z.new_tensor(t), z))
        return dz.detach().nan_to_num()

    first = at(0.0)
    if torch.equal(at(0.0), first) and not all(torch.equal(at(t), first) for t in TIMES):
        rule = "must not depend on t on dynamics, which are learned from windows without their times"
        fix = "put the dependence into an input u (dataset.inputs), or add the time as a state"
        raise Wrong(Mistake(key, rule, f"{entry.name} ({entry.place})", fix))


def _call(key: str, entry: Registered, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # any error of the user's code is shown to the user
        where = user_files.failing_line(error, entry.file)
        rule = "must work on a tiny input"
        raise Wrong(Mistake(key, rule, where, f"{entry.name} is in {entry.place}")) from error


def _must_be(key: str, entry: Registered, what: str, got: object, shape: tuple[int, ...]) -> None:
    found = str(tuple(got.shape)) if isinstance(got, Tensor) else type(got).__name__
    if not isinstance(got, Tensor) or got.shape != shape:
        rule = f"must give {what}, {shape} in a trial"
        raise Wrong(Mistake(key, rule, found, f"correct {entry.name} in {entry.place}"))


def _must_have_dtype(key: str, entry: Registered, got: Tensor, dtype: torch.dtype) -> None:
    if got.dtype != dtype:
        rule, found = f"must give dz/dt of the dtype of z, {_name(dtype)} in a trial", _name(got.dtype)
        raise Wrong(Mistake(key, rule, found, f"correct {entry.name} in {entry.place}"))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
