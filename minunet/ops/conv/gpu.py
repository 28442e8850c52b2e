"""Convolution on the GPU: shapes and grids for the kernels of conv.cu."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minunet.arrays import array_module
from minunet.cuda import Source, blocks_for
from minunet.volumes import three, volume

if TYPE_CHECKING:
    from minunet.ops.conv import Geometry

SOURCE = Source(__file__, "conv.cu")
THREADS = 256  # of a block, where a thread or a block has one result
WARP = 32


def forward(x: Any, w: Any, b: Any, geometry: Geometry, activation: str | None, out: Any) -> Any:
    shape = (x.shape[0], w.shape[0], *geometry.outputs(x.shape[2:], w.shape[2:]))
    y = array_module(x).empty(shape, dtype=x.dtype) if out is None else out
    told = _told(geometry, x.shape, y.shape, w.shape[2:])
    kernel = SOURCE.kernel("conv_forward", x.dtype)
    kernel(blocks_for(y.size, THREADS), THREADS, volume(x), volume(w), b, volume(y), told, activation == "relu")
    return y


def grad_x(gy: Any, gate: Any, w: Any, b: Any, geometry: Geometry, spatial: tuple[int, ...], activation: str | None, out: Any) -> Any:
    shape = (gy.shape[0], w.shape[1] * geometry.groups, *spatial)
    gx = array_module(gy).empty(shape, dtype=gy.dtype) if out is None else out
    told = _told(geometry, gx.shape, gy.shape, w.shape[2:])
    kernel = SOURCE.kernel("conv_grad_x", gy.dtype)
    kernel(blocks_for(gx.size, THREADS), THREADS, volume(gy), volume(gate), volume(w), b, volume(gx), told, activation == "relu")
    return gx


def grad_w(x: Any, gy: Any, gate: Any, geometry: Geometry, kernel: tuple[int, ...], bias: bool) -> tuple[Any, Any]:
    """∂w, and ∂b where `bias` asks for it, else None."""
    gw = array_module(x).empty((gy.shape[1], x.shape[1] // geometry.groups, *kernel), dtype=x.dtype)
    told = _told(geometry, x.shape, gy.shape, kernel)
    SOURCE.kernel("conv_grad_w", x.dtype)(gw.size, WARP, volume(x), volume(gy), volume(gate), gw, told)
    return gw, grad_b(gy, gate) if bias else None


def grad_b(gy: Any, gate: Any) -> Any:
    gb = array_module(gy).empty(gy.shape[1], dtype=gy.dtype)
    ones = (1,) * (gy.ndim - 2)
    told = _struct(gy.shape, gy.shape, ones, ones, ones, ones, 1)
    SOURCE.kernel("conv_grad_b", gy.dtype)(gb.size, THREADS, volume(gy), volume(gate), gb, told)
    return gb


def _told(geometry: Geometry, x: tuple[int, ...], y: tuple[int, ...], kernel: tuple[int, ...]) -> dict[str, Any]:
    before = tuple(pair[0] for pair in geometry.padding)
    return _struct(x, y, kernel, geometry.stride, before, geometry.dilation, geometry.groups)


def _struct(x: Any, y: Any, kernel: Any, stride: Any, before: Any, dilation: Any, groups: int) -> dict[str, Any]:
    """`struct Geometry` of conv.cu, from the shapes of input and output. Absent axes have one element, and one tap."""
    return {
        "samples": x[0],
        "channels": x[1],
        "outputs": y[1],
        "groups": groups,
        "in": three(x[2:]),
        "out": three(y[2:]),
        "kernel": three(kernel),
        "stride": three(stride),
        "before": three(before, 0),
        "dilation": three(dilation),
    }
