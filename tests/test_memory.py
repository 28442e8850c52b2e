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


def test_a_block_of_a_similar_size_is_reused():
    first = memory.empty((1 << 20,), np.float32)
    address = first.ctypes.data
    del first
    assert memory.empty((1 << 18,), np.float32).ctypes.data != address, "a quarter of it would waste too much"
    assert memory.empty(((1 << 20) - (1 << 18),), np.float32).ctypes.data == address


def test_what_waits_is_dropped_when_it_is_much_more_than_was_ever_in_use(monkeypatch):
    monkeypatch.setattr(memory, "SPARE", 0)
    for size in (20, 22, 24):  # one after another, never at once
        memory.empty((1 << size,), np.float32)
    monkeypatch.setattr(memory, "_most_lent", 1 << 24)
    released = []
    monkeypatch.setattr(memory, "release", lambda: released.append(memory._idle))
    memory.empty((1 << 18,), np.float32)
    assert len(released) == 1
    assert released[0] > 1 << 24


@pytest.mark.parametrize("nbytes", [*range(1 << 16, (1 << 16) + 9000, 999), 10**6, 2**20, 2**20 + 1, 123456789, 2**31])
def test_rungs_waste_at_most_an_eighth(nbytes):
    size = memory._size(memory._rung(nbytes))
    assert nbytes <= size <= nbytes * 1.125
    assert memory._size(memory._rung(size)) == size


def test_scratch_is_the_block_that_was_used_last():
    first = memory.scratch(LARGE, np.float32)
    address = first.ctypes.data
    first[:] = 7
    del first
    assert memory.scratch((3, LARGE[0]), np.float64).ctypes.data == address, "whatever the size"
    held = memory.scratch(LARGE, np.float32)
    other = memory.scratch(LARGE, np.float32)
    assert {held.ctypes.data, other.ctypes.data} > {address}, "each is lent to one at a time"


def test_scratch_and_other_arrays_have_blocks_of_their_own():
    scratch = memory.scratch((memory.SCRATCH,), np.uint8)
    address = scratch.ctypes.data
    del scratch
    assert memory.empty((memory.SCRATCH,), np.uint8).ctypes.data != address
    assert memory.scratch((memory.SCRATCH + 1,), np.uint8).ctypes.data != address, "too large for it"


@pytest.mark.parametrize("nbytes", [0, 1, memory.SMALLEST, memory.SCRATCH, memory.SCRATCH + 1])
def test_scratch_of_any_size(nbytes):
    array = memory.scratch((nbytes,), np.uint8)
    array[:] = 1
    assert array.sum(dtype=np.int64) == nbytes
