"""Softmax and its logarithm along one axis.

y[c] = e^(x[c]−m) / Σ_k e^(x[k]−m)         ∂x = y·(∂y − Σ_k ∂y[k]·y[k])
l[c] = x[c] − m − ln Σ_k e^(x[k]−m)        ∂x = ∂l − e^l·Σ_k ∂l[k]        m = max_k x[k] keeps every exponent ≤ 0
"""

from __future__ import annotations

from typing import Any

from minunet.arrays import array_module
from minunet.autograd import Function
from minunet.ops.elementwise import astype
from minunet.shapes import normalize_axis
from minunet.tensor import Tensor

Axes = tuple[int, ...]  # the one axis; none for a scalar, whose softmax is 1


class Softmax(Function):
    def forward(ctx, x: Any, *, axis: Axes) -> Any:
        ctx.axis = axis
        y = array_module(x).exp(x - x.max(axis=axis, keepdims=True))
        y /= y.sum(axis=axis, keepdims=True)
        ctx.save(y)
        return y

    def backward(ctx, gy: Any) -> Any:
        (y,) = ctx.saved
        gx = gy * y
        gx -= y * gx.sum(axis=ctx.axis, keepdims=True)
        return gx


class LogSoftmax(Function):
    def forward(ctx, x: Any, *, axis: Axes) -> Any:
        ctx.axis = axis
        xp = array_module(x)
        y = x - x.max(axis=axis, keepdims=True)
        y -= xp.log(xp.exp(y).sum(axis=axis, keepdims=True))
        ctx.save(y)
        return y

    def backward(ctx, gy: Any) -> Any:
        (y,) = ctx.saved
        return gy - array_module(y).exp(y) * gy.sum(axis=ctx.axis, keepdims=True)


def _apply(name: str, function: type[Function], input: Tensor, dim: int | None, dtype: Any) -> Tensor:
    if dim is None:
        raise ValueError(f"{name}: dim is missing. Name the axis that sums to one: dim=1 for the classes of logits (N, C, …).")
    axis = normalize_axis(dim, input.ndim, name)
    x = input if dtype is None else astype(input, dtype)
    if x.size == 0:
        return x
    return function.apply(x, axis=(axis,) if x.ndim else ())


def softmax(input: Tensor, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """e^x / Σ e^x along `dim`, which must be given. dtype: converts the input first."""
    return _apply("softmax", Softmax, input, dim, dtype)


def log_softmax(input: Tensor, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """ln(e^x / Σ e^x) along `dim`, which must be given. dtype: converts the input first."""
    return _apply("log_softmax", LogSoftmax, input, dim, dtype)
