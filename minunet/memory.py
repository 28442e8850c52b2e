"""Large arrays come from a pool: what one training step frees, the next one uses.

The operating system hands out memory a page at a time, at first touch, and clears it: for an activation of some megabytes that
costs about as much as computing it. A training step asks for the same sizes again and again, so blocks that nobody looks at any
more wait here instead of going back. Small arrays are left to NumPy.

    empty(shape)  ──▶  a waiting block of the size, else a new one  ──▶  array ──▶ views …
                                ▲                                                   │ the last view dies
                                └───────────────────────────────────────────────────┘
"""

from __future__ import annotations

import math
import mmap
from collections import defaultdict
from typing import Any

import numpy as np

SMALLEST = 1 << 16  # bytes: below, malloc has memory at hand
_HUGE = 1 << 22  # bytes: from here on ask for pages of 2 MB, which need fewer faults and fewer translations

SPARE = 1 << 26  # bytes that may wait beyond the most that was ever in use

_waiting: defaultdict[int, list[_Block]] = defaultdict(list)  # by rung
_idle = 0  # bytes waiting
_lent = 0  # bytes that arrays look at
_most_lent = 0


class _Block:
    """Memory from the operating system, and where it lies."""

    def __init__(self, rung: int) -> None:
        self.rung, self.size = rung, _size(rung)
        own = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}  # a forked process gets a copy
        self.memory = mmap.mmap(-1, self.size, **own)
        if self.size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            self.memory.madvise(mmap.MADV_HUGEPAGE)
        self.address = np.frombuffer(self.memory, dtype=np.uint8).ctypes.data


class _Loan:
    """Stands between a block and its arrays: NumPy keeps it alive as long as one of them lives."""

    __slots__ = ("__array_interface__", "block")

    def __init__(self, block: _Block, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.block = block
        self.__array_interface__ = {"data": (block.address, False), "shape": shape, "typestr": dtype.str, "version": 3}

    def __del__(self) -> None:
        global _idle, _lent
        if _waiting is None:  # the interpreter is shutting down
            return
        _lent -= self.block.size
        _idle += self.block.size
        _waiting[self.block.rung].append(self.block)


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """A C-contiguous array of undefined content."""
    global _lent, _most_lent
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < SMALLEST:
        return np.empty(shape, dtype)
    rung = _rung(nbytes)
    block = _take(rung)
    if block is None:
        if _idle > _most_lent + SPARE:  # the sizes have changed: what waits is of the old ones
            release()
        block = _Block(rung)
    _lent += block.size
    _most_lent = max(_most_lent, _lent)
    return np.asarray(_Loan(block, shape, dtype)).view(dtype)  # bfloat16 has no name in the interface


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


# Sizes stand on a ladder of eight rungs for each power of two, so that few differ and at most an eighth is unused.


def _rung(nbytes: int) -> int:
    shift = (nbytes - 1).bit_length() - 4
    return 8 * (shift - 1) + -(-nbytes >> shift)


def _size(rung: int) -> int:
    return (8 + rung % 8) << rung // 8
