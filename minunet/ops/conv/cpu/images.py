"""How a kernel sees an image: the address of its first number and the strides of a channels-last volume.

A channel slice of a wider buffer, such as one half of a concatenation, is an image like any other: its pixels only lie further apart.
With addresses instead of arrays a kernel is compiled once, whatever the strides.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from numba import njit

from minunet import memory
from minunet.simd import CACHE_LINE, VECTOR_BYTES, address, all_tasks, make_transform, peek, poke, share

Sizes = tuple[int, int, int, int, int]  # (N, D, H, W, C); absent axes have size 1
Walk = tuple[int, int, int, int, int]  # address; strides of n, d, h, w in elements; the channels lie side by side


LARGE = 1 << 23  # bytes: so many find no room in the caches until they are used


class Image(NamedTuple):
    """array: whose memory it is, which must live until a kernel has run."""

    array: Any
    walk: Walk
    sizes: Sizes


def as_image(x: Any) -> Image:
    """Of (N, C, *spatial). Copies only where the channels do not lie side by side."""
    image, apart = as_it_lies(x)
    return image if apart == 1 else padded(x, None, ())


def as_it_lies(x: Any) -> tuple[Image, int]:
    """Of (N, C, *spatial), and the step from channel to channel."""
    x = x if x.flags.aligned else x.copy()  # else strides count no whole numbers
    steps, apart, sizes = _layout(x.shape, x.strides, x.itemsize)
    return Image(x, (address(x), *steps), sizes), apart


def in_whole_lines(walk: Walk, itemsize: int) -> bool:
    """Does each vector of channels fill a cache line? Then large results are streamed, past the caches."""
    where, *steps = walk
    return VECTOR_BYTES == CACHE_LINE and where % CACHE_LINE == 0 and all(step * itemsize % CACHE_LINE == 0 for step in steps)


def as_triple(numbers: Any, fill: Any) -> tuple[Any, ...]:
    """One entry for each spatial axis → entries for D, H, W."""
    return (fill,) * (3 - len(numbers)) + tuple(numbers)


def distance(sizes: Any, steps: Any) -> int:
    """Elements from each pixel to the next if it is the same for all, else 0. sizes: (N, D, H, W, …); steps: of n, d, h, w."""
    reached: int = steps[3]
    for size, step, inner in zip(sizes[2::-1], steps[2::-1], sizes[3:0:-1], strict=True):
        reached *= inner
        if size > 1 and step != reached:
            return 0
    return int(steps[3])


_ONE = [[1.0]]  # the transform that changes nothing moves a vector
move, gated_move = make_transform({0: _ONE}), make_transform({0: _ONE}, gated=True)


def padded(x: Any, gate: Any, margins: Any) -> Image:
    """(N, C, *spatial) with (before, after) zeros around each axis.

    A negative margin crops. Only where gate > 0 does x count. Copies only where something must change.
    """
    source, apart = as_it_lies(x)
    framed, dense, before, changed = _frame(source.sizes, margins)
    if gate is None and apart == 1 and not changed:
        return source
    opening, gate_apart = (source, apart) if gate is None else as_it_lies(gate)
    image = memory.scratch(framed, x.dtype)
    walks = (*source.walk, apart), (*opening.walk, gate_apart)
    _pad(all_tasks(), *walks, gate is not None, source.sizes, before, image, x.dtype.type(0))
    return Image(image, (address(image), *dense), framed)


def padded_planes(x: Any, margins: Any) -> tuple[Image, int]:
    """As `padded`, for contiguous x, whose channels stay as they are, one plane behind the other; and the steps from plane to plane."""
    n, channels, *spatial = x.shape
    planes, (where, plane, *steps), (_, *sizes, _) = padded(x.reshape(n * channels, 1, *spatial), None, margins)
    return Image(planes, (where, channels * plane, *steps), (n, *sizes, channels)), plane


# What follows is asked for in every call of every layer, always of the same shapes: so it is remembered.


@lru_cache(maxsize=1024)
def _layout(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> Any:
    """(N, C, *spatial) → the strides of n, d, h, w in elements, that of c, and the sizes."""
    (samples, channels, *spatial), (n, c, *steps) = shape, in_elements(strides, itemsize)
    return (n, *as_triple(steps, 0)), c if channels > 1 else 1, (samples, *as_triple(spatial, 1), channels)


@lru_cache(maxsize=1024)
def in_elements(strides: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Strides of bytes."""
    return tuple(stride // itemsize for stride in strides)


@lru_cache(maxsize=1024)
def _frame(sizes: Sizes, margins: Any) -> Any:
    """With the margins: the sizes, the strides of n, d, h, w without gaps, the zeros before, and whether anything differs."""
    pairs = as_triple(margins, (0, 0))
    d, h, w = (n + before + after for n, (before, after) in zip(sizes[1:4], pairs, strict=True))
    samples, *_, c = sizes
    dense = (d * h * w * c, h * w * c, w * c, c)
    return (samples, d, h, w, c), dense, tuple(before for before, _ in pairs), any(any(pair) for pair in pairs)


@njit(nogil=True, cache=True)
def _pad(mine, x, gate, gated, inside, before, image, zero):  # type: ignore[no-untyped-def]
    size = image.itemsize
    across = VECTOR_BYTES // size
    samples, depth, height, width, channels = image.shape
    left, right = max(before[2], 0), max(0, min(before[2] + inside[3], width))  # between them lies x
    for row in share(mine, samples * depth * height):
        n, d, h = row // (depth * height), row // height % depth - before[0], row % height - before[1]
        to = image.ctypes.data + size * row * width * channels
        if not (0 <= d < inside[1] and 0 <= h < inside[2]) or left >= right:
            for i in range(width * channels):
                poke(to, i, zero)
            continue
        for i in range(left * channels):
            poke(to, i, zero)
        for i in range(right * channels, width * channels):
            poke(to, i, zero)
        w = left - before[2]
        source = x[0] + size * (n * x[1] + d * x[2] + h * x[3] + w * x[4])
        opening = gate[0] + size * (n * gate[1] + d * gate[2] + h * gate[3] + w * gate[4])
        onto = to + size * left * channels
        run, count = channels, right - left  # numbers side by side, and how many such runs
        if x[4] == channels and x[5] == 1 and gate[4] == channels and gate[5] == 1:
            run, count = channels * count, 1
        whole = run // across * across if x[5] == 1 and gate[5] == 1 else 0
        for i in range(count if whole else 0):
            pixel, open_pixel, pixel_to = source + size * i * x[4], opening + size * i * gate[4], onto + size * i * run
            for c in range(0, whole, across):
                if gated:
                    gated_move(0, pixel + size * c, 0, 0, pixel_to + size * c, 0, 0, open_pixel + size * c, 0, 0, 0, zero)
                else:
                    move(0, pixel + size * c, 0, 0, pixel_to + size * c, 0, 0, 0, 0, 0, 0, zero)
        for c in range(whole, run):  # along one channel, whose pixels may lie side by side
            for i in range(count):
                value = peek(source, i * x[4] + c * x[5], zero)
                if gated and not peek(opening, i * gate[4] + c * gate[5], zero) > zero:
                    value = zero
                poke(onto, i * run + c, value)
