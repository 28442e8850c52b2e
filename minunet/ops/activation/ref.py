"""ReLU and leaky ReLU as they are defined."""

from __future__ import annotations

from typing import Any

from minunet.arrays import array_module, computed_dtype, rounded, widened


def relu(x: Any) -> Any:
    """max(x, 0), where NaN stays NaN"""
    return rounded(array_module(x).maximum(widened(x), 0), x)


def relu_grad(gy: Any, y: Any) -> Any:
    """∂y where y > 0, else 0; NaN is no reason to stop it"""
    return rounded(array_module(gy).where(y <= 0, computed_dtype(gy).type(0), widened(gy)), gy)


def leaky_relu(x: Any, slope: float) -> Any:
    """x where x > 0, else slope·x; NaN stays NaN"""
    wide = widened(x)
    return rounded(array_module(x).where(wide > 0, wide, slope * wide), x)


def leaky_relu_grad(gy: Any, signed: Any, slope: float) -> Any:
    """∂y where `signed`, which has the sign of x, is above 0, else slope·∂y"""
    wide = widened(gy)
    return rounded(array_module(gy).where(signed > 0, wide, slope * wide), gy)
