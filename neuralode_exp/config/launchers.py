"""Check the settings of Hydra's launchers and sweepers, because their libraries crash on a wrong one."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from neuralode_exp.config.errors import Mistake, spell
from neuralode_exp.config.schema import Count, CountOrZero, Positive, Section
from neuralode_exp.config.validation import check_section


def _not_zero(n: int) -> int:
    if n == 0:
        raise ValueError("must be at least 1, or -1 for as many as there are cores")
    return n


def _number_of_jobs(text: str) -> str:
    if not re.fullmatch(r"all|[1-9]\d*|([1-9]\d* ?\* ?)?n_jobs", text):
        raise ValueError("must be a number of jobs, all, or a multiple such as 2*n_jobs")
    return text


class Joblib(Section):
    """Arguments of `joblib.Parallel`, as Hydra's launcher passes them on."""

    n_jobs: Annotated[int, AfterValidator(_not_zero)]
    batch_size: Count | Literal["auto"]
    pre_dispatch: Annotated[str, BeforeValidator(str), AfterValidator(_number_of_jobs)]
    backend: str | None = None
    prefer: str | None = None
    require: str | None = None
    verbose: CountOrZero = 0
    timeout: Positive | None = None
    temp_folder: str | None = None
    max_nbytes: Any = None
    mmap_mode: str | None = None


class Submitit(Section):
    submitit_folder: str
    name: str
    timeout_min: Count
    cpus_per_task: Count | None = None
    gpus_per_node: CountOrZero | None = None
    tasks_per_node: Count = 1
    mem_gb: Positive | None = None
    nodes: Count = 1
    stderr_to_stdout: bool = False


class Slurm(Submitit):
    max_num_timeout: CountOrZero
    signal_delay_s: CountOrZero
    array_parallelism: Count
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    setup: tuple[str, ...] | None
    additional_parameters: dict[str, Any]
    comment: str | None = None
    exclude: str | None = None
    gres: str | None = None
    cpus_per_gpu: Count | None = None
    gpus_per_task: Count | None = None
    mem_per_gpu: str | None = None
    mem_per_cpu: str | None = None


class RayRemote(Section):
    """Options of `ray.remote`. Further options are allowed."""

    model_config = ConfigDict(extra="allow")

    num_cpus: Annotated[float, Field(ge=0)]
    num_gpus: Annotated[float, Field(ge=0)]
    max_retries: Annotated[int, Field(ge=-1)]


class Grid(Section):
    params: dict[str, Any] | None
    max_batch_size: Count | None
    stop_after: Count | None
    detach: bool


class Search(Section):
    """Settings of a search. Those of its sampler are checked by Optuna."""

    params: dict[str, Any] | None
    sampler: dict[str, Any]
    pruner: Literal["none", "median", "hyperband"]
    n_trials: Count
    n_jobs: Count


# Class that Hydra instantiates -> the section of `hydra` with its settings, and their schema.
SETTINGS: dict[str, tuple[str, type[Section]]] = {
    "JoblibLauncher": ("launcher", Joblib),
    "LocalLauncher": ("launcher", Submitit),
    "SlurmLauncher": ("launcher", Slurm),
    "RayLauncher": ("launcher.ray.remote", RayRemote),
    "GridSweeper": ("sweeper", Grid),
    "OptunaSearch": ("sweeper", Search),
}
# Launchers whose jobs run on other machines, so that checks of this machine say nothing.
ELSEWHERE = ("SlurmLauncher", "RayLauncher")


def class_name(part: DictConfig) -> str:
    """Return the class that Hydra makes from a part of its settings, without its module."""
    return str(part._target_).rpartition(".")[2]


def wrong_settings(hydra: DictConfig, defaults: DictConfig) -> Iterator[Mistake]:
    """Yield the mistakes in the settings of launcher and sweeper.

    Args:
        hydra: Hydra's settings in the request.
        defaults: settings of the same launcher and sweeper without those of the command line.
    """
    for name in ("launcher", "sweeper"):
        part = hydra[name]
        if not isinstance(part, DictConfig) or part._target_ != defaults[name]._target_:
            fix = f"write hydra/{name}=NAME"
            yield Mistake(f"hydra.{name}", "must be a group of keys, and only its file sets the class", fix=fix)
            return
        section, schema = SETTINGS.get(class_name(part), ("", Section))
        if not section:
            continue
        mistakes: list[Mistake] = []
        check_section(f"hydra.{section}", schema, _settings(hydra, section), mistakes)
        for mistake in mistakes:
            default = spell(OmegaConf.select(defaults, mistake.key.removeprefix("hydra.").split("[")[0]))
            yield mistake if mistake.fix else replace(mistake, fix=f"the default is {default}")
    if class_name(hydra.launcher) == "RayLauncher":
        yield from _of_address(hydra.launcher.ray.init.get("address"))
    is_slurm = class_name(hydra.launcher) == "SlurmLauncher"
    detach = hydra.sweeper.get("detach", False)
    if detach and not is_slurm:
        rule, fix = "must be false unless Slurm runs the jobs", "add hydra/launcher=submitit_slurm"
        yield Mistake("hydra.sweeper.detach", rule, spell(detach), fix)
    if detach and hydra.sweeper.stop_after is not None:
        rule, fix = "needs a grid that waits for its jobs", "leave it or hydra.sweeper.detach out"
        yield Mistake("hydra.sweeper.stop_after", rule, spell(hydra.sweeper.stop_after), fix)
    if is_slurm and shutil.which("srun") is None:
        rule, fix = "needs Slurm's commands", "start it on a machine of the cluster, or pick hydra/launcher=joblib"
        yield Mistake("hydra/launcher=submitit_slurm", rule, "no srun on the PATH", fix)


def _of_address(address: object) -> Iterator[Mistake]:
    """Yield why there is no Ray cluster at an address. `auto` is not checked: Ray itself searches for a cluster."""
    key, fix = "hydra.launcher.ray.init.address", "local starts Ray on this machine"
    place = re.fullmatch(r"(ray://)?(?P<host>[^/:]+):(?P<port>\d{1,5})", str(address))
    if place is None and address not in ("local", "auto"):
        yield Mistake(key, "must be local, auto or HOST:PORT", spell(address), fix)
    elif place is not None:
        try:
            socket.create_connection((place["host"], int(place["port"])), timeout=10).close()
        except (OSError, OverflowError) as error:
            yield Mistake(key, "must be a cluster that answers", f"{address} ({str(error).lower()})", fix)


def _settings(hydra: DictConfig, section: str) -> object:
    values = OmegaConf.to_container(OmegaConf.select(hydra, section), resolve=True)
    if not isinstance(values, Mapping):
        return values
    return {key: value for key, value in values.items() if key not in ("_target_", "_recursive_", "_convert_")}
