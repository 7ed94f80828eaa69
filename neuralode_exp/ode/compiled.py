"""Compiled steps: `torch.compile` makes one program of all that a step computes. Python still chooses the steps.

On small states most of the time goes into calls, not arithmetic. A step of dopri5 makes more than a hundred calls of
torch; its program is one call. The program takes times, step size and tolerances as tensors, so that it serves every
step size. Each shape of the state needs a program of its own. In the adjoint, in reversible steps and at the start of
a step that carries nothing over, f alone is compiled instead of the step. Two evaluations of each solve are never
compiled: the first finds what f depends on, and the second chooses the first step size.

A program belongs to the module f, or to the code of the function f. Its results equal those of uncompiled steps up to
round-off. A step that cannot be compiled runs uncompiled, and a warning gives the reason. Steps also run uncompiled
while a dispatch mode of torch watches every operation, as a memory probe does. The gradient of compiled steps can be
differentiated once in every mode.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from functools import cached_property
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from neuralode_exp.ode.control import Norm, error_ratio
from neuralode_exp.ode.field import How, Stage, Terms, Time, VectorField
from neuralode_exp.ode.methods import Adaptive, FixedStep
from neuralode_exp.ode.steppers import Cotangents, Dense, Field, Span, Stepper, Trial

# At most so many programs for one shape of the state. More are needed only if f changes at each call, as by a counter.
MOST = 4


class CompilationWarning(UserWarning):
    """Steps that should be compiled run uncompiled."""


def warn_uncompiled(reason: str) -> None:
    warnings.warn(f"steps run uncompiled: {reason}", CompilationWarning, stacklevel=3)


class Compiler:
    """The programs of one f.

    Args:
        f: the user's vector field, a module or a function.
        backend: name of a backend of `torch.compile`; True takes its default, inductor.
    """

    def __init__(self, f: object, backend: bool | str) -> None:
        owner = f if isinstance(f, nn.Module) else getattr(f, "__code__", type(f))
        self._programs = _PROGRAMS.setdefault(owner, {})
        self.backend = backend if isinstance(backend, str) else "inductor"

    def step(self, f: VectorField, kind: Hashable, arguments: tuple[Any, ...], z: Tensor) -> tuple[Trial, int] | None:
        """Return a trial step and its number of evaluations of f, or None if it cannot be compiled."""
        result: tuple[Trial, int] | None = self._run(_step, kind, f, z, *arguments, z)
        return result

    def evaluate(self, f: VectorField, t: Tensor, z: Tensor) -> Tensor | None:
        """Return f(t, z), or None if f cannot be compiled."""
        dz: Tensor | None = self._run(_evaluate, (), f, z, t, z)
        return dz

    @property
    def failed(self) -> bool:
        """Whether the compilation of any program of this f has failed."""
        return any(program.failure for program in self._programs.values())

    def _run(self, function: Callable[..., Any], kind: Hashable, f: VectorField, z: Tensor, *arguments: Any) -> Any:
        if torch._C._len_torch_dispatch_stack() > 0:  # a memory probe must see every operation
            return None
        graph = torch.is_grad_enabled()
        key = (function, kind, self.backend, z.shape, z.stride(), z.dtype, z.device, graph, graph and z.requires_grad)
        program = self._programs.get(key)
        if program is None:
            program = self._programs[key] = _Program(function, self.backend)
        if program.failure:
            return None
        result = program(f.f, f.how, *arguments)
        # Warn once for each f: its programs share the reason.
        if result is None and [p for p in self._programs.values() if p.failure] == [program]:
            warn_uncompiled(program.failure)
        return result


_PROGRAMS: WeakKeyDictionary[Any, dict[Any, _Program]] = WeakKeyDictionary()


def forget_programs() -> None:
    """Drop all compiled programs, so that the next run does not depend on earlier runs in this process."""
    _PROGRAMS.clear()


class _Program:
    """A function that is compiled at its first call. A call returns None if the compilation fails.

    Attributes:
        count: how often it was compiled.
        failure: why the compilation failed; empty if it did not.
    """

    def __init__(self, function: Callable[..., Any], backend: str) -> None:
        # The copy has its own code object: torch.compile keeps programs, and limits them, for each code object.
        assert isinstance(function, FunctionType)
        own = FunctionType(function.__code__.replace(), function.__globals__)
        self.backend, self.count, self.autograd = backend, 0, False
        self.failure = ""
        self.compiled = torch.compile(own, fullgraph=True, dynamic=False, backend=self._compile)
        self.known = torch._dynamo.run(own)  # calls the compiled program with less overhead

    def __call__(self, *arguments: Any) -> Any:
        if self.count > 0 and (result := self.known(*arguments)) is not None:
            return result
        try:
            # With this setting f may call autograd itself, if this version of torch supports it.
            with torch._dynamo.config.patch(trace_autograd_ops=True) if self.autograd else nullcontext():
                return self.compiled(*arguments)
        except torch._dynamo.exc.TorchDynamoException as error:
            if "trace_autograd_ops" in str(error) and not self.autograd:
                self.autograd = True
                return self(*arguments)
            self.failure = _reason(error)
            return None

    def _compile(self, graph: Any, inputs: Any) -> Any:
        self.count += 1
        if self.count > MOST:
            raise RuntimeError("f compiles anew at each call; it must not change numbers of its own, as a counter does")
        if self.backend == "inductor":
            return inductor(graph, inputs)
        return torch._dynamo.lookup_backend(self.backend)(graph, inputs)


def inductor(graph: Any, inputs: Any) -> Any:
    """Compile with torch's default backend, and teach it the zero tensors of forward-mode derivatives.

    Such a zero tensor has no memory, which the C++ code of the backend needs.
    """
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.decomposition import select_decomp_table

    # The row is added to torch's own table: with another table torch would not cache the program on disk.
    select_decomp_table().setdefault(torch.ops.aten._efficientzerotensor.default, _zeros)
    return compile_fx(graph, inputs)


def _zeros(size: Sequence[int], *, dtype: Any = None, device: Any = None, **_: object) -> Tensor:
    return torch.zeros(size, dtype=dtype, device=device)


def _reason(error: Exception) -> str:
    """Return the operation that cannot be compiled and, if it is known, its line."""
    # An exception of a backend is in the attribute `inner_exception`, any other one in `__cause__`.
    cause = getattr(error, "inner_exception", None) or error.__cause__
    cause = cause if isinstance(cause, RuntimeError) else error
    what = next(line.strip() for line in str(cause).splitlines() if line.strip())
    stack = getattr(error, "real_stack", None)
    return f"{what} ({stack[-1].filename}:{stack[-1].lineno}: {stack[-1].line})" if stack else what


class _Inside:
    """The vector field as a program sees it."""

    def __init__(self, f: Callable[[Tensor, Tensor], Tensor], how: How) -> None:
        self.f, self.how, self.nfe = f, how, 0

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        self.nfe += 1
        t, autocast = t.to(z.dtype), self.how.autocast
        with nullcontext() if autocast is None else torch.autocast(self.how.device_type, autocast, cache_enabled=False):
            if self.how.itself and not (torch.is_grad_enabled() and z.requires_grad):
                with torch.enable_grad():
                    dz = self.f(t, z.detach().requires_grad_())
            else:
                dz = self.f(t, z)
        assert dz.shape == z.shape
        return dz.to(z.dtype) if torch.is_grad_enabled() else dz.detach().to(z.dtype)

    def stage(self, t: Tensor, z: Tensor) -> Stage:
        return Stage(self(t, z))


# If no program fits the arguments, `torch._dynamo.run` calls the plain function, which then returns None.
def _evaluate(f: Callable[[Tensor, Tensor], Tensor], how: How, t: Tensor, z: Tensor) -> Tensor | None:
    if not torch.compiler.is_compiling():
        return None
    return _Inside(f, how)(t, z)


def _step(
    f: Callable[[Tensor, Tensor], Tensor],
    how: How,
    stepper: Stepper,
    norm: Norm,
    relative_only: bool,
    numbers: Tensor,
    carry: Any,
    z: Tensor,
) -> tuple[Trial, int] | None:
    if not torch.compiler.is_compiling():
        return None
    t, t1, dt, rtol, atol = numbers.unbind()
    field = _Inside(f, how)
    trial = stepper.trial(field, Span(t, t1, dt), z, carry)
    if trial.error is not None:
        with torch.no_grad():
            z1, error = trial.z1.detach(), trial.error.detach()
            trial = trial._replace(ratio=norm(error_ratio(z.abs(), z1.abs(), error, rtol, atol, relative_only)))
    return trial, field.nfe


class Compiled(Stepper):
    """A stepper whose steps over a user's vector field are compiled.

    Args:
        inner: the stepper. It runs uncompiled for other fields: that of the adjoint, or one whose stages are kept.
        method: the method, for its tolerances.
        norm: norm of the error test.
    """

    def __init__(self, inner: Stepper, method: FixedStep | Adaptive, norm: Norm) -> None:
        self.inner, self.method, self.norm = inner, method, norm
        self.order, self.carries, self.interpolates = inner.order, inner.carries, inner.interpolates
        self.quadrature, self.carried, self.evaluations = inner.quadrature, inner.carried, inner.evaluations
        self.unseen = inner.unseen
        self.tolerances = (method.rtol, method.absolute_tolerance) if isinstance(method, Adaptive) else (0.0, 0.0)
        self.kind = (type(inner), inner.order, inner.carries, inner.evaluations)

    @cached_property
    def plain(self) -> Stepper:
        return Compiled(self.inner.without_estimate(), self.method, self.norm)

    def without_estimate(self) -> Stepper:
        return self.plain

    def start(self, f: Field, t: Time, z: Tensor) -> Any:
        return self.inner.start(f, t, z)

    def known_slope(self, carry: Any) -> Tensor | None:
        return self.inner.known_slope(carry)

    def trial(self, f: Field, span: Span, z: Tensor, carry: Any) -> Trial:
        if isinstance(f, VectorField) and f.compiler is not None and f.nfe > 0:
            precision = z.dtype if z.device.type == "mps" else torch.float64  # mps has no float64
            numbers = torch.tensor([*span, *self.tolerances], dtype=precision, device=z.device)
            arguments = (self.inner, self.norm, self.tolerances[1] == 0.0, numbers, self.inner.forget(carry))
            found = f.compiler.step(f, self.kind, arguments, z)
            if found is not None:
                trial, evaluations = found
                f.nfe += evaluations
                return trial
        return self.inner.trial(f, span, z, carry)

    def close(self, f: Field, span: Span, z: Tensor, trial: Trial, *, dense: bool) -> Trial:
        return self.inner.close(f, span, z, trial, dense=dense)

    def error(self, trial: Trial, span: Span) -> Tensor | None:
        return self.inner.error(trial, span)

    def interpolate(self, trial: Trial, span: Span, z: Tensor, fractions: Sequence[float]) -> list[Tensor]:
        return self.inner.interpolate(trial, span, z, fractions)

    def interpolate_all(self, steps: Sequence[Dense]) -> list[Tensor]:
        return self.inner.interpolate_all(steps)

    def keep(self, trial: Trial, *, dense: bool) -> Any:
        return self.inner.keep(trial, dense=dense)

    def forget(self, carry: Any) -> Any:
        return self.inner.forget(carry)

    def pull_back(
        self, f: VectorField, span: Span, z: Tensor, cotangents: Cotangents, kept: Any = None
    ) -> tuple[Tensor, Terms]:
        """Differentiate a compiled step as a whole: autograd then holds the activations of all its stages at once."""
        if f.compiler is None or f.compiler.failed or kept is not None:
            return self.inner.pull_back(f, span, z, cotangents, kept)
        more = cotangents.inside or cotangents.of_error is not None
        return Stepper.pull_back(self if more else self.plain, f, span, z, cotangents)
