"""Concatenation: y = inputs one after another along an axis    ∂input = its slice of ∂y

In UNet: skip (N, C₁, H, W) and up-sampled (N, C₂, H, W) → (N, C₁ + C₂, H, W). Whoever makes the two may write them into one buffer,
each into its own channels; then there is nothing left to do, and the result is the view over both. The gradients are views too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minunet.arrays import array_module
from minunet.autograd import Function
from minunet.kernels import Kernels
from minunet.shapes import normalize_axis, sizes_text
from minunet.tensor import Tensor

K = Kernels(__name__, "concatenate")


class Concatenate(Function):
    """y = inputs one after another along an axis    ∂input = its slice of ∂y"""

    def forward(ctx, *inputs: Any, axis: int) -> Any:
        ctx.axis = axis
        whole = side_by_side(inputs, axis)
        return K.concatenate(*inputs, axis=axis) if whole is None else whole

    def backward(ctx, gy: Any) -> tuple[Any, ...]:
        grads, start = [], 0
        for need, shape in zip(ctx.needs, ctx.shapes, strict=True):
            stop = start + shape[ctx.axis]
            grads.append(gy[(slice(None),) * ctx.axis + (slice(start, stop),)] if need else None)
            start = stop
        return tuple(grads)


def side_by_side(arrays: Sequence[Any], axis: int) -> Any:
    """The view over arrays that lie one after another along `axis` in one buffer already; None where they do not.

    They do if all have the same strides and each begins where the one before it would go on. Then each element of the view is an
    element of one of them: nothing else is read. All must be views of one array, which the result keeps alive; neighbours by chance
    would not be.
    """
    first = arrays[0]
    if any(a.size == 0 or a.dtype != first.dtype or a.strides != first.strides for a in arrays):
        return None
    step, (owner, expected) = first.strides[axis], _place(first)
    for a in arrays:
        own, begin = _place(a)
        if own is not owner or begin != expected:
            return None
        expected += a.shape[axis] * step
    shape = (*first.shape[:axis], sum(a.shape[axis] for a in arrays), *first.shape[axis + 1 :])
    if not isinstance(first, np.ndarray):
        return array_module(first).lib.stride_tricks.as_strided(first, shape, first.strides)
    return np.lib.stride_tricks.as_strided(first, shape, first.strides, writeable=all(a.flags.writeable for a in arrays))


def _place(array: Any) -> tuple[Any, int]:
    """What owns the memory, below all views, and the address in it where the array begins."""
    if not isinstance(array, np.ndarray):
        return array.data.mem, array.data.ptr
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return owner, array.__array_interface__["data"][0]


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors one after another along `dim`; all other sizes must agree.

    In UNet: skip (N, C₁, H, W) and up-sampled (N, C₂, H, W) → (N, C₁ + C₂, H, W) with dim=1.
    """
    if not tensors:
        raise ValueError("cat: expected at least one tensor, got none.")
    axis = normalize_axis(dim, tensors[0].ndim, "cat")
    rest = [t.shape[:axis] + t.shape[axis + 1 :] for t in tensors]
    if any(r != rest[0] for r in rest):
        shapes = ", ".join(sizes_text(t.shape) for t in tensors)
        raise ValueError(f"cat: sizes must agree on every axis but {axis}; got {shapes}. Crop or pad them to one size first.")
    return Concatenate.apply(*tensors, axis=axis)
