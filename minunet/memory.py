"""Large arrays come from a pool: what one training step frees, the next one uses.

The operating system hands out memory a page at a time, at first touch, and clears it: for an activation of some megabytes that
costs about as much as computing it. A training step asks for the same sizes again and again, so blocks that nobody looks at any
more wait here instead of going back. Small arrays are left to NumPy.

    empty(shape)  ──▶  a waiting block of the size, else a new one  ──▶  array ──▶ views …
                                ▲                                                   │ the last view dies
                                └───────────────────────────────────────────────────┘

A kernel also needs room of its own while it runs, of another size in every layer. `scratch` gives it blocks of one size: the next kernel
gets the block that the one before has used, and its lines are still in the caches.
"""

from __future__ import annotations

import math
import mmap
from collections import defaultdict
from typing import Any

import numpy as np

SMALLEST = 1 << 16  # bytes: below, malloc has memory at hand
_HUGE = 1 << 22  # bytes: from here on ask for pages of 2 MB, which need fewer faults and fewer translations

SCRATCH = 1 << 22  # bytes of a block that serves as scratch
SPARE = 1 << 26  # bytes that may wait beyond the most that was ever in use

_waiting: defaultdict[int, list[_Block]] = defaultdict(list)  # by rung
_idle = 0  # bytes waiting
_lent = 0  # bytes that arrays look at
_most_lent = 0


class _Block:
    """Memory from the operating system."""

    def __init__(self, rung: int) -> None:
        self.rung, self.size = rung, SCRATCH if rung == _OF_SCRATCH else _size(rung)
        own = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}  # a forked process gets a copy
        self.memory = mmap.mmap(-1, self.size, **own)
        if self.size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            self.memory.madvise(mmap.MADV_HUGEPAGE)


class _Loan(np.ndarray[Any, Any]):
    """A block seen as an array. NumPy keeps it alive as long as one of its views lives."""

    block: _Block | None = None

    def __del__(self) -> None:
        global _idle, _lent
        if self.block is None or _waiting is None:  # a view of this class, or the interpreter is shutting down
            return
        _lent -= self.block.size
        _idle += self.block.size
        _waiting[self.block.rung].append(self.block)


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """A C-contiguous array of undefined content."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    return np.empty(shape, dtype) if nbytes < SMALLEST else _lend(shape, dtype, _rung(nbytes))


def scratch(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """The same for what a kernel needs only while it runs."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    return _lend(shape, dtype, _OF_SCRATCH) if SMALLEST <= nbytes <= SCRATCH else empty(shape, dtype)


def _lend(shape: tuple[int, ...], dtype: np.dtype[Any], rung: int) -> np.ndarray[Any, Any]:
    global _lent, _most_lent
    block = _take(rung)
    if block is None:
        if _idle > _most_lent + SPARE:  # the sizes have changed: what waits is of the old ones
            release()
        block = _Block(rung)
    _lent += block.size
    _most_lent = max(_most_lent, _lent)
    loan = _Loan(shape, dtype, block.memory)
    loan.block = block
    return loan.view(np.ndarray)


def release() -> None:
    """Gives every waiting block back to the operating system."""
    global _idle, _most_lent
    _waiting.clear()
    _idle, _most_lent = 0, _lent


def _take(rung: int) -> _Block | None:
    """The smallest waiting block of up to twice the size asked for."""
    global _idle
    for fitting in range(rung, rung + 9):
        if _waiting[fitting]:
            block = _waiting[fitting].pop()
            _idle -= block.size
            return block
    return None


# Sizes stand on a ladder of eight rungs for each power of two, so that few differ and at most an eighth is unused. Scratch has a rung far
# below all others.

_OF_SCRATCH = 0


def _rung(nbytes: int) -> int:
    shift = (nbytes - 1).bit_length() - 4
    return 8 * (shift - 1) + -(-nbytes >> shift)


def _size(rung: int) -> int:
    return (8 + rung % 8) << rung // 8
