"""Concatenation, the definition."""

from __future__ import annotations

from typing import Any

from minunet.arrays import array_module


def concatenate(*arrays: Any, axis: int) -> Any:
    return array_module(*arrays).concatenate(arrays, axis=axis)
