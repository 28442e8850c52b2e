"""Dropout, the definition: which random number decides about which element.

Philox is a function, not a sequence: it turns a counter, four words of 32 bits, and a key into four random words. Counter i serves four
elements, and any part of a mask can be computed alone, in any order. Elements are counted with the channels last, as they lie in
memory, in blocks of 64: counters 16·b … 16·b + 15 serve block b, and word j of counter 16·b + i is element 64·b + 16·j + i. So 16
counters computed side by side fill 16 neighbours in memory with each word. An element is dropped if its word, of 2³² values, is below
p·2³².

Salmon, Moraes, Dror, Shaw 2011, Parallel random numbers: as easy as 1, 2, 3.
"""

from __future__ import annotations

from math import prod
from typing import Any

from minunet.arrays import array_module, channels_first, computed_dtype, rounded, widened

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and √3 − 1
ROUNDS = 10
LOW = 0xFFFFFFFF


def draw(x: Any, shape: tuple[int, ...], key: Any, p: float) -> Any:
    """k of that shape, as booleans on the device of x; laid out in memory with axis 1 (the channels) last, as activations are.

    key: two words, on that device too.
    """
    xp = array_module(x)
    counter = xp.arange(16 * blocks(shape), dtype=xp.uint64)
    zero = xp.zeros_like(counter)
    words = xp.stack(philox((counter & LOW, counter >> 32, zero, zero), key.astype(xp.uint64)))
    kept = words.reshape(4, -1, 16).swapaxes(0, 1).reshape(-1) >= threshold(p)
    return in_order(kept[: prod(shape)], shape)


def philox(counter: Any, key: Any) -> Any:
    """Philox4x32-10. counter: four arrays of 32-bit words, held in 64 bits because a product of two needs them. key: two words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        a, b = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & LOW, (a >> 32) ^ c3 ^ k1, a & LOW
        k0, k1 = (k0 + KEY_STEPS[0]) & LOW, (k1 + KEY_STEPS[1]) & LOW
    return c0, c1, c2, c3


def blocks(shape: tuple[int, ...]) -> int:
    return -(-prod(shape) // 64)


def threshold(p: float) -> int:
    """p·2³² in 32 bits. For p = 1 the one value that is not below does no harm: what is kept is multiplied by 0."""
    return min(round(p * 2**32), LOW)


def in_order(kept: Any, shape: tuple[int, ...]) -> Any:
    """A flat mask, counted with the channels last, in its shape."""
    if len(shape) < 3:
        return kept.reshape(shape)
    return channels_first(kept.reshape(shape[0], *shape[2:], shape[1]))


def scale(x: Any, kept: Any, factor: float) -> Any:
    """x·k·factor. A NaN stays one even where it is dropped, as in PyTorch."""
    real = computed_dtype(x).type
    return rounded(widened(x) * array_module(x).where(kept, real(factor), real(0)), x)
