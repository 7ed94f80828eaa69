"""The commands: `neuralode`, as it is installed, and the scripts of a checkout, which call the same functions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int | str:
    """Run `neuralode` and return its exit status.

    `neuralode report ...` and `neuralode evaluate ...` are the scripts of that name, `neuralode resume FOLDER` is
    `resume=FOLDER`, and anything else is what `train.py` takes.
    """
    first, *rest = (sys.argv[1:] if argv is None else list(argv)) or [""]
    if first == "report":
        from neuralode_exp.commands import report

        return report.main(rest)
    if first == "evaluate":
        from neuralode_exp.commands import evaluate

        return evaluate.main(rest)
    from neuralode_exp.commands import train
    from neuralode_exp.config.compose import quoted

    if first == "resume":
        return train.command_line([f"resume={quoted(word)}" for word in rest[:1]] + rest[1:])
    return train.command_line(sys.argv[1:] if argv is None else list(argv))


def parser(name: str, documentation: str | None) -> argparse.ArgumentParser:
    """Return the parser of a command, whose help is what its module says of itself."""
    description, _, examples = (documentation or "").partition("\n\n")
    return argparse.ArgumentParser(
        prog=f"neuralode {name}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
