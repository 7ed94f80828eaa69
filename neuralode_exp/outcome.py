"""How a run can end other than well, in terms that the command line turns into its exit status."""


class RunFailed(Exception):
    """The run failed: one line for the user. The traceback stands in the run's log already."""


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run after it wrote a checkpoint. It ends a grid too, as Ctrl-C does.

    Args:
        message: how to go on.
        signal: number of the signal.
    """

    def __init__(self, message: str, signal: int) -> None:
        self.signal = signal
        super().__init__(message, signal)

    def __str__(self) -> str:
        return str(self.args[0])
