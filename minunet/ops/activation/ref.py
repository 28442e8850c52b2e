"""ReLU and leaky ReLU as they are defined."""

from __future__ import annotations

from typing import Any

from minunet.arrays import array_module


def relu(x: Any) -> Any:
    """max(x, 0), where NaN stays NaN"""
    return array_module(x).maximum(x, 0)


def relu_grad(gy: Any, y: Any) -> Any:
    """∂y where y > 0, else 0; NaN is no reason to stop it"""
    return array_module(gy).where(y <= 0, gy.dtype.type(0), gy)


def leaky_relu(x: Any, slope: float) -> Any:
    """x where x > 0, else slope·x; NaN stays NaN"""
    return array_module(x).where(x > 0, x, slope * x)


def leaky_relu_grad(gy: Any, signed: Any, slope: float) -> Any:
    """∂y where `signed`, which has the sign of x, is above 0, else slope·∂y"""
    return array_module(gy).where(signed > 0, gy, slope * gy)
