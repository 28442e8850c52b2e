"""Shapes: n-tuples, sliding windows, output sizes, 'same' and 'valid' padding, and errors written as sentences.

A window slides over an axis of n elements, padded by (before, after):

    span = dilation·(kernel − 1) + 1            what the window covers
    out  = ⌊(n + before + after − span) / stride⌋ + 1

ceil_mode (pooling) rounds up instead: the last window may hang over the end, but must not start beyond the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

Pairs = tuple[tuple[int, int], ...]


def ntuple(value: Any, rank: int, name: str, *, minimum: int = 0) -> tuple[int, ...]:
    """`value`, an int or a sequence of `rank` ints (or of one), as a tuple of `rank` ints."""
    if type(value) is int and value >= minimum:
        return (value,) * rank
    if type(value) is tuple and len(value) == rank and all(type(v) is int and v >= minimum for v in value):
        return value  # as layers keep theirs
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if len(values) == 1:
        values *= rank
    if len(values) != rank or not all(hasattr(v, "__index__") for v in values):
        raise ValueError(f"{name} is an int or {rank} ints, got {value!r}.")
    numbers = tuple(int(v) for v in values)
    if min(numbers) < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value!r}.")
    return numbers


def window_span(kernel: int, dilation: int) -> int:
    return dilation * (kernel - 1) + 1


def same_padding(n: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Keras' `same`: ⌈n/stride⌉ outputs; the odd element of padding goes to the end."""
    total = max((-(-n // stride) - 1) * stride + window_span(kernel, dilation) - n, 0)
    return total // 2, total - total // 2


def window_padding(
    padding: Any,
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Pairs:
    """(before, after) for each axis from an int, a tuple, 'same' or 'valid'."""
    if padding == "valid":
        return ((0, 0),) * len(spatial)
    if padding == "same":
        return tuple(same_padding(*axis) for axis in zip(spatial, kernel, stride, dilation, strict=True))
    if isinstance(padding, str):
        raise ValueError(f"padding is an int, a tuple, 'same' or 'valid'; got {padding!r}.")
    return tuple((p, p) for p in ntuple(padding, len(spatial), "padding"))


@lru_cache(maxsize=1024)
def window_outputs(
    name: str,
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Pairs,
    dilation: tuple[int, ...],
    ceil_mode: bool = False,
) -> tuple[int, ...]:
    """Output size of each axis; raises ValueError where the window is larger than the padded input."""
    sizes = []
    for n, k, s, (before, after), d in zip(spatial, kernel, stride, padding, dilation, strict=True):
        room = n + before + after - window_span(k, d)
        last = -(-room // s) if ceil_mode else room // s
        if ceil_mode and last * s >= n + before:
            last -= 1
        if last < 0:
            raise ValueError(
                f"{name}: the window covers {window_span(k, d)} elements but the padded input has "
                f"{n + before + after} (input {sizes_text(spatial)}, kernel {sizes_text(kernel)}). "
                "Use a larger input, a smaller kernel or more padding."
            )
        sizes.append(last + 1)
    return tuple(sizes)


def sizes_text(sizes: Sequence[int]) -> str:
    """(3, 256, 256) → '3×256×256'."""
    return "×".join(str(n) for n in sizes)


def check_rank(name: str, shape: tuple[int, ...], ndim: int, layout: str) -> None:
    """Raises ValueError unless the shape has `ndim` axes; `layout` names them, as '(N, C, H, W)'."""
    if len(shape) != ndim:
        raise ValueError(f"{name} expects {layout}, got {len(shape)} axes: {sizes_text(shape) or 'a scalar'}.")


def normalize_axis(axis: int, ndim: int, name: str) -> int:
    """A negative axis counted from the front; raises IndexError outside the array. A scalar answers to axis 0 and −1, as in PyTorch."""
    if not -max(ndim, 1) <= axis < max(ndim, 1):
        raise IndexError(f"{name}: axis {axis} does not exist, the tensor has {ndim} axes.")
    return axis % ndim if ndim else 0
