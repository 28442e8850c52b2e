"""Normalisation as it is defined, on (B, P, C): blocks, pixels, channels.

Statistics and sums are float64 of shape (B, groups) or (B, C); centre, scale, shift, slope and offset are (B, C) in x's dtype.
"""

from __future__ import annotations

from typing import Any


def moments(x: Any, groups: int) -> tuple[Any, Any]:
    """Mean and biased variance of each group, (B, groups)."""
    blocks, pixels, channels = x.shape
    values = x.reshape(blocks, pixels, groups, channels // groups).astype("float64")
    m = max(pixels * channels // groups, 1)
    mean = values.sum(axis=(1, 3), keepdims=True) / m
    var = ((values - mean) ** 2).sum(axis=(1, 3)) / m
    return mean.reshape(blocks, groups), var


def normalize(x: Any, centre: Any, scale: Any, shift: Any) -> Any:
    """y = (x − centre)·scale + shift"""
    return (x - centre[:, None]) * scale[:, None] + shift[:, None]


def sums(gy: Any, x: Any, centre: Any) -> tuple[Any, Any]:
    """Σ_p ∂y and Σ_p ∂y·(x − centre)"""
    return gy.sum(axis=1, dtype="float64"), (gy * (x - centre[:, None])).sum(axis=1, dtype="float64")


def grad_x(gy: Any, x: Any, centre: Any, scale: Any, slope: Any, offset: Any) -> Any:
    """∂x = scale·∂y + slope·(x − centre) + offset"""
    return scale[:, None] * gy + slope[:, None] * (x - centre[:, None]) + offset[:, None]
