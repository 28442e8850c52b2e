"""ReLU as it is defined."""

from __future__ import annotations

from typing import Any

from minunet.arrays import array_module, computed_dtype, rounded, widened


def relu(x: Any) -> Any:
    """max(x, 0), where NaN stays NaN"""
    return rounded(array_module(x).maximum(widened(x), 0), x)


def relu_grad(gy: Any, y: Any) -> Any:
    """∂y where y > 0, else 0; NaN is no reason to stop it"""
    return rounded(array_module(gy).where(y <= 0, computed_dtype(gy).type(0), widened(gy)), gy)
