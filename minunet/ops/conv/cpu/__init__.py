"""Convolution in Numba. `choice` says which algorithm takes a case; each is a file of its own.

All of them work on channels-last memory and give the same bits for any number of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minunet import memory
from minunet.arrays import channels_first, deliver
from minunet.ops.conv.cpu import direct, windows, winograd, winograd_weights
from minunet.ops.conv.cpu.choice import fits_windows, fits_winograd, touching
from minunet.ops.conv.cpu.images import as_image, as_triple
from minunet.ops.conv.cpu.windows import POINT, Window
from minunet.ops.conv.ref import gated

if TYPE_CHECKING:
    from minunet.ops.conv import Geometry


def forward(x: Any, w: Any, b: Any, geometry: Geometry, activation: str | None, out: Any) -> Any:
    kernel, channels, outputs = w.shape[2:], x.shape[1], w.shape[0]
    sizes = geometry.outputs(x.shape[2:], kernel)
    if fits_winograd(kernel, geometry, channels, outputs):
        y = _room(out, (x.shape[0], outputs, *sizes), x.dtype)
        winograd.convolve(x, None, _taps(w).swapaxes(3, 4), b, _before(geometry), as_image(y)[0], activation)
    elif fits_windows(kernel, geometry, channels):
        y = _room(out, (x.shape[0], outputs, *sizes), x.dtype)
        matrix = w.reshape(*w.shape[:2], -1).transpose(2, 1, 0)[:, :, None]  # (tap, c, 1, o)
        windows.multiply(x, None, _window(kernel, geometry), as_triple(sizes, 1), matrix, b, as_image(y)[0], POINT, activation)
    else:
        y = direct.forward(x, w, b, geometry, activation)
    return deliver(y, out)


def grad_x(gy: Any, gate: Any, w: Any, b: Any, geometry: Geometry, spatial: tuple[int, ...], activation: str | None, out: Any) -> Any:
    kernel, channels, outputs = w.shape[2:], w.shape[1], w.shape[0]
    if fits_winograd(kernel, geometry, channels, outputs):
        gx = _room(out, (gy.shape[0], channels, *spatial), gy.dtype)
        taps = _taps(w)[::-1, ::-1, ::-1]  # (k, o, c) backwards: what x[i] gave to y[i − k + before], it gets back
        before = tuple(k - 1 - p for k, p in zip(as_triple(kernel, 1), _before(geometry), strict=True))
        winograd.convolve(gy, gate, taps, b, before, as_image(gx)[0], activation)
    elif geometry.groups == 1 and touching(kernel, geometry):
        gx = _room(out, (gy.shape[0], channels, *spatial), gy.dtype)
        if any(n > m * s for n, m, s in zip(spatial, gy.shape[2:], geometry.stride, strict=True)):
            gx[...] = _beyond(b, activation).reshape(-1, *(1,) * len(spatial))  # of a size that the stride does not divide
        matrix = w.reshape(*w.shape[:2], -1).transpose(0, 2, 1)[None]  # (1, o, tap, c)
        targets, grid = _window(kernel, geometry), as_triple(gy.shape[2:], 1)
        windows.multiply(gy, gate, POINT, grid, matrix, b, as_image(gx)[0], targets, activation)
    else:
        gx = direct.grad_x(gated(gy, gate), w, b, geometry, spatial, activation)
    return deliver(gx, out)


def grad_w(x: Any, gy: Any, gate: Any, geometry: Geometry, kernel: tuple[int, ...], bias: bool) -> tuple[Any, Any]:
    """∂w, and ∂b if `bias`; only where gate > 0 does ∂y count."""
    channels, outputs = x.shape[1], gy.shape[1]
    if not gy.size:  # no sample, a sum over nothing
        return np.zeros((outputs, channels // geometry.groups, *kernel), x.dtype), np.zeros(outputs, x.dtype) if bias else None
    if fits_winograd(kernel, geometry, channels, outputs):
        gw, gb = winograd_weights.weight_gradient(x, gy, gate, _before(geometry), as_triple(kernel, 1)[0])
        gw = gw.reshape(*kernel, channels, outputs)
    elif fits_windows(kernel, geometry, channels):
        gw, gb = windows.weight_gradient(x, _window(kernel, geometry), as_triple(gy.shape[2:], 1), gy, gate, bias)
        gw = gw.reshape(*kernel, channels, outputs)
    else:
        gy = gated(gy, gate)
        return direct.grad_w(x, gy, geometry, kernel), direct.grad_b(gy) if bias else None
    return np.moveaxis(gw, (-1, -2), (0, 1)), gb if bias else None


def grad_b(gy: Any, gate: Any) -> Any:
    return direct.grad_b(gated(gy, gate))


def _taps(w: Any) -> Any:
    """(O, C, *kernel) → the view (kd, kh, kw, O, C)"""
    view = w.reshape(*w.shape[:2], *as_triple(w.shape[2:], 1)) if w.ndim == 4 else w
    return view.transpose(2, 3, 4, 0, 1)


def _before(geometry: Geometry) -> Any:
    return as_triple([before for before, _ in geometry.padding], 0)


def _window(kernel: tuple[int, ...], geometry: Geometry) -> Window:
    return Window(as_triple(kernel, 1), as_triple(geometry.stride, 1), as_triple(geometry.dilation, 1), _before(geometry))


def _room(out: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Where to write the result: `out` itself if its channels lie side by side, else new channels-last memory."""
    if out is not None and (out.strides[1] == out.itemsize or shape[1] == 1):
        return out
    return channels_first(memory.empty((shape[0], *shape[2:], shape[1]), dtype))


def _beyond(b: Any, activation: str | None) -> Any:
    """What a pixel becomes that no window reaches."""
    if b is None:
        return np.zeros(1)
    return np.maximum(b, 0) if activation == "relu" else b
