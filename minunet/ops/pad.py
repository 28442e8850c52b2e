"""Padding and cropping: y[i] = x[i − before] inside, and outside

constant    a value                        ∂x = ∂y cut back to x (padding with the negated amounts)
reflect     x mirrored, edge not repeated  2 1 | 0 1 2 3 | 2 1
replicate   the edge element               0 0 | 0 1 2 3 | 3 3
circular    x from its other end           2 3 | 0 1 2 3 | 0 1
            ∂x[j] = Σ of ∂y over all places that x[j] was copied to

Negative amounts crop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minunet.arrays import array_module
from minunet.autograd import Function
from minunet.ops.shape import squeeze, unsqueeze
from minunet.ops.upsample import Resample
from minunet.ops.upsample.tables import gather_table
from minunet.shapes import Pairs, sizes_text
from minunet.tensor import Tensor


class ConstantPad(Function):
    """y = x with `value` around it    ∂x = ∂y padded with the negated amounts"""

    def forward(ctx, x: Any, *, pairs: Pairs, value: float) -> Any:
        ctx.pairs = pairs
        return _constant(x, pairs, value)

    def backward(ctx, gy: Any) -> Any:
        return _constant(gy, tuple((-before, -after) for before, after in ctx.pairs), 0)


def _constant(x: Any, pairs: Pairs, value: float) -> Any:
    cut = x[tuple(slice(max(-before, 0), n + min(after, 0)) for n, (before, after) in zip(x.shape, pairs, strict=True))]
    if all(before <= 0 and after <= 0 for before, after in pairs):
        return cut
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, pairs, strict=True))
    y = array_module(x).full_like(x, value, shape=shape)
    y[tuple(slice(max(b, 0), max(b, 0) + n) for n, (b, _) in zip(cut.shape, pairs, strict=True))] = cut
    return y


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """The tensor with elements added around it, or cropped.

    pad: (before, after) of the last axis, then of the one before it, and so on: (left, right, top, bottom, front, back).
    Negative amounts crop.
    mode: 'constant' (any axes; `value`, 0 if left out), 'reflect' (fewer elements than the axis has), 'replicate', or
    'circular' (at most as many as the axis has); the last three pad the spatial axes of (N, C, *spatial) or (C, *spatial), all of them.
    """
    if mode != "constant" and mode not in _SOURCES:
        raise ValueError(f"pad: mode is 'constant', 'reflect', 'replicate' or 'circular'; got {mode!r}.")
    amounts = tuple(pad) if isinstance(pad, Iterable) else (pad,)
    axes = len(amounts) // 2
    if len(amounts) % 2 or axes > input.ndim or not all(hasattr(amount, "__index__") for amount in amounts):
        raise ValueError(f"pad: pad is a (before, after) pair of ints for each of up to {input.ndim} axes, last axis first; got {pad!r}.")
    amounts = tuple(map(int, amounts))
    pairs = ((0, 0),) * (input.ndim - axes) + tuple(zip(amounts[::2], amounts[1::2], strict=True))[::-1]
    added = pairs if mode in ("reflect", "replicate") else [(min(b, 0), min(a, 0)) for b, a in pairs]  # these two can grow from nothing
    left = [min(n, n + before + after) for n, (before, after) in zip(input.shape, added, strict=True)]
    if any(n < (mode != "constant") for n in left[input.ndim - axes :]):
        raise ValueError(f"pad: {amounts} leaves nothing of the input, which is {sizes_text(input.shape)}.")
    if mode == "constant":
        return ConstantPad.apply(input, pairs=pairs, value=0 if value is None else value)
    if value:
        raise ValueError(f"pad: value belongs to mode 'constant'; mode is {mode!r}. Leave it out.")
    if axes not in (1, 2, 3) or input.ndim - axes not in (1, 2):
        raise ValueError(
            f"pad: mode {mode!r} pads all spatial axes of (N, C, *spatial) or (C, *spatial), 1, 2 or 3 of them; "
            f"got {len(amounts)} amounts for {sizes_text(input.shape)}."
        )
    spatial = tuple(zip(input.shape[-axes:], pairs[-axes:], strict=True))
    for n, (before, after) in spatial:
        most = {"reflect": n - 1, "circular": n}.get(mode, max(before, after))
        if max(before, after) > most:
            raise ValueError(f"pad: mode {mode!r} can add at most {most} elements to an axis of {n}, got {max(before, after)}.")
    tables = tuple(gather_table(_SOURCES[mode](np.arange(-before, n + after), n)) for n, (before, after) in spatial)
    if input.ndim - axes == 1:
        return squeeze(Resample.apply(unsqueeze(input, 0), tables=tables), 0)
    return Resample.apply(input, tables=tables)


_SOURCES = {  # the element of an axis of n that place i, counted from its first element, is a copy of
    "reflect": lambda i, n: n - 1 - abs(n - 1 - abs(i)),
    "replicate": lambda i, n: np.clip(i, 0, n - 1),
    "circular": lambda i, n: (i - max(i[0], 0)) % (min(i[-1] + 1, n) - max(i[0], 0)) + max(i[0], 0),  # crops first
}
