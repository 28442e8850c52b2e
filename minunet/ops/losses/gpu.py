"""The losses on the GPU: a thread has some pixels, a block's sums are joined by a second launch."""

from __future__ import annotations

from typing import Any

from minunet.arrays import array_module, computed_dtype
from minunet.cuda import Source, blocks_for

SOURCE = Source(__file__, "losses.cu")
THREADS = 256
WARP = 32
PIXELS = 4  # of a thread, as in losses.cu


def entropy(x: Any, target: Any, weight: Any, scale: Any, *, smoothing: float, ignored: int, each: bool) -> tuple[Any, Any, Any]:
    xp, (blocks, threads, sizes) = array_module(x), _cut(x, len(weight), ignored)
    losses = xp.empty((x.shape[0], x.shape[2]), computed_dtype(x)) if each else None
    parts = xp.empty((3, blocks), "float64")
    kernel = SOURCE.kernel("losses_entropy", x.dtype)
    kernel(blocks, threads, x, *_typed(target), weight, scale, losses, parts, *_smoothed(weight, smoothing), sizes)
    total, weights, unknown = _totals(x, parts)
    return losses if each else total, weights, unknown


def grad_entropy(x: Any, target: Any, weight: Any, factor: Any, gain: Any, *, smoothing: float, ignored: int) -> Any:
    """gain: an array of one number on the GPU, or 1"""
    gx, (blocks, threads, sizes) = _empty_like(x), _cut(x, len(weight), ignored)
    kernel = SOURCE.kernel("losses_grad_entropy", x.dtype)
    kernel(blocks, threads, x, *_typed(target), weight, factor, _or_one(gain), gx, *_smoothed(weight, smoothing), sizes)
    return gx


def overlap(x: Any, target: Any, classes: int, *, ignored: int) -> tuple[Any, Any]:
    xp, (blocks, threads, sizes) = array_module(x), _cut(x, classes, ignored)
    parts = xp.empty((3, x.shape[0], classes, sizes["chunks"]), "float64")
    unknowns = xp.empty((1, blocks), "float64")
    SOURCE.kernel("losses_overlap", x.dtype)(blocks, threads, x, *_typed(target), parts, unknowns, sizes)
    return _totals(x, parts), _totals(x, unknowns)[0]


def grad_overlap(x: Any, target: Any, hit: Any, size: Any, *, ignored: int) -> Any:
    gx, (blocks, threads, sizes) = _empty_like(x), _cut(x, hit.shape[1], ignored)
    SOURCE.kernel("losses_grad_overlap", x.dtype)(blocks, threads, x, *_typed(target), hit, size, gx, sizes)
    return gx


def binary_entropy(x: Any, target: Any, positive: Any, *, each: bool) -> Any:
    xp = array_module(x)
    losses = xp.empty(x.shape, computed_dtype(x)) if each else None
    parts = xp.empty((1, blocks_for(x.size, PIXELS * THREADS)), "float64")
    kernel = SOURCE.kernel("losses_binary_entropy", x.dtype)
    kernel(parts.size, THREADS, x, target, positive, losses, parts, x.size)
    return losses if each else _totals(x, parts)[0]


def grad_binary_entropy(x: Any, target: Any, positive: Any, factor: Any, gain: Any) -> Any:
    """gain: an array of one number on the GPU, or 1"""
    gx = array_module(x).empty(x.shape, x.dtype)
    kernel = SOURCE.kernel("losses_grad_binary_entropy", x.dtype)
    kernel(blocks_for(x.size, THREADS), THREADS, x, target, positive, factor, _or_one(gain), gx, x.size)
    return gx


def _cut(x: Any, classes: int, ignored: int) -> tuple[int, int, dict[str, int]]:
    """Blocks, threads of one, and `struct Sizes` of losses.cu. Small samples get fewer threads, but whole warps."""
    samples, channels, pixels = x.shape
    threads = min(WARP * max(blocks_for(pixels, WARP), 1), THREADS)
    chunks = blocks_for(pixels, PIXELS * threads)
    sizes = {"samples": samples, "classes": classes, "channels": channels, "chunks": chunks, "pixels": pixels, "ignored": ignored}
    return samples * chunks, threads, sizes


def _typed(target: Any) -> tuple[Any, Any]:
    """The class numbers as bytes or as 64-bit integers, and None for the other."""
    return (target, None) if target.dtype == "uint8" else (None, target)


def _smoothed(weight: Any, smoothing: float) -> tuple[float, float]:
    """How much of its weight the true class keeps, and what every class gets."""
    return 1 - smoothing, smoothing / max(len(weight), 1)


def _or_one(gain: Any) -> Any:
    return None if isinstance(gain, int) else gain


def _totals(x: Any, parts: Any) -> Any:
    """(…, blocks) → the sums over the blocks (…)."""
    totals = array_module(x).empty(parts.shape[:-1], "float64")
    SOURCE.kernel("losses_total", x.dtype)(totals.size, THREADS, parts, totals, parts.shape[-1])
    return totals


def _empty_like(x: Any) -> Any:
    """(N, C, P), dense, with classes or pixels innermost as in x."""
    n, classes, pixels = x.shape
    if x.strides[1] < x.strides[2]:
        return array_module(x).empty((n, pixels, classes), x.dtype).transpose(0, 2, 1)
    return array_module(x).empty(x.shape, x.dtype)
