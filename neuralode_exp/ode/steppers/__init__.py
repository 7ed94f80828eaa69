"""One step of a method: a class for each kind of method; `ExplicitRungeKutta` serves all tableaus."""

from neuralode_exp.ode.steppers.explicit import ExplicitRungeKutta
from neuralode_exp.ode.steppers.stepper import Cotangents, Dense, Field, Span, Stepper, Trial

__all__ = ["Cotangents", "Dense", "ExplicitRungeKutta", "Field", "Span", "Stepper", "Trial"]
