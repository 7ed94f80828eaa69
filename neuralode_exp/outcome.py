"""The ways in which a run can end without success; the command line turns them into its exit status."""

import sys
from pathlib import Path


def command() -> str:
    """Return what the user types before the arguments: the installed command, or the script of a checkout."""
    return "neuralode" if Path(sys.argv[0]).stem == "neuralode" else "python train.py"


class RunFailed(Exception):
    """The run failed. The message is one line for the user; the traceback is already in the log of the run."""


class Interrupted(KeyboardInterrupt):
    """A signal stopped the program: training after a checkpoint, all else at once. It ends a grid too, as Ctrl-C does.

    Args:
        message: the command that goes on.
        signal: number of the signal.
    """

    def __init__(self, message: str, signal: int) -> None:
        self.signal = signal
        super().__init__(message, signal)

    def __str__(self) -> str:
        return str(self.args[0])
