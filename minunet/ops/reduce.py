"""Reductions over axes: sum, mean, variance, max and min.

`dim` is None (all axes), an axis or a tuple of axes; `keepdim` leaves them with size 1.
"""

from __future__ import annotations

import math
from typing import Any

from minunet.arrays import array_module
from minunet.autograd import Function
from minunet.shapes import normalize_axis
from minunet.tensor import Tensor, tensor_method


def reduced_axes(dim: Any, ndim: int, name: str) -> tuple[int, ...]:
    """The axes that `dim` names, counted from the front."""
    if dim is None:
        return tuple(range(ndim))
    dims = dim if isinstance(dim, tuple | list) else (dim,)
    axes = tuple(normalize_axis(d, ndim, name) for d in dims)
    return axes if ndim else ()


class _Reduction(Function):
    def forward(ctx, x: Any, *, axes: tuple[int, ...], keepdim: bool) -> Any:
        ctx.axes = axes
        ctx.kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        y = array_module(x).asarray(ctx.value(x))
        return y.reshape(ctx.kept) if keepdim else y.reshape(tuple(n for i, n in enumerate(x.shape) if i not in axes))

    def value(ctx, x: Any) -> Any:
        raise NotImplementedError

    def spread(ctx, gy: Any) -> Any:
        """gy, one value a group, broadcast over the input's shape (a view)."""
        return array_module(gy).broadcast_to(gy.reshape(ctx.kept), ctx.shapes[0])


class Sum(_Reduction):
    """y = Σ_i x[i]    ∂x[i] = ∂y"""

    def value(ctx, x: Any) -> Any:
        return x.sum(axis=ctx.axes, keepdims=True)

    def backward(ctx, gy: Any) -> Any:
        return ctx.spread(gy).copy()


class Extremum(_Reduction):
    """y = max_i x[i]    ∂x[i] = ∂y / (number of ties) where x[i] = y, else 0    (PyTorch's amax)"""

    def value(ctx, x: Any) -> Any:
        y = x.max(axis=ctx.axes, keepdims=True)
        ctx.save(x, y)
        return y

    def backward(ctx, gy: Any) -> Any:
        x, y = ctx.saved
        ties = (x == y).astype(gy.dtype)
        return ctx.spread(gy) * (ties / ties.sum(axis=ctx.axes, keepdims=True))


@tensor_method("sum")
def sum(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:  # noqa: A001  the field's name
    """Σ over `dim`."""
    return Sum.apply(x, axes=reduced_axes(dim, x.ndim, "sum"), keepdim=keepdim)


@tensor_method("mean")
def mean(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The arithmetic mean over `dim`."""
    axes = reduced_axes(dim, x.ndim, "mean")
    return Sum.apply(x, axes=axes, keepdim=keepdim) / math.prod(x.shape[a] for a in axes)


@tensor_method("var")
def var(x: Tensor, dim: Any = None, keepdim: bool = False, correction: int = 1) -> Tensor:
    """Σ(x − mean)² / (n − correction) over `dim`."""
    axes = reduced_axes(dim, x.ndim, "var")
    centred = x - mean(x, axes, keepdim=True)
    count = math.prod(x.shape[a] for a in axes)
    return sum(centred * centred, axes, keepdim) / (count - correction)


@tensor_method("max")
def max(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:  # noqa: A001  the field's name
    """The largest element over `dim`; ties share the gradient."""
    return Extremum.apply(x, axes=reduced_axes(dim, x.ndim, "max"), keepdim=keepdim)


@tensor_method("min")
def min(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:  # noqa: A001  the field's name
    """The smallest element over `dim`; ties share the gradient."""
    return -max(-x, dim, keepdim)
