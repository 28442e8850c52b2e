"""ReLU and leaky ReLU on the GPU. Results lie in memory as x does, without gaps."""

from __future__ import annotations

import math
from typing import Any

from minunet.arrays import array_module, back_from, memory_order
from minunet.cuda import Source, blocks_for
from minunet.volumes import is_wide

SOURCE = Source(__file__, "activation.cu")
THREADS = 256


def relu(x: Any) -> Any:
    """max(x, 0), where NaN stays NaN"""
    return _forward("relu_forward", x)


def relu_grad(gy: Any, y: Any) -> Any:
    """∂y where y > 0, else 0; NaN is no reason to stop it"""
    return _backward("relu_backward", gy, y)


def leaky_relu(x: Any, slope: float) -> Any:
    """x where x > 0, else slope·x; NaN stays NaN"""
    return _forward("leaky_relu_forward", x, float(slope))


def leaky_relu_grad(gy: Any, signed: Any, slope: float) -> Any:
    """∂y where `signed`, which has the sign of x, is above 0, else slope·∂y"""
    return _backward("leaky_relu_backward", gy, signed, float(slope))


def _forward(kernel: str, x: Any, *numbers: float) -> Any:
    order = memory_order(x)
    x = x.transpose(order)
    y = array_module(x).empty(x.shape, x.dtype)
    _launch(kernel, [x], y, *numbers)
    return y.transpose(back_from(order))


def _backward(kernel: str, gy: Any, y: Any, *numbers: float) -> Any:
    order = memory_order(y)
    gy, y = gy.transpose(order), y.transpose(order)
    gx = array_module(y).empty(y.shape, y.dtype)
    _launch(kernel, [gy, y], gx, *numbers)
    return gx.transpose(back_from(order))


def _launch(kernel: str, arrays: list[Any], result: Any, *numbers: float) -> None:
    seen, width = rows(*arrays)
    together = 16 // result.itemsize  # numbers, in 16 bytes
    wide = is_wide(*seen)
    threads = result.size // together if wide else result.size
    SOURCE.kernel(kernel, result.dtype)(blocks_for(threads, THREADS), THREADS, *seen, result, result.size, width, wide, *numbers)


def rows(*arrays: Any) -> tuple[list[Any], int]:
    """Arrays of one shape → each as (rows, width), and the width. One without gaps is one row; slices of a wider one are not copied."""
    whole = all(a.flags.c_contiguous for a in arrays)
    last = arrays[0].shape[-1] if arrays[0].ndim else 1
    shape = (1, arrays[0].size) if whole else (math.prod(arrays[0].shape[:-1]), last)
    return [a.reshape(shape) for a in arrays], max(shape[1], 1)
