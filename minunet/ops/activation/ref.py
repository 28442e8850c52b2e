"""ReLU as it is defined."""

from __future__ import annotations

from typing import Any

from minunet.arrays import array_module


def relu(x: Any) -> Any:
    """max(x, 0), where NaN stays NaN"""
    return array_module(x).maximum(x, 0)


def relu_grad(gy: Any, y: Any) -> Any:
    """∂y where y > 0, else 0; NaN is no reason to stop it"""
    return array_module(gy).where(y <= 0, gy.dtype.type(0), gy)
