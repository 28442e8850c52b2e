"""Convolution on the GPU: which kernels take a case, and shapes and grids for those of conv.cu and tiled.cu.

| Kernels | Take | Because |
|---|---|---|
| `winograd.cu` | float32, 3×3 windows of two axes that move by one, one group, from 32 channels on | a quarter of the multiplications |
| `tiled.cu` | all other float32, 16 bits, one group | a block computes a tile of results from numbers that it reads once |
| `conv.cu` | everything else | float64 is for checks; the few channels of a group would leave most of a tile empty |

Winograd's transforms enlarge what rounding does to a factor. So factors of 16 bits and of TF32 are left to the tiles; the tensor cores
that multiply those have multiplications to spare. Weights for them are rounded as they are laid out.
"""

from __future__ import annotations

import math
from typing import Any

from minunet.arrays import array_module, computed_dtype
from minunet.cuda import Source, blocks_for, current_precision
from minunet.ops.activation.gpu import relu_grad
from minunet.ops.conv import Geometry, winograd_gpu
from minunet.ops.conv.tile import BLOCKS, LEAST, LINE, THREADS_OF_A_TILE, panels, rows_for, width_for
from minunet.volumes import empty_channels_last, is_wide, three, volume

SOURCE = Source(__file__, "conv.cu")
THREADS = 256  # of a block, where a thread or a block has one result
WARP = 32
CHUNK = 16  # bytes that are copied at once

TILED = Source(__file__, "tiled.cu")


def is_tiled(array: Any, geometry: Geometry) -> bool:
    return array.dtype != "float64" and geometry.groups == 1


def is_winograd(array: Any, geometry: Geometry, kernel: tuple[int, ...], channels: int, outputs: int) -> bool:
    once = set(geometry.stride) == set(geometry.dilation) == {1} and geometry.groups == 1
    exact = array.dtype == "float32" and current_precision() == "float32"
    return once and exact and winograd_gpu.fits(kernel, channels, outputs)


def forward(x: Any, w: Any, b: Any, geometry: Geometry, activation: str | None, out: Any) -> Any:
    spatial, relu = geometry.outputs(x.shape[2:], w.shape[2:]), activation == "relu"
    if not is_tiled(x, geometry):
        y = array_module(x).empty((x.shape[0], w.shape[0], *spatial), dtype=x.dtype) if out is None else out
        told = _told(geometry, x.shape, y.shape, w.shape[2:])
        kernel = SOURCE.kernel("conv_forward", x.dtype)
        kernel(blocks_for(y.size, THREADS), THREADS, volume(x), volume(w), b, volume(y), told, relu)
        return y
    y = empty_channels_last(x, x.shape[0], w.shape[0], spatial) if out is None else out
    if is_winograd(x, geometry, w.shape[2:], x.shape[1], w.shape[0]):
        winograd_gpu.convolve(x, w, b, tuple(before for before, _ in geometry.padding), y, relu)
        return y
    told = _told(geometry, x.shape, y.shape, w.shape[2:])
    weights = array_module(w).ascontiguousarray(volume(w).transpose(2, 3, 4, 0, 1), x.dtype)  # (kd, kh, kw, O, C)
    _image_product("tiled_forward", x, weights, b, y, told, relu, y.shape[0] * math.prod(spatial), 1)
    return y


def grad_x(gy: Any, gate: Any, w: Any, b: Any, geometry: Geometry, spatial: tuple[int, ...], activation: str | None, out: Any) -> Any:
    channels, relu = w.shape[1] * geometry.groups, activation == "relu"
    if not is_tiled(gy, geometry):
        gx = array_module(gy).empty((gy.shape[0], channels, *spatial), dtype=gy.dtype) if out is None else out
        told = _told(geometry, gx.shape, gy.shape, w.shape[2:])
        kernel = SOURCE.kernel("conv_grad_x", gy.dtype)
        kernel(blocks_for(gx.size, THREADS), THREADS, volume(gy), volume(gate), volume(w), b, volume(gx), told, relu)
        return gx
    gy, _ = through_gate(gy, gate)
    gx = empty_channels_last(gy, gy.shape[0], channels, spatial) if out is None else out
    if is_winograd(gy, geometry, w.shape[2:], channels, gy.shape[1]):
        before = tuple(size - 1 - before for size, (before, _) in zip(w.shape[2:], geometry.padding, strict=True))
        winograd_gpu.convolve(gy, winograd_gpu.turned(w), b, before, gx, relu)
        return gx
    told = _told(geometry, gx.shape, gy.shape, w.shape[2:])
    weights = array_module(w).ascontiguousarray(volume(w).transpose(2, 3, 4, 1, 0), gy.dtype)  # (kd, kh, kw, C, O)
    of_a_phase = gy.shape[0] * math.prod(blocks_for(n, s) for n, s in zip(spatial, geometry.stride, strict=True))
    _image_product("tiled_grad_x", gy, weights, b, gx, told, relu, of_a_phase, math.prod(geometry.stride))
    return gx


def _image_product(name: str, x: Any, weights: Any, b: Any, y: Any, told: dict[str, Any], relu: bool, pixels: int, phases: int) -> None:
    """y, from the image x. pixels: of y, in each phase."""
    columns = y.shape[1]
    width = width_for(columns)
    kind: int | str = width
    if not (is_wide(x) and weights.data.ptr % CHUNK == 0):
        kind, width = "numbers", 64
    grid = blocks_for(pixels, rows_for(width)) * blocks_for(columns, width) * phases
    kernel = TILED.kernel(f"{name}_{kind}", x.dtype)
    kernel(grid, THREADS_OF_A_TILE, volume(x), weights, b, volume(y), told, relu, shared=panels(width))


def grad_w(x: Any, gy: Any, gate: Any, geometry: Geometry, kernel: tuple[int, ...], bias: bool) -> tuple[Any, Any]:
    """∂w, and ∂b where `bias` asks for it, else None."""
    told = _told(geometry, x.shape, gy.shape, kernel)
    if not is_tiled(x, geometry):
        gw = array_module(x).empty((gy.shape[1], x.shape[1] // geometry.groups, *kernel), dtype=computed_dtype(x))
        SOURCE.kernel("conv_grad_w", x.dtype)(gw.size, WARP, volume(x), volume(gy), volume(gate), gw, told)
        return gw, grad_b(gy, gate) if bias else None
    gy, _ = through_gate(gy, gate)
    channels, outputs, width = x.shape[1], gy.shape[1], width_for(gy.shape[1])
    if is_winograd(x, geometry, kernel, channels, outputs):
        return winograd_gpu.grad_w(x, gy, tuple(before for before, _ in geometry.padding), bias)
    weights = math.prod(kernel) * channels
    tiles = blocks_for(weights, rows_for(width)) * blocks_for(outputs, width)
    slices = gy.shape[0] * math.prod(gy.shape[2:-1]) * blocks_for(gy.shape[-1], LINE // x.dtype.itemsize)
    slices_of_a_part = max(blocks_for(slices, max(BLOCKS // tiles, 1)), LEAST)
    count = max(blocks_for(slices, slices_of_a_part), 1)
    parts = array_module(x).empty((count, weights + bias, outputs), dtype=computed_dtype(x))  # ∂b is the row behind the weights
    arguments = volume(x), volume(gy), parts, told, weights + bias, slices_of_a_part, is_wide(x), is_wide(gy)
    TILED.kernel(f"tiled_grad_w_{width}", x.dtype)((tiles, count), THREADS_OF_A_TILE, *arguments, shared=panels(width))
    total = _added(parts, x.dtype)
    gw = total[:weights].reshape(*kernel, channels, outputs)
    axes = range(len(kernel))
    return gw.transpose(len(axes) + 1, len(axes), *axes), total[weights] if bias else None


def grad_b(gy: Any, gate: Any) -> Any:
    ones = (1,) * (gy.ndim - 2)
    pixelwise = Geometry(ones, ((0, 0),) * len(ones), ones, 1)
    told = _told(pixelwise, gy.shape, gy.shape, ones)
    if not is_tiled(gy, pixelwise):
        gb = array_module(gy).empty(gy.shape[1], dtype=computed_dtype(gy))
        SOURCE.kernel("conv_grad_b", gy.dtype)(gb.size, THREADS, volume(gy), volume(gate), gb, told)
        return gb
    gy, _ = through_gate(gy, gate)
    lines = gy.shape[0] * math.prod(gy.shape[2:-1])
    lines_of_a_part = max(blocks_for(lines, BLOCKS), 1)
    parts = array_module(gy).empty((max(blocks_for(lines, lines_of_a_part), 1), gy.shape[1]), dtype=computed_dtype(gy))
    grid = parts.shape[0], blocks_for(gy.shape[1], WARP)
    TILED.kernel("tiled_grad_b", gy.dtype)(grid, THREADS, volume(gy), parts, told, lines_of_a_part)
    return _added(parts, gy.dtype)


def through_gate(gy: Any, gate: Any) -> tuple[Any, Any]:
    """∂y where the gate is open, and no gate: tiles copy numbers without looking at them, and read each of them many times."""
    return (gy, None) if gate is None else (relu_grad(gy, gate), None)


def _added(parts: Any, dtype: Any) -> Any:
    """The sum over the first axis, in its order. dtype: of the images."""
    count, total = parts.shape[0], parts[0]
    if count > 1:
        total = array_module(parts).empty(total.shape, dtype=parts.dtype)
        TILED.kernel("tiled_add_parts", dtype)(blocks_for(total.size, THREADS), THREADS, parts, total, count, total.size)
    return total


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
