"""What YAML may say: the typed config, the cells that have a meaning, and the identity of a run."""

from neuralode_exp.config.cells import solver_arguments, without_meaning
from neuralode_exp.config.errors import ConfigError, Mistake
from neuralode_exp.config.identity import identity, identity_differences, register_resolver
from neuralode_exp.config.schema import Config
from neuralode_exp.config.validation import flatten, plain, stored_config, validate

__all__ = [
    "Config",
    "ConfigError",
    "Mistake",
    "flatten",
    "identity",
    "identity_differences",
    "plain",
    "solver_arguments",
    "stored_config",
    "validate",
    "without_meaning",
]

# Workers of a launcher import this package before they resolve hydra.sweep.subdir, and nothing else of ours.
register_resolver()
