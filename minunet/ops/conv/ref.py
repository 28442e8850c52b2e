"""Convolution, the definition: a loop over the kernel's taps, each a matrix product over all pixels at once.

For one tap k the window touches x̄[n, c, s·p + d·k] for all output pixels p: a strided slice of x̄. So

    y      += w[:, :, k] @ slice            forward
    slice' += w[:, :, k]ᵀ @ ∂y              grad_x, added into the same slice of ∂x̄
    ∂w[:, :, k] = ∂y @ sliceᵀ               grad_w

Runs on NumPy and CuPy, any rank, any strides. Images of 16 bits are widened to float32, and a result is rounded once. Groups are one more
axis: (N, C, …) → (N, g, C/g, …).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

from minunet.arrays import array_module, computed_dtype, deliver, rounded, widened

if TYPE_CHECKING:
    from minunet.ops.conv import Geometry


def forward(x: Any, w: Any, b: Any, geometry: Geometry, activation: str | None, out: Any) -> Any:
    xp = array_module(x)
    sizes = geometry.outputs(x.shape[2:], w.shape[2:])
    padded = _pad(widened(x), geometry)
    g = geometry.groups
    y = xp.zeros((x.shape[0], g, w.shape[0] // g, math.prod(sizes)), dtype=padded.dtype)
    for tap, window in _taps(w.shape[2:], sizes, geometry):
        y += _tap_weight(w, tap, g) @ _rows(padded[window], g)  # (g, O/g, C/g) @ (N, g, C/g, P)
    return deliver(rounded(_finish(y.reshape(x.shape[0], w.shape[0], *sizes), b, activation), x), out)


def grad_x(gy: Any, gate: Any, w: Any, b: Any, geometry: Geometry, spatial: tuple[int, ...], activation: str | None, out: Any) -> Any:
    xp = array_module(gy)
    g, sizes = geometry.groups, gy.shape[2:]
    channels = w.shape[1] * g
    reach = [max(before, 0) + n + max(after, 0) for n, (before, after) in zip(spatial, geometry.padding, strict=True)]
    whole = xp.zeros((gy.shape[0], channels, *reach), dtype=computed_dtype(gy))
    padded = whole[(..., *(slice(max(-before, 0), None) for before, _ in geometry.padding))]  # x̄: it begins later where x is cropped
    rows = _rows(gated(gy, gate), g)
    for tap, window in _taps(w.shape[2:], sizes, geometry):
        pixels = _tap_weight(w, tap, g).swapaxes(-1, -2) @ rows  # (g, C/g, O/g) @ (N, g, O/g, P)
        padded[window] += pixels.reshape(gy.shape[0], channels, *sizes)
    inside = tuple(slice(max(before, 0), max(before, 0) + n) for n, (before, _) in zip(spatial, geometry.padding, strict=True))
    return deliver(rounded(_finish(xp.ascontiguousarray(whole[(..., *inside)]), b, activation), gy), out)


def grad_w(x: Any, gy: Any, gate: Any, geometry: Geometry, kernel: tuple[int, ...], bias: bool) -> tuple[Any, Any]:
    """∂w, and ∂b where `bias` asks for it, else None."""
    xp, gy = array_module(x), gated(gy, gate)
    g = geometry.groups
    padded, rows = _pad(widened(x), geometry), _rows(gy, g)
    gw = xp.empty((gy.shape[1], x.shape[1] // g, *kernel), dtype=padded.dtype)
    for tap, window in _taps(kernel, gy.shape[2:], geometry):
        columns = _rows(padded[window], g).swapaxes(-1, -2)  # (N, g, P, C/g)
        gw[(slice(None), slice(None), *tap)] = (rows @ columns).sum(axis=0).reshape(gw.shape[:2])
    return gw, grad_b(gy, None) if bias else None


def grad_b(gy: Any, gate: Any) -> Any:
    return gated(gy, gate).sum(axis=(0, *range(2, gy.ndim)))


def through_gate(gy: Any, gate: Any) -> tuple[Any, Any]:
    """Both as they are: the sums read them together."""
    return gy, gate


def gated(gy: Any, gate: Any) -> Any:
    """∂y where gate > 0, else 0: the way back through a fused ReLU."""
    return widened(gy) if gate is None else widened(gy) * (gate > 0)


def _taps(kernel: tuple[int, ...], out: tuple[int, ...], geometry: Geometry) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...]]]:
    """Each tap k with the slice of x̄ that it meets: x̄[…, d·k : d·k + s·out : s]."""
    for tap in product(*(range(k) for k in kernel)):
        starts = [d * k for d, k in zip(geometry.dilation, tap, strict=True)]
        ends = [a + s * (n - 1) + 1 for a, s, n in zip(starts, geometry.stride, out, strict=True)]
        yield tap, (..., *(slice(a, e, s) for a, e, s in zip(starts, ends, geometry.stride, strict=True)))


def _pad(x: Any, geometry: Geometry) -> Any:
    xp = array_module(x)
    kept = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape[2:], geometry.padding, strict=True))
    return xp.pad(x[(..., *kept)], ((0, 0), (0, 0), *((max(a, 0), max(b, 0)) for a, b in geometry.padding)))


def _rows(x: Any, groups: int) -> Any:
    """(N, C, *spatial) → (N, g, C/g, P): one row a channel, one column a pixel."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, math.prod(x.shape[2:]))


def _tap_weight(w: Any, tap: tuple[int, ...], groups: int) -> Any:
    tap_weight = w[(slice(None), slice(None), *tap)]  # (O, C/g)
    return tap_weight.reshape(groups, w.shape[0] // groups, w.shape[1])


def _finish(y: Any, b: Any, activation: str | None) -> Any:
    if b is not None:
        y += b.reshape(-1, *(1,) * (y.ndim - 2))
    if activation == "relu":
        array_module(y).maximum(y, 0, out=y)
    return y
