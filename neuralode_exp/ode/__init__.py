"""The numerical core: solve dz/dt = f(t, z) and differentiate the solution, in torch and nothing of ours."""

from neuralode_exp.ode.errors import MaxStepsExceeded, NonFiniteState, SolverError, StepSizeUnderflow
from neuralode_exp.ode.methods import Adaptive, FixedStep, Method, TorchdiffeqMethod, make_method
from neuralode_exp.ode.solve import Gradient, Solution, solve
from neuralode_exp.ode.stats import Stats
from neuralode_exp.ode.tableaus import TABLEAUS, Tableau

__all__ = [
    "TABLEAUS",
    "Adaptive",
    "FixedStep",
    "Gradient",
    "MaxStepsExceeded",
    "Method",
    "NonFiniteState",
    "Solution",
    "SolverError",
    "Stats",
    "StepSizeUnderflow",
    "Tableau",
    "TorchdiffeqMethod",
    "make_method",
    "solve",
]
