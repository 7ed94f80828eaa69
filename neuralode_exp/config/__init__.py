"""The typed config, the checks of a request, and the identity of a run."""

from neuralode_exp.config.cells import solver_arguments, without_meaning
from neuralode_exp.config.errors import ConfigError, Mistake
from neuralode_exp.config.identity import identity, identity_differences
from neuralode_exp.config.label import folder_name, label, register_resolvers
from neuralode_exp.config.schema import Config
from neuralode_exp.config.validation import stored_config, validate
from neuralode_exp.config.values import flatten, plain

__all__ = [
    "Config",
    "ConfigError",
    "Mistake",
    "flatten",
    "folder_name",
    "identity",
    "identity_differences",
    "label",
    "plain",
    "solver_arguments",
    "stored_config",
    "validate",
    "without_meaning",
]

# A launcher's worker imports only this package before it resolves the name of a run's folder.
register_resolvers()
