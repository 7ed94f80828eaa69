"""A row for each number that a run records: what it means, and where it is shown.

`python -m neuralode_exp.tags` prints the README's table of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuralode_exp.conditions import (
    COUNTED_STEPS,
    CUDA,
    HELD_OUT,
    KNOWN_DENSITY,
    KNOWN_EIGENVALUES,
    KNOWN_FIELD,
    NOT_MPS,
    REVERSIBLE,
    THREE_STEPS,
    Condition,
)

if TYPE_CHECKING:
    from neuralode_exp.config.schema import Config


@dataclass(frozen=True)
class Chart:
    """A chart of TensorBoard's custom scalars, in which several tags are drawn together."""

    category: str
    title: str


LOSS = Chart("loss and error", "loss")
ERROR = Chart("loss and error", "error")
NFE = Chart("function evaluations", "NFE forward & backward")
HELD = Chart("memory", "peak of a training step, and of it saved by autograd (MiB)")
PEAK = Chart("memory", "peak of the device and the process (MiB)")
STEPS = Chart("solver", "steps")
FAILURES = Chart("solver", "failures")


@dataclass(frozen=True)
class Tag:
    """A number that is recorded.

    Args:
        name: the tag, the same in summary.json, metrics.csv and TensorBoard.
        meaning: a few words for the README.
        unit: unit of the value; empty for none.
        less_is_better: whether it may be minimised.
        bar: its short name on the progress bar; None: the bar does not show it.
        final: whether it is repeated as `final/...`, which the table at the end of a run shows.
        title: its heading in a report, with the unit; None: the tag itself.
        column: whether a report shows it by default.
        curve: whether a report draws it over the steps.
        chart: the chart of TensorBoard that draws it together with others.
        cost: whether it can be the objective with any kind of data, because it is recorded during training.
        needs: what a run must have to record it, for tags that can be the objective.
        compared: rank among the tags by which groups of runs are compared; the lowest rank that they have is used.
    """

    name: str
    meaning: str
    unit: str = ""
    less_is_better: bool = True
    bar: str | None = None
    final: bool = False
    title: str | None = None
    column: bool = False
    curve: bool = False
    chart: Chart | None = None
    cost: bool = False
    needs: tuple[Condition, ...] = ()
    compared: int | None = None

    @property
    def heading(self) -> str:
        return self.title or self.name


TAGS: dict[str, Tag] = {}
# Objectives in stored configs: what was density/kl at evaluations is of the test set now.
RENAMED = {"density/kl": "density/validation_kl"}


def add_tag(tag: Tag) -> None:
    """Add the row of a number that is recorded; tables show them in the order in which they were added."""
    TAGS[tag.name] = tag


def tag_of(name: str) -> Tag:
    """Return the row of a tag; a tag without a row gets one with its name alone."""
    return TAGS.get(name) or Tag(name, "")


def on_bar(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the values that a progress bar shows, by their short names."""
    return {tag.bar: metrics[tag.name] for tag in TAGS.values() if tag.bar and tag.name in metrics}


def final_values(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the values that are repeated as `final/...`, with the user's own metrics, which have no row."""
    names = [tag.name for tag in TAGS.values() if tag.final and tag.name in metrics]
    names += [name for name in metrics if name.removesuffix("_std") not in TAGS and not name.startswith("final/")]
    return {f"final/{name}": metrics[name] for name in names}


def costs() -> list[str]:
    """Return the tags that can be the objective with any kind of data, if a run has what they need."""
    return [tag.name for tag in TAGS.values() if tag.cost and tag.less_is_better]


def missing_for(name: str, config: Config) -> list[str]:
    """Return what a run does not have that it needs to record an objective. The user's own metrics have no row."""
    name = RENAMED.get(name, name)
    needs = TAGS[name].needs if name in TAGS else (HELD_OUT,)
    return [condition.words for condition in needs if not condition.holds(config)]


def compared(present: Collection[str]) -> Tag | None:
    """Return the tag by which groups of runs with these tags are compared."""
    ranked = {tag.compared: tag for tag in TAGS.values() if tag.compared is not None and tag.name in present}
    return ranked[min(ranked)] if ranked else None


def charts() -> dict[Chart, list[str]]:
    """Return the tags of each chart of TensorBoard's custom scalars."""
    found: dict[Chart, list[str]] = {}
    for tag in TAGS.values():
        if tag.chart is not None:
            found.setdefault(tag.chart, []).append(tag.name)
    return found


def readme_table() -> str:
    """Return the table of tags in the README."""
    rows = ["| tag | meaning |", "|---|---|"]
    for tag in TAGS.values():
        unit = f" ({tag.unit})" if tag.unit else ""
        rows.append(f"| `{tag.name}` | {tag.meaning}{unit} |")
    return "\n".join(rows)


for _tag in (
    Tag("loss/train", "loss of the training batches since the last record", bar="loss", title="training loss",
        curve=True, chart=LOSS),
    Tag("loss/validation", "loss on held-out data; for densities in the flow's own units", final=True,
        title="validation loss", curve=True, chart=LOSS, needs=(HELD_OUT,)),
    Tag("error/test", "test images that are classified wrongly", "%", bar="error %", final=True, title="test error (%)",
        column=True, chart=ERROR, compared=1),
    Tag("error/validation", "held-out images that are classified wrongly", "%", bar="error %", final=True,
        title="validation error (%)", curve=True, chart=ERROR, needs=(HELD_OUT,)),
    Tag("dynamics/trajectory_error", "norm of z' - z over that of z for each test trajectory, the mean",
        final=True, title="trajectory error", column=True, chart=ERROR, compared=2),
    Tag("dynamics/long_trajectory_error", "the same error over a time `dataset.test_horizon` times as long",
        chart=ERROR),
    Tag("dynamics/field_error", "relative error of f over the noise-free training states", final=True,
        title="field error", column=True, chart=ERROR, needs=(KNOWN_FIELD,)),
    Tag("dynamics/eigenvalue_error",
        "largest error of an eigenvalue of the Jacobian at the fixed point, over the largest eigenvalue", final=True,
        title="eigenvalue error", column=True, chart=ERROR, needs=(KNOWN_EIGENVALUES,)),
    Tag("dynamics/validation_error",
        "error of held-out trajectories: relative, or in standard deviations for a table with `dataset.units=spread`",
        bar="error", final=True, title="validation error", curve=True, chart=ERROR, compared=3, needs=(HELD_OUT,)),
    Tag("dynamics/persistence_error", "tables: the same error of a forecast that stays at the first held-out state",
        bar="persistence", final=True, title="persistence error", chart=ERROR),
    Tag("dynamics/constants_error",
        "largest relative error of the learned constants, each recorded as `constants/NAME`", final=True,
        title="error of the constants", chart=ERROR),
    Tag("dynamics/valid_time", "time until the error in the longer test exceeds 0.4 of the spread, in Lyapunov times",
        less_is_better=False, final=True, title="valid time (Lyapunov times)"),
    Tag("dynamics/energy_drift",
        "largest change of the true energy along a learned trajectory over 100 periods, the mean over trajectories, "
        "relative to the mean energy", final=True,
        title="energy drift", column=True),
    Tag("dynamics/active_replicas", "number of networks that did not diverge", less_is_better=False),
    Tag("least_squares/eigenvalue_error", "eigenvalue error of a linear field fitted by least squares"),
    Tag("least_squares/field_error", "field error of that linear field"),
    Tag("density/nll", "mean negative log-likelihood of the test points, in the data's units", "nat", final=True,
        title="NLL (nat)", column=True, compared=5),
    Tag("density/kl", "KL divergence of the learned density from the true one, over the test points", "nat", final=True,
        title="KL (nat)", column=True, compared=4),
    Tag("density/kl_standard_error", "standard error of `density/kl`", "nat", final=True, title="standard error of KL",
        column=True),
    Tag("density/validation_nll", "mean negative log-likelihood of the held-out points, in the data's units", "nat",
        final=True, title="validation NLL (nat)", chart=ERROR, needs=(HELD_OUT,)),
    Tag("density/validation_kl", "KL divergence of the learned density from the true one, over the held-out points",
        "nat", bar="kl", final=True, title="validation KL (nat)", curve=True, chart=ERROR,
        needs=(HELD_OUT, KNOWN_DENSITY)),
    Tag("density/validation_kl_standard_error", "standard error of `density/validation_kl`", "nat"),
    Tag("regularity/kinetic", "integral of the squared norm of dz/dt over time, the mean over a few held-out solutions",
        title="kinetic"),
    Tag("regularity/jacobian", "the same for v^T df/dz, v a random direction", title="jacobian"),
    Tag("regularity/taylor", "the same for d^2z/dt^2", title="taylor"),
    Tag("density/mass", "integral of the learned density over a box around the data; it should be 1",
        less_is_better=False),
    Tag("density/wasserstein", "2-Wasserstein distance of 1,000 samples to as many test points, in the data's units",
        title="Wasserstein"),
    Tag("density/wasserstein_floor", "the same distance between two sets of test points",
        title="Wasserstein of the data"),
    Tag("density/path_energy",
        "(E - W^2) / W^2, where E is the kinetic energy of the paths from base points to samples and W their "
        "2-Wasserstein distance; 0 for an optimal transport",
        title="path energy"),
    Tag("nfe/sample", "evaluations of the vector field to draw samples with dopri5 at 1e-5", title="NFE sampling"),
    Tag("density/inversion_error", "relative error of samples that are mapped to the base and back"),
    Tag("density/log_prob_error", "largest difference between the log-densities of the two directions", "nat"),
    Tag("parameters", "number of parameters of the model; in summary.json alone", title="parameters", column=True),
    Tag("nfe/forward", "evaluations of the vector field by the solver in a training step's forward pass, without those "
        "that a penalty makes; at the end the mean over the last tenth of the steps, failed ones "
        "included", bar="nfe", final=True, title="NFE forward", column=True, curve=True, chart=NFE, cost=True),
    Tag("nfe/backward", "evaluations of the vector field in its backward pass", final=True, title="NFE backward",
        column=True, curve=True, chart=NFE, cost=True),
    Tag("time/step_ms",
        "time of a training step, without the first and those whose memory is measured; at the end the median", "ms",
        final=True, title="ms per step", column=True, cost=True, needs=(THREE_STEPS,)),
    Tag("time/elapsed_s", "time of training so far", "s", final=True, cost=True),
    Tag("time/field_ms", "time of one evaluation of a flow's field alone", "ms", title="ms f"),
    Tag("time/trace_ms", "time of one evaluation with its trace", "ms", title="ms f + trace"),
    Tag("time/determinant_ms", "time of one evaluation with the log-determinant that a discrete layer needs", "ms",
        title="ms f + log-determinant"),
    Tag("memory/peak_mib", "peak memory of the tensors that a training step makes", "MiB",
        final=True, title="peak MiB of a step", column=True, curve=True, chart=HELD, cost=True, needs=(NOT_MPS,)),
    Tag("memory/saved_mib", "what autograd has saved when backward starts", "MiB", final=True, title="saved MiB",
        column=True, curve=True, chart=HELD, cost=True),
    Tag("memory/autograd_peak_mib", "most bytes that autograd has saved at once; temporaries do not count", "MiB",
        final=True, title="most saved MiB", cost=True),
    Tag("memory/peak_device_mib", "peak memory that torch has allocated on a CUDA device", "MiB", final=True,
        title="peak device MiB", column=True, curve=True, chart=PEAK, cost=True, needs=(CUDA,)),
    Tag("memory/peak_rss_mib", "peak memory of the process; absent where the process ran another cell before", "MiB",
        title="peak RSS MiB", chart=PEAK, cost=True),
    Tag("solver/accepted", "accepted steps of the solver in a training step", chart=STEPS, cost=True,
        needs=(COUNTED_STEPS,)),
    Tag("solver/rejected", "rejected steps of the solver in a training step", chart=STEPS, cost=True,
        needs=(COUNTED_STEPS,)),
    Tag("solver/stored_states", "intermediate states that `model.gradient=reversible` keeps", chart=STEPS, cost=True,
        needs=(COUNTED_STEPS, REVERSIBLE)),
    Tag("solver/reconstruction", "largest relative error of a state that `model.gradient=reversible` reconstructs",
        cost=True, needs=(COUNTED_STEPS, REVERSIBLE)),
    Tag("solver/failures", "number of failed solves in the run", final=True, title="solver failures", chart=FAILURES,
        cost=True),
    Tag("solver/consistency", "relative change of the final state, or of trajectories, under an accurate solve",
        final=True, title="solver consistency"),
    Tag("solver/consistency_error", "change of the test metric under that accurate solve", final=True),
    Tag("seconds", "time of training with its evaluations, over all processes of a run; in summary.json alone", "s",
        title="seconds", column=True),
):  # fmt: skip
    add_tag(_tag)

if __name__ == "__main__":
    print(readme_table())
