"""Neural ODEs: models, solvers, gradients and their cost, measured."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralode_exp.load import load_run

__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    """Import `load_run` when it is asked for: it brings torch, which a wrong request need not wait for."""
    if name == "load_run":
        from neuralode_exp.load import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
