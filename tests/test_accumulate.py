"""The sum of two gradients that meet, where it is large enough for the kernel."""

from __future__ import annotations

import numpy as np
import pytest

from minunet import memory
from minunet.accumulate import cpu, gpu
from minunet.arrays import memory_order, to_device
from tests.conftest import require
from tests.running import on

SHAPES = [(3, 17, 401), (2, 17, 31, 33), (1, 1, 150, 151), (2, 5, 9, 11, 33)]


def some_channels(array: np.ndarray) -> np.ndarray:
    """The same numbers as some of the channels of a wider array: the gradient of a concatenation."""
    wide = np.full((array.shape[0], *array.shape[2:], array.shape[1] + 3), np.nan, array.dtype)
    view = np.moveaxis(wide, -1, 1)[:, 2:-1]
    view[...] = array
    return view


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_sum_whatever_the_memory_order_and_the_threads(shape, dtype):
    numba = require("numba")
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    assert a.nbytes >= memory.SMALLEST
    before = numba.get_num_threads()
    try:
        for threads in range(1, min(3, numba.config.NUMBA_NUM_THREADS) + 1):
            numba.set_num_threads(threads)
            for left, right in ((a, b), (some_channels(a), b), (a, some_channels(b)), (a[..., ::-1], b[::-1])):
                np.testing.assert_array_equal(cpu.add(left, right), left + right)
    finally:
        numba.set_num_threads(before)


def test_an_empty_batch():
    empty = np.zeros((0, 3, 4, 4), np.float32)
    assert cpu.add(empty, empty).shape == empty.shape


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (0, 3, 4, 4), (2, 5, 4, 3), (2, 3, 4, 3, 5)], ids=str)
def test_on_the_gpu_the_sum_lies_as_the_first_array_does(shape):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    pairs = [(a, b), (a, np.broadcast_to(np.float32(0.5), shape))]
    if len(shape) > 2:
        pairs += [(some_channels(a), b), (a, some_channels(b)), (some_channels(a), some_channels(b)), (a[..., ::-1], b[::-1])]
    for left, right in pairs:
        with on("gpu"):
            got = gpu.add(to_device(left, "cuda"), to_device(right, "cuda"))
        assert np.array_equal(got.get(), left + right)
        if left.size:
            assert memory_order(got) == memory_order(left)
