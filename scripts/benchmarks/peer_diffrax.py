"""A peer of `benchmark.py dynamics`: the same training as this project's, in JAX, equinox, diffrax and optax.

    python peer_diffrax.py PROBLEM.npz METRICS.csv

Segments, units, estimated states and loss are those of `trainers/dynamics/shooting.py`, read from the file. The network
is equinox's MLP of the same sizes, and the optimiser is Adam with the same rates and clipping. A batch is one
`diffeqsolve` with Dopri5 at the same tolerances and first step. Its states share one step size as in this project,
which is faster here than a `vmap` over states with their own steps. The gradient is diffrax's default. A whole training
step, with the drawing of its batch, is one jitted function. The process stops at the end of the schedule.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

Problem = dict[str, Any]  # the arrays of PROBLEM.npz by name; numbers are Python's


class Learned(eqx.Module):
    """The field's network, and the estimated states' distance from the observations."""

    net: eqx.nn.MLP
    e: jax.Array


def read(path: Path) -> Problem:
    with np.load(path) as arrays:
        return {name: array.item() if array.ndim == 0 else array for name, array in arrays.items()}


def make_field(problem: Problem) -> Callable[[eqx.nn.MLP, jax.Array], jax.Array]:
    centre, scale, rate = (problem[name] for name in ("centre", "scale", "rate"))
    return lambda net, z: jax.vmap(net)((z - centre) / scale) * rate


def make_loss(problem: Problem) -> Callable[[Learned, jax.Array], jax.Array]:
    z, sigma, start, end, duration = (jnp.asarray(problem[n]) for n in ("z", "sigma", "start", "end", "duration"))
    field = make_field(problem)
    controller = diffrax.PIDController(rtol=problem["rtol"], atol=problem["atol"])
    first_step = problem.get("first_step")

    def advance(net: eqx.nn.MLP, z0: jax.Array, durations: jax.Array) -> jax.Array:
        longest = durations.max()
        term = diffrax.ODETerm(lambda t, z, net: durations / longest * field(net, z))
        dt0 = None if first_step is None else jnp.minimum(first_step, longest)
        solution = diffrax.diffeqsolve(
            term, diffrax.Dopri5(), 0.0, longest, dt0, z0, net, stepsize_controller=controller
        )
        return solution.ys[-1]

    def loss(learned: Learned, segments: jax.Array) -> jax.Array:
        i, j = start[segments], end[segments]
        e_start, e_end = learned.e[i], learned.e[j]
        led_on = advance(learned.net, z[i] + sigma[i] * e_start, duration[segments])
        miss = (led_on - z[j]) / sigma[j] - e_end
        return (e_start**2 + e_end**2 + miss**2).mean()

    return loss


def make_optimizer(problem: Problem) -> optax.GradientTransformation:
    """One cycle: from lr / rise linearly to lr in `rise` steps, then down to 0 as a cosine."""
    rise = round(problem["rise"] * problem["steps"])
    rate = optax.warmup_cosine_decay_schedule(problem["lr"] / rise, problem["lr"], rise, problem["steps"])
    return optax.chain(optax.clip_by_global_norm(problem["clip"]), optax.adam(rate))


def main(path: Path, metrics: Path, seed: int) -> None:
    problem = read(path)
    loss, field, optimizer = make_loss(problem), make_field(problem), make_optimizer(problem)
    states, true = (jnp.asarray(problem[name], jnp.float32) for name in ("states", "field"))
    key, drawing = jax.random.split(jax.random.key(seed))
    net = eqx.nn.MLP(states.shape[1], states.shape[1], problem["width"], problem["depth"], jax.nn.silu, key=key)
    learned = Learned(net, jnp.zeros_like(problem["z"]))
    moments = optimizer.init(eqx.filter(learned, eqx.is_array))
    chances = jnp.asarray(problem["chances"])

    @eqx.filter_jit
    def train_step(learned: Learned, moments: Any, step: jax.Array) -> tuple[Learned, Any]:
        key = jax.random.fold_in(drawing, step)
        segments = jax.random.choice(key, len(chances), (problem["batch_size"],), p=chances)
        gradient = eqx.filter_grad(loss)(learned, segments)
        updates, moments = optimizer.update(gradient, moments)
        return eqx.apply_updates(learned, updates), moments

    @eqx.filter_jit
    def field_error(net: eqx.nn.MLP) -> jax.Array:
        return jnp.linalg.norm(field(net, states) - true) / jnp.linalg.norm(true)

    with open(metrics, "w", buffering=1) as file:
        file.write("step,tag,value\n")
        for step in range(1, problem["steps"] + 1):
            learned, moments = train_step(learned, moments, np.int32(step))
            if step % problem["evaluate_every"] == 0:
                file.write(f"{step},dynamics/field_error,{float(field_error(learned.net))!r}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
