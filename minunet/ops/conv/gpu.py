"""Convolution on the GPU: shapes and grids for the kernels of conv.cu and tiled.cu.

Where images have 16 bits the tensor cores need weights of 16 bits too: they are rounded as they are laid out for the tiles.

| Kernels | Take | Because |
|---|---|---|
| `tiled.cu` | float32 and 16 bits, one group | a block computes a tile of results from numbers that it reads once |
| `conv.cu` | everything else | float64 is for checks; the few channels of a group would leave most of a tile empty |
"""

from __future__ import annotations

import math
from typing import Any

from minunet.arrays import array_module, computed_dtype
from minunet.cuda import Source, blocks_for
from minunet.ops.conv import Geometry
from minunet.volumes import empty_channels_last, three, volume

SOURCE = Source(__file__, "conv.cu")
THREADS = 256  # of a block, where a thread or a block has one result
WARP = 32

TILED = Source(__file__, "tiled.cu")
ROWS, SLICE = 128, 16  # of a tile, and terms at a time, as in tile.cuh
BLOCKS = 512  # that ∂w is shared among: enough for a large GPU, and the same on every one, so that the sums are too


def is_tiled(array: Any, geometry: Geometry) -> bool:
    return array.dtype != "float64" and geometry.groups == 1


def forward(x: Any, w: Any, b: Any, geometry: Geometry, activation: str | None, out: Any) -> Any:
    spatial, relu = geometry.outputs(x.shape[2:], w.shape[2:]), activation == "relu"
    if not is_tiled(x, geometry):
        y = array_module(x).empty((x.shape[0], w.shape[0], *spatial), dtype=x.dtype) if out is None else out
        told = _told(geometry, x.shape, y.shape, w.shape[2:])
        kernel = SOURCE.kernel("conv_forward", x.dtype)
        kernel(blocks_for(y.size, THREADS), THREADS, volume(x), volume(w), b, volume(y), told, relu)
        return y
    y = empty_channels_last(x, x.shape[0], w.shape[0], spatial) if out is None else out
    told, width = _told(geometry, x.shape, y.shape, w.shape[2:]), _width(w.shape[0])
    weights = array_module(w).ascontiguousarray(volume(w).transpose(2, 3, 4, 0, 1), x.dtype)  # (kd, kh, kw, O, C)
    grid = blocks_for(y.shape[0] * math.prod(spatial), ROWS) * blocks_for(w.shape[0], width)
    TILED.kernel(f"tiled_forward_{width}", x.dtype)(grid, 2 * width, volume(x), weights, b, volume(y), told, relu)
    return y


def grad_x(gy: Any, gate: Any, w: Any, b: Any, geometry: Geometry, spatial: tuple[int, ...], activation: str | None, out: Any) -> Any:
    channels, relu = w.shape[1] * geometry.groups, activation == "relu"
    if not is_tiled(gy, geometry):
        gx = array_module(gy).empty((gy.shape[0], channels, *spatial), dtype=gy.dtype) if out is None else out
        told = _told(geometry, gx.shape, gy.shape, w.shape[2:])
        kernel = SOURCE.kernel("conv_grad_x", gy.dtype)
        kernel(blocks_for(gx.size, THREADS), THREADS, volume(gy), volume(gate), volume(w), b, volume(gx), told, relu)
        return gx
    gx = empty_channels_last(gy, gy.shape[0], channels, spatial) if out is None else out
    told, width = _told(geometry, gx.shape, gy.shape, w.shape[2:]), _width(channels)
    weights = array_module(w).ascontiguousarray(volume(w).transpose(2, 3, 4, 1, 0), gy.dtype)  # (kd, kh, kw, C, O)
    of_a_phase = gy.shape[0] * math.prod(blocks_for(n, s) for n, s in zip(spatial, geometry.stride, strict=True))
    grid = blocks_for(of_a_phase, ROWS) * blocks_for(channels, width) * math.prod(geometry.stride)
    TILED.kernel(f"tiled_grad_x_{width}", gy.dtype)(grid, 2 * width, volume(gy), volume(gate), weights, b, volume(gx), told, relu)
    return gx


def grad_w(x: Any, gy: Any, gate: Any, geometry: Geometry, kernel: tuple[int, ...], bias: bool) -> tuple[Any, Any]:
    """∂w, and ∂b where `bias` asks for it, else None."""
    told = _told(geometry, x.shape, gy.shape, kernel)
    if not is_tiled(x, geometry):
        gw = array_module(x).empty((gy.shape[1], x.shape[1] // geometry.groups, *kernel), dtype=computed_dtype(x))
        SOURCE.kernel("conv_grad_w", x.dtype)(gw.size, WARP, volume(x), volume(gy), volume(gate), gw, told)
        return gw, grad_b(gy, gate) if bias else None
    channels, outputs, width = x.shape[1], gy.shape[1], _width(gy.shape[1])
    weights = math.prod(kernel) * channels
    rows = weights + bias  # ∂b is the gradient of a weight whose image is 1
    tiles = blocks_for(rows, ROWS) * blocks_for(outputs, width)
    slices = gy.shape[0] * math.prod(gy.shape[2:-1]) * blocks_for(gy.shape[-1], SLICE)
    slices_of_a_part = blocks_for(slices, max(BLOCKS // tiles, 1))
    count = max(blocks_for(slices, max(slices_of_a_part, 1)), 1)
    parts = array_module(x).empty((count, rows, outputs), dtype=computed_dtype(x))
    arguments = volume(x), volume(gy), volume(gate), parts, told, rows, slices_of_a_part
    TILED.kernel(f"tiled_grad_w_{width}", x.dtype)((tiles, count), 2 * width, *arguments)
    total = parts[0]
    if count > 1:
        total = array_module(x).empty((rows, outputs), dtype=computed_dtype(x))
        TILED.kernel("tiled_add_parts", x.dtype)(blocks_for(total.size, THREADS), THREADS, parts, total, count, total.size)
    gw = total[:weights].reshape(*kernel, channels, outputs)
    axes = range(len(kernel))
    return gw.transpose(len(axes) + 1, len(axes), *axes), total[weights] if bias else None


def grad_b(gy: Any, gate: Any) -> Any:
    """Within `cuda.precision("tf32")` ∂y is rounded here too, though there is nothing to multiply: the tiles of ∂w add it up."""
    ones = (1,) * (gy.ndim - 2)
    pixelwise = Geometry(ones, ((0, 0),) * len(ones), ones, 1)
    if is_tiled(gy, pixelwise):
        return grad_w(gy[:, :1], gy, gate, pixelwise, ones, True)[1]  # ∂b is the same whatever the image is
    gb = array_module(gy).empty(gy.shape[1], dtype=computed_dtype(gy))
    told = _told(pixelwise, gy.shape, gy.shape, ones)
    SOURCE.kernel("conv_grad_b", gy.dtype)(gb.size, THREADS, volume(gy), volume(gate), gb, told)
    return gb


def _width(columns: int) -> int:
    """Of a tile. The wider one reads fewer bytes for each multiplication."""
    return 64 if columns <= 64 else 128


def _told(geometry: Geometry, x: tuple[int, ...], y: tuple[int, ...], kernel: tuple[int, ...]) -> dict[str, Any]:
    """`struct Geometry` of geometry.cuh, from the shapes of input and output. Absent axes have one element, and one tap."""
    return {
        "samples": x[0],
        "channels": x[1],
        "outputs": y[1],
        "groups": geometry.groups,
        "in": three(x[2:]),
        "out": three(y[2:]),
        "kernel": three(kernel),
        "stride": three(geometry.stride),
        "before": three(tuple(before for before, _ in geometry.padding), 0),
        "dilation": three(geometry.dilation),
    }
