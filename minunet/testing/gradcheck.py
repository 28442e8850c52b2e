"""Gradient checks by directional derivatives.

For y = f(x) and a scalar L = ⟨ȳ, y⟩ with a random output gradient ȳ, the chain rule says, for a random direction v,

    ⟨ȳ, (f(x + h·v) − f(x − h·v)) / 2h⟩ = ⟨f'(x)ᵀ ȳ, v⟩

The left side needs the forward only, the right side is what backward returns. One pair of numbers proves all elements of
all gradients at once, because a wrong element would have to be orthogonal to a random vector. Several directions are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minunet.arrays import array_module, is_float, to_device
from minunet.autograd import no_grad
from minunet.tensor import Tensor


class GradientError(AssertionError):
    """A gradient disagrees with finite differences."""


class Agreement(float):
    """The largest error that was found. True in a condition even where it is 0: what disagrees raises."""

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True)
class Direction:
    """One comparison: the slope along a random direction, measured and computed."""

    finite_difference: float
    backward: float
    scale: float  # the size of the terms that were summed: what rounding errors are measured against

    @property
    def error(self) -> float:
        return abs(self.finite_difference - self.backward) / max(self.scale, 1e-300)


def gradcheck(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor | None],
    *,
    step: float = 1e-6,
    tolerance: float = 1e-7,
    directions: int = 3,
    seed: int = 0,
) -> Agreement:
    """Compares backward with central differences along random directions.

    function: takes the inputs, returns one tensor; it must be deterministic (seed a dropout inside it).
    inputs: tensors (or None where the function allows it); those that require a gradient are moved, all together, and should be float64.
    step: h. For a function linear in its one moving input use step=1 with float32: there is no truncation error then.
    tolerance: largest error, relative to the size of the terms summed.
    Returns the largest error. Raises GradientError, with both numbers for each input alone, where it exceeds the tolerance.
    """
    moving = [t for t in inputs if t is not None and t.requires_grad]
    if not moving:
        raise ValueError("gradcheck: no input requires a gradient, there is nothing to check.")
    if step < 0.1 and any(t.dtype != np.float64 for t in moving):
        kinds = ", ".join(str(t.dtype) for t in moving)
        raise ValueError(f"gradcheck: finite differences with step {step} need float64 inputs, got {kinds}.")
    rng = np.random.default_rng(seed)
    worst = 0.0
    for _ in range(directions):
        steps = [_direction(rng, t) for t in moving]
        result = _compare(function, inputs, moving, steps, step, rng)
        worst = max(worst, result.error)
        if not result.error <= tolerance:
            raise GradientError(_report(function, inputs, moving, steps, step, rng, result, tolerance))
    return Agreement(worst)


def _direction(rng: np.random.Generator, tensor: Tensor) -> Any:
    """A random direction of unit length per element, no component near zero, so that nothing is masked."""
    v = rng.uniform(0.5, 1.5, tensor.shape) * rng.choice((-1.0, 1.0), tensor.shape)
    return to_device(v.astype(tensor.dtype), tensor.device)


def _compare(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor | None],
    moving: list[Tensor],
    steps: list[Any],
    step: float,
    rng: np.random.Generator,
) -> Direction:
    fresh = {id(t): Tensor(t.data, requires_grad=True) for t in moving}
    y = function(*(fresh.get(id(t), t) for t in inputs))
    xp = array_module(y.data)
    gy = to_device(rng.standard_normal(y.shape).astype(y.dtype), y.device)
    y.backward(gy)
    grads = [_grad_of(fresh[id(t)]) for t in moving]

    def shifted(sign: float) -> Any:
        near = {id(t): Tensor(t.data + t.dtype.type(sign * step) * v) for t, v in zip(moving, steps, strict=True)}
        with no_grad():
            return function(*(near.get(id(t), t) for t in inputs)).data

    change = (shifted(1.0).astype(np.float64) - shifted(-1.0)) / (2 * step)
    measured = gy.astype(np.float64) * change
    computed = [g.astype(np.float64) * v for g, v in zip(grads, steps, strict=True)]
    # the sum of absolute terms bounds what cancellation can hide; its square root law is the natural scale of a random sum
    scale = float(xp.sqrt((measured**2).sum())) + sum(float(xp.sqrt((c**2).sum())) for c in computed)
    # a difference of two values of size |y| is known to eps·|y|/h at best: small slopes of large values count on that scale
    return Direction(float(measured.sum()), sum(float(c.sum()) for c in computed), max(scale, 1e-3))


def _grad_of(tensor: Tensor) -> Any:
    if tensor.grad is None:
        return array_module(tensor.data).zeros_like(tensor.data)
    return tensor.grad


def _report(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor | None],
    moving: list[Tensor],
    steps: list[Any],
    step: float,
    rng: np.random.Generator,
    result: Direction,
    tolerance: float,
) -> str:
    name = getattr(function, "__name__", repr(function))
    lines = [
        f"the gradient of {name} is wrong: along a random direction finite differences give {result.finite_difference:.10g}, "
        f"backward gives {result.backward:.10g}; relative error {result.error:.2g}, tolerance {tolerance:.2g}. Each input alone:"
    ]
    positions = [i for i, t in enumerate(inputs) if t is not None and t.requires_grad]
    for i, t, v in zip(positions, moving, steps, strict=True):
        others = [o if o is None or o is t else Tensor(o.data) for o in inputs]
        one = _compare(function, others, [t], [v], step, rng)
        kind = f"{t.dtype} {t.shape}" if is_float(t.data) else str(t.dtype)
        lines.append(f"  input {i} ({kind}): {one.finite_difference:.10g} and {one.backward:.10g}, error {one.error:.2g}")
    return "\n".join(lines)
