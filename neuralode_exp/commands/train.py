"""Train, measure and record one run, or with -m a grid of runs. `python train.py --help` lists all names and keys.

Exit status: 0 done, 1 the run failed, 2 the request is wrong, 130 or 143 interrupted after a checkpoint.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from neuralode_exp.config import ConfigError, plain, validate
from neuralode_exp.config.compose import CONF
from neuralode_exp.config.hydra_internals import VERSION_BASE
from neuralode_exp.config.own import load_extensions
from neuralode_exp.config.preflight import preflight
from neuralode_exp.interruption import StopAtOnce, stop_if_heard
from neuralode_exp.outcome import Interrupted, RunFailed
from neuralode_exp.sweep import STEPS_AFTER, TRIAL
from neuralode_exp.sweep.plugins import register_plugins

# torch's profiler measures the memory of a step. It prints a line at each start and end, and one for every thousand
# tensors that it sees freed but has not seen allocated, which is no mistake here.
QUIET = {"KINETO_LOG_LEVEL": "9", "TORCH_CPP_LOG_LEVEL": "ERROR"}


@hydra.main(**VERSION_BASE, config_path=str(CONF), config_name="config")
def main(config: DictConfig) -> float:
    """Run one job in the folder that Hydra made for it and return its objective."""
    # Imported after the preflight, so that a wrong request need not wait for torch.
    from neuralode_exp.build import device_of_job
    from neuralode_exp.run import keep_freed_memory, run

    keep_freed_memory()
    hydra_config = HydraConfig.get()
    in_grid = hydra_config.mode == RunMode.MULTIRUN
    try:
        values = plain(config)
        load_extensions(values)
        run_config = validate(values)
        if in_grid:
            device = device_of_job(run_config.device, hydra_config.job.num)
            run_config = run_config.model_copy(update={"device": device})
        # The workers of other launchers share the terminal, where a bar would overwrite those of other jobs.
        bar = None if not in_grid or "BasicLauncher" in hydra_config.launcher._target_ else False
        folder = Path(hydra_config.runtime.output_dir)
        sweeper = hydra_config.sweeper
        after = int(os.environ.get(STEPS_AFTER, 0))
        # References stay, so that the stored config follows a dataset that `evaluate` exchanges.
        values = plain(config, resolve=False)
        return run(run_config, folder, values, bar=bar, steps_after=after, prune=_pruning(sweeper, folder))
    except (ConfigError, RunFailed) as error:
        if in_grid:
            raise  # the sweeper records it and goes on with the next job
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


def _pruning(sweeper: DictConfig, folder: Path) -> Callable[[int, float], bool] | None:
    """Return a function that tells whether to stop a trial at an evaluation; None unless the trial may be pruned."""
    if TRIAL not in os.environ or sweeper.pruner == "none":
        return None
    from neuralode_exp.sweep.study import Pruning

    return Pruning(int(os.environ[TRIAL]), sweeper.pruner, folder.parent)


def command_line(argv: Sequence[str] | None = None) -> int | str:
    """Check the request, run it, and return the exit status.

    Args:
        argv: the arguments; None takes those of the process. The checked ones replace those in `sys.argv` for Hydra.
    """
    for name, level in QUIET.items():
        os.environ.setdefault(name, level)  # before torch is imported, here and in the workers of a launcher
    try:
        with StopAtOnce():
            register_plugins()
            request = preflight(sys.argv[1:] if argv is None else list(argv))
            if request.note is not None:
                print(request.note, file=sys.stderr)
            if request.answer is not None:
                print(request.answer)
                return 0
            sys.argv[1:] = request.argv
            main()
            stop_if_heard()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return 128 + interrupted.signal
    return 0
