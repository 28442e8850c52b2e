"""Operations that move elements without computing: reshape, permute, broadcast, index, crop.

The backward of each moves the gradient the opposite way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minunet.arrays import array_module, sum_to_shape
from minunet.autograd import Function
from minunet.shapes import normalize_axis, sizes_text
from minunet.tensor import Tensor, tensor_method


class Reshape(Function):
    """y = x with the same elements in another shape    ∂x = ∂y in x's shape"""

    def forward(ctx, x: Any, *, shape: tuple[int, ...]) -> Any:
        return x.reshape(shape)

    def backward(ctx, gy: Any) -> Any:
        return gy.reshape(ctx.shapes[0])


class Permute(Function):
    """y[i_dims] = x[i]    ∂x = ∂y permuted back"""

    def forward(ctx, x: Any, *, dims: tuple[int, ...]) -> Any:
        ctx.inverse = tuple(sorted(range(len(dims)), key=dims.__getitem__))
        return x.transpose(dims)

    def backward(ctx, gy: Any) -> Any:
        return gy.transpose(ctx.inverse)


class BroadcastTo(Function):
    """y = x repeated to a larger shape    ∂x = Σ over the repeats of ∂y"""

    def forward(ctx, x: Any, *, shape: tuple[int, ...]) -> Any:
        return array_module(x).broadcast_to(x, shape)

    def backward(ctx, gy: Any) -> Any:
        return sum_to_shape(gy, ctx.shapes[0])


class Index(Function):
    """y = x[index]    ∂x[index] += ∂y, everywhere else 0"""

    def forward(ctx, x: Any, *, index: Any) -> Any:
        ctx.index = index
        return array_module(x).asarray(x[index])

    def backward(ctx, gy: Any) -> Any:
        xp = array_module(gy)
        gx = xp.zeros(ctx.shapes[0], dtype=gy.dtype)
        index, ctx.index = ctx.index, None  # an array on the GPU takes room
        if _is_basic(index):
            gx[index] = gy
        else:
            xp.add.at(gx, index, gy)
        return gx


def _is_basic(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is Ellipsis or isinstance(p, slice | int) for p in parts)


@tensor_method("__getitem__")
def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index] with NumPy's meaning: ints, slices, None, Ellipsis, integer and boolean arrays."""
    parts = index if isinstance(index, tuple) else (index,)
    plain = tuple(p.data if isinstance(p, Tensor) else p for p in parts)
    return Index.apply(x, index=plain if isinstance(index, tuple) else plain[0])


@tensor_method("reshape")
def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape; one size may be −1."""
    sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
    return Reshape.apply(x, shape=sizes)


@tensor_method("permute")
def permute(x: Tensor, *dims: Any) -> Tensor:
    """Axes in another order."""
    order = tuple(dims[0]) if len(dims) == 1 and isinstance(dims[0], Sequence) else dims
    order = tuple(normalize_axis(d, x.ndim, "permute") for d in order)
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"permute: {dims} does not name each of the {x.ndim} axes once.")
    return Permute.apply(x, dims=order)


@tensor_method("transpose")
def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes exchanged."""
    order = list(range(x.ndim))
    a, b = normalize_axis(dim0, x.ndim, "transpose"), normalize_axis(dim1, x.ndim, "transpose")
    order[a], order[b] = b, a
    return Permute.apply(x, dims=tuple(order))


@tensor_method("flatten")
def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes start_dim … end_dim joined into one."""
    if x.ndim == 0:
        return reshape(x, 1)
    start, end = normalize_axis(start_dim, x.ndim, "flatten"), normalize_axis(end_dim, x.ndim, "flatten")
    return reshape(x, *x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])


@tensor_method("squeeze")
def squeeze(x: Tensor, dim: int) -> Tensor:
    """An axis of size 1 removed."""
    axis = normalize_axis(dim, x.ndim, "squeeze")
    if x.shape[axis] != 1:
        raise ValueError(f"squeeze: axis {dim} has size {x.shape[axis]}, only an axis of size 1 can be removed.")
    return reshape(x, *x.shape[:axis], *x.shape[axis + 1 :])


@tensor_method("unsqueeze")
def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """An axis of size 1 inserted at `dim`."""
    axis = normalize_axis(dim, x.ndim + 1, "unsqueeze")
    return reshape(x, *x.shape[:axis], 1, *x.shape[axis:])


@tensor_method("broadcast_to")
def broadcast_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """x repeated to `shape` by NumPy's broadcasting rule."""
    return BroadcastTo.apply(x, shape=tuple(shape))


def center_crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """The middle of the spatial axes: (N, C, *spatial) → (N, C, *size). An odd surplus leaves one more at the end."""
    spatial = x.shape[2:]
    if len(size) != len(spatial) or any(want > have for want, have in zip(size, spatial, strict=True)):
        raise ValueError(f"center_crop: cannot cut {sizes_text(size)} out of {sizes_text(spatial)}.")
    if tuple(size) == spatial:
        return x
    starts = [(have - want) // 2 for want, have in zip(size, spatial, strict=True)]
    return getitem(x, (slice(None), slice(None), *(slice(s, s + n) for s, n in zip(starts, size, strict=True))))
