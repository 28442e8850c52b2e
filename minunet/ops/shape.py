"""Operations that move elements without computing: reshape, permute, broadcast, index, crop.

The backward of each moves the gradient the opposite way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minunet.arrays import array_module, is_array, sum_to_shape
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
        xp, shape = array_module(gy), ctx.shapes[0]
        index, ctx.index = ctx.index, None  # an array on the GPU takes room
        if not _is_basic(index):
            taken = _axes_taken(index, len(shape))
            rows, row = shape[:taken], math.prod(shape[taken:])
            places = xp.arange(math.prod(rows)).reshape(rows)[index]
            return _sums_by_place(gy.reshape(places.size, row), places.ravel(), math.prod(rows)).reshape(shape)
        gx = xp.zeros(shape, dtype=gy.dtype)
        gx[index] = gy
        return gx


def _sums_by_place(values: Any, places: Any, size: int) -> Any:
    """values (n, row), places (n,) → (size, row): at p the sum of the values whose place is p.

    Sorted by place, those of one place lie side by side. Neighbours are added, then pairs of neighbours, then fours: the same order of
    additions in every run and on every device, where atomic additions would come in any.
    """
    xp = array_module(values)
    order = xp.argsort(places, kind="stable")
    places, sums = places[order], values[order]
    rank = xp.arange(len(places)) - xp.searchsorted(places, places)  # 0 for the first value of a place, 1 for the second …
    far, most = 1, int(rank.max()) if len(rank) else 0
    while far <= most:
        takes = (rank[:-far] % (2 * far) == 0) & (places[:-far] == places[far:])
        sums[:-far] += xp.where(takes[:, None], sums[far:], 0)
        far *= 2
    result = xp.zeros((size, values.shape[1]), dtype=values.dtype)
    result[places[rank == 0]] = sums[rank == 0]
    return result


def _is_basic(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is Ellipsis or isinstance(p, slice | int) for p in parts)


def _axes_taken(index: Any, rank: int) -> int:
    """How many axes, from the first on, an index speaks of; those after them it takes whole."""
    parts = index if isinstance(index, tuple) else (index,)
    if any(p is Ellipsis or isinstance(p, list) for p in parts):
        return rank
    return min(sum(p.ndim if is_array(p) and p.dtype.kind == "b" else p is not None for p in parts), rank)


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
