"""Normalisation as it is defined, on (B, P, C): blocks, pixels, channels.

Statistics and sums are float64 of shape (B, groups) or (B, C). `line` holds numbers for each channel in x's dtype, or in float32 where
that has 16 bits, (…, B, C): the centre of x, scale and shift of the forward; for `grad_x` also slope and offset. `floor` is what the
activation lets pass: 0, or −∞.
"""

from __future__ import annotations

from typing import Any

from minunet.arrays import array_module, deliver, rounded, widened


def moments(x: Any, groups: int) -> tuple[Any, Any]:
    """Mean and biased variance of each group, (B, groups)."""
    blocks, pixels, channels = x.shape
    values = x.reshape(blocks, pixels, groups, channels // groups).astype("float64")
    m = max(pixels * channels // groups, 1)
    mean = values.sum(axis=(1, 3), keepdims=True) / m
    var = ((values - mean) ** 2).sum(axis=(1, 3)) / m
    return mean.reshape(blocks, groups), var


def normalize(x: Any, line: Any, floor: float, y: Any) -> Any:
    """y = max((x − line₀)·line₁ + line₂, floor); y: (B, P, C) to write into, or None"""
    return deliver(rounded(array_module(x).maximum(_straight(x, line), line.dtype.type(floor)), x), y)


def sums(gy: Any, x: Any, line: Any, floor: float) -> tuple[Any, Any]:
    """Σ_p g and Σ_p g·(x − line₀), where g is ∂y that came through the floor"""
    g = _through(gy, x, line, floor)
    return g.sum(axis=1, dtype="float64"), (g * (widened(x) - line[0][:, None])).sum(axis=1, dtype="float64")


def grad_x(gy: Any, x: Any, line: Any, floor: float) -> Any:
    """∂x = line₁·g + line₃·(x − line₀) + line₄, where g is ∂y that came through the floor"""
    centre, scale, _, slope, offset = line[:, :, None]
    return rounded(scale * _through(gy, x, line, floor) + slope * (widened(x) - centre) + offset, x)


def _straight(x: Any, line: Any) -> Any:
    centre, scale, shift = line[:3, :, None]  # (B, 1, C) each
    return (widened(x) - centre) * scale + shift


def _through(gy: Any, x: Any, line: Any, floor: float) -> Any:
    """The gradient passes where the result was above the floor; NaN is no reason to stop it."""
    return array_module(gy).where(_straight(x, line) <= floor, line.dtype.type(0), widened(gy))
