"""The command `neuralode` of an installation; the scripts of a checkout call the same functions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int | str:
    """Run `neuralode` and return its exit status.

    `neuralode report ...` and `neuralode evaluate ...` do what the scripts of that name do. `neuralode resume FOLDER`
    stands for `resume=FOLDER`. All other arguments are those of `train.py`.
    """
    first, *rest = (sys.argv[1:] if argv is None else list(argv)) or [""]
    if first == "report":
        from neuralode_exp.commands import report

        return report.main(rest)
    if first == "evaluate":
        from neuralode_exp.commands import evaluate

        return evaluate.main(rest)
    from neuralode_exp.commands import train
    from neuralode_exp.config.errors import quoted

    if first == "resume":
        if not rest:
            print("resume must name the folder of a run; write neuralode resume FOLDER", file=sys.stderr)
            return 2
        return train.command_line([f"resume={quoted(rest[0])}", *rest[1:]])
    return train.command_line(sys.argv[1:] if argv is None else list(argv))


def require_writable(folder: Path) -> None:
    """Check the folder to which a command writes, before it does anything else.

    Raises:
        ConfigError: it is a file, or cannot be written.
    """
    from neuralode_exp.config.errors import ConfigError
    from neuralode_exp.config.folders import wrong_folder

    if mistake := wrong_folder("--out", str(folder)):
        raise ConfigError([mistake])


def parser(name: str, documentation: str | None) -> argparse.ArgumentParser:
    """Return the parser of a command; its help text is the docstring of the command's module."""
    description, _, examples = (documentation or "").partition("\n\n")
    return argparse.ArgumentParser(
        prog=f"neuralode {name}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
