"""Convolution in Numba. `choice` says which algorithm takes a case; each is a file of its own.

All of them work on channels-last memory and give the same bits for any number of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minunet import memory
from minunet.arrays import channels_first, deliver
from minunet.ops.conv.cpu import direct, direct_weights, line_weights, sums, winograd, winograd_weights
from minunet.ops.conv.cpu.choice import fits_lines, fits_winograd
from minunet.ops.conv.cpu.images import as_triple

if TYPE_CHECKING:
    from minunet.ops.conv import Geometry


def forward(x: Any, w: Any, b: Any, geometry: Geometry, activation: str | None, out: Any) -> Any:
    kernel, channels, outputs = w.shape[2:], x.shape[1], w.shape[0]
    y = _room(out, (x.shape[0], outputs, *geometry.outputs(x.shape[2:], kernel)), x.dtype)
    if fits_winograd(kernel, geometry, channels, outputs):
        winograd.convolve(x, None, _taps(w).swapaxes(3, 4), b, _before(geometry), y, activation)
    else:
        direct.forward(x, w, b, geometry, activation, y)
    return deliver(y, out)


def grad_x(gy: Any, gate: Any, w: Any, b: Any, geometry: Geometry, spatial: tuple[int, ...], activation: str | None, out: Any) -> Any:
    kernel, channels, outputs = w.shape[2:], w.shape[1] * geometry.groups, w.shape[0]
    gx = _room(out, (gy.shape[0], channels, *spatial), gy.dtype)
    if fits_winograd(kernel, geometry, channels, outputs):
        taps = _taps(w)[::-1, ::-1, ::-1]  # (k, o, c) backwards: what x[i] gave to y[i − k + before], it gets back
        before = tuple(k - 1 - p for k, p in zip(as_triple(kernel, 1), _before(geometry), strict=True))
        winograd.convolve(gy, gate, taps, b, before, gx, activation)
    else:
        direct.grad_x(gy, gate, w, b, geometry, activation, gx)
    return deliver(gx, out)


def grad_w(x: Any, gy: Any, gate: Any, geometry: Geometry, kernel: tuple[int, ...], bias: bool) -> tuple[Any, Any]:
    """∂w, and ∂b if `bias`; only where gate > 0 does ∂y count."""
    groups, channels, outputs = geometry.groups, x.shape[1] // geometry.groups, gy.shape[1] // geometry.groups
    if not gy.size:  # no sample, a sum over nothing
        return np.zeros((gy.shape[1], channels, *kernel), x.dtype), np.zeros(gy.shape[1], x.dtype) if bias else None
    if fits_winograd(kernel, geometry, channels, outputs):
        gw, gb = winograd_weights.weight_gradient(x, gy, gate, _before(geometry), as_triple(kernel, 1)[0], kernel[-1])
        return _weight(gw, kernel), gb if bias else None
    window = direct_weights.Window(as_triple(kernel, 1), as_triple(geometry.stride, 1), as_triple(geometry.dilation, 1), _before(geometry))
    grid = as_triple(gy.shape[2:], 1)
    algorithm = line_weights if fits_lines(kernel, geometry, channels, outputs, grid[2]) else direct_weights
    gws, gbs = [], []
    for g in range(groups):
        of_x, of_y = slice(g * channels, (g + 1) * channels), slice(g * outputs, (g + 1) * outputs)
        opening = None if gate is None else gate[:, of_y]
        gw, gb = algorithm.weight_gradient(x[:, of_x], window, grid, gy[:, of_y], opening, bias)
        gws.append(_weight(gw, kernel))
        gbs.append(gb)
    if groups == 1:
        return gws[0], gbs[0]
    return np.concatenate(gws), np.concatenate(gbs) if bias else None


def grad_b(gy: Any, gate: Any) -> Any:
    return sums.over_pixels(gy, gate)


def through_gate(gy: Any, gate: Any) -> tuple[Any, Any]:
    """Both as they are: the sums read them together."""
    return gy, gate


def _weight(gw: Any, kernel: tuple[int, ...]) -> Any:
    """(…, C, O) → the view (O, C, *kernel)"""
    rank = len(kernel)
    return gw.reshape(*kernel, *gw.shape[-2:]).transpose(rank + 1, rank, *range(rank))


def _taps(w: Any) -> Any:
    """(O, C, *kernel) → the view (kd, kh, kw, O, C)"""
    w = w if w.flags.aligned else w.copy()  # else strides count no whole numbers
    view = w.reshape(*w.shape[:2], *as_triple(w.shape[2:], 1)) if w.ndim == 4 else w
    return view.transpose(2, 3, 4, 0, 1)


def _before(geometry: Geometry) -> Any:
    return as_triple([before for before, _ in geometry.padding], 0)


def _room(out: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Where to write the result: `out` itself if its channels lie side by side, else new channels-last memory."""
    if out is not None and out.flags.aligned and (out.strides[1] == out.itemsize or shape[1] == 1):
        return out
    return channels_first(memory.empty((shape[0], *shape[2:], shape[1]), dtype))
