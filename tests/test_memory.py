"""The pool: a block is lent to one array at a time, comes back with its last view, and is dropped when the sizes change."""

import numpy as np
import pytest

from minunet import memory

LARGE = (memory.SMALLEST // 4 + 1,)


@pytest.fixture(autouse=True)
def _empty_pool():
    memory.release()
    yield
    memory.release()


def test_a_block_comes_back_with_the_last_view():
    array = memory.empty(LARGE, np.float32)
    address, view = array.ctypes.data, array[3:].view(np.int32)
    del array
    assert memory.empty(LARGE, np.float32).ctypes.data != address, "the view still looks at it"
    del view
    taken = {memory.empty(LARGE, np.float32).ctypes.data for _ in range(3)}
    assert address in taken


def test_arrays_that_live_at_once_share_nothing():
    held = [memory.empty(LARGE, np.float32) for _ in range(5)]
    for i, array in enumerate(held):
        array[:] = i
    assert [array.min() for array in held] == [array.max() for array in held] == list(range(5))


@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (3, 1 << 15), (5, 7, 1001)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_shape_and_dtype(shape, dtype):
    array = memory.empty(shape, dtype)
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable


def test_other_sizes_drop_what_waits():
    first = memory.empty((1 << 22,), np.float32)
    del first
    other = memory.empty(LARGE, np.float32)
    assert memory._idle == 0
    del other
