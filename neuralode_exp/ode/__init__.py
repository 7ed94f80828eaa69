"""The numerical core solves dz/dt = f(t, z) and differentiates the solution. It imports none of our other folders.

Names are imported at their first use, so that the table of solvers can be read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralode_exp.ode.errors import MaxStepsExceeded as MaxStepsExceeded
    from neuralode_exp.ode.errors import NonFiniteState as NonFiniteState
    from neuralode_exp.ode.errors import SolverError as SolverError
    from neuralode_exp.ode.errors import StatesApart as StatesApart
    from neuralode_exp.ode.errors import StepSizeUnderflow as StepSizeUnderflow
    from neuralode_exp.ode.gradients import GRADIENTS as GRADIENTS
    from neuralode_exp.ode.gradients import Reversible as Reversible
    from neuralode_exp.ode.methods import Adaptive as Adaptive
    from neuralode_exp.ode.methods import FixedStep as FixedStep
    from neuralode_exp.ode.methods import Method as Method
    from neuralode_exp.ode.methods import TorchdiffeqMethod as TorchdiffeqMethod
    from neuralode_exp.ode.methods import make_method as make_method
    from neuralode_exp.ode.solution import Gradient as Gradient
    from neuralode_exp.ode.solution import Solution as Solution
    from neuralode_exp.ode.solution import solve as solve
    from neuralode_exp.ode.solvers import SOLVERS as SOLVERS
    from neuralode_exp.ode.solvers import Solver as Solver
    from neuralode_exp.ode.stats import Stats as Stats
    from neuralode_exp.ode.steppers import ExplicitRungeKutta as ExplicitRungeKutta
    from neuralode_exp.ode.steppers import Span as Span
    from neuralode_exp.ode.steppers import Stepper as Stepper
    from neuralode_exp.ode.steppers import Trial as Trial
    from neuralode_exp.ode.tableau import Tableau as Tableau
    from neuralode_exp.ode.tableaus import TABLEAUS as TABLEAUS

_HOME = {
    "errors": ("MaxStepsExceeded", "NonFiniteState", "SolverError", "StatesApart", "StepSizeUnderflow"),
    "gradients": ("GRADIENTS", "Reversible"),
    "methods": ("Adaptive", "FixedStep", "Method", "TorchdiffeqMethod", "make_method"),
    "solution": ("Gradient", "Solution", "solve"),
    "solvers": ("SOLVERS", "Solver"),
    "stats": ("Stats",),
    "steppers": ("ExplicitRungeKutta", "Span", "Stepper", "Trial"),
    "tableau": ("Tableau",),
    "tableaus": ("TABLEAUS",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            value = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
