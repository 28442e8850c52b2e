"""ReLU and leaky ReLU on the GPU. Results lie in memory as x does, without gaps."""

from __future__ import annotations

import math
from typing import Any

from minunet.arrays import array_module
from minunet.cuda import Source, blocks_for
from minunet.volumes import back_from, memory_order

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
    (x,), width = rows(x)
    SOURCE.kernel(kernel, x.dtype)(blocks_for(y.size, THREADS), THREADS, x, y, y.size, width, *numbers)
    return y.transpose(back_from(order))


def _backward(kernel: str, gy: Any, y: Any, *numbers: float) -> Any:
    order = memory_order(y)
    gy, y = gy.transpose(order), y.transpose(order)
    gx = array_module(y).empty(y.shape, y.dtype)
    (gy, y), width = rows(gy, y)
    SOURCE.kernel(kernel, y.dtype)(blocks_for(gx.size, THREADS), THREADS, gy, y, gx, gx.size, width, *numbers)
    return gx.transpose(back_from(order))


def rows(*arrays: Any) -> tuple[list[Any], int]:
    """Arrays of one shape → each as (rows, width), and the width. One without gaps is one row; slices of a wider one are not copied."""
    whole = all(a.flags.c_contiguous for a in arrays)
    last = arrays[0].shape[-1] if arrays[0].ndim else 1
    shape = (1, arrays[0].size) if whole else (math.prod(arrays[0].shape[:-1]), last)
    return [a.reshape(shape) for a in arrays], max(shape[1], 1)
