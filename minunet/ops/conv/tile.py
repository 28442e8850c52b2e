"""The tiles of tile.cuh, and how many blocks a long sum is shared among."""

from __future__ import annotations

STAGES, LINE, THREADS_OF_A_TILE = 3, 64, 128  # as in tile.cuh; LINE: bytes of a slice's row or column
BLOCKS = 1024  # that ∂w is shared among: enough for a large GPU, and the same on every one, so that the sums are too
LEAST = 8  # slices of one block: with fewer it would rather write sums than add them


def width_for(columns: int) -> int:
    """Of a tile, whose number of sums is always the same."""
    return 64 if columns <= 64 else 128


def rows_for(width: int) -> int:
    return 128 * 128 // width


def panels(width: int) -> int:
    """Bytes of shared memory."""
    return STAGES * LINE * (rows_for(width) + width)
