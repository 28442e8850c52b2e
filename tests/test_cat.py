"""Concatenation: what the operation table cannot say, that is where it copies and where it need not."""

from __future__ import annotations

import numpy as np
import pytest

from minunet import Tensor, memory
from minunet import functional as F
from minunet.arrays import to_device
from minunet.ops.cat import gpu, side_by_side
from tests.running import on


def channels_last(*shape, dtype=np.float32):
    n, c, *spatial = shape
    return np.moveaxis(memory.empty((n, *spatial, c), dtype), -1, 1)


def filled(*shape):
    array = channels_last(*shape)
    array[...] = np.random.default_rng(0).standard_normal(shape)
    return array


@pytest.mark.parametrize("shape", [(2, 7, 4, 5), (2, 96, 16, 16), (1, 7, 6), (1, 7, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("cuts", [[3], [1, 2], [1, 2, 3, 4, 5, 6], []])
def test_parts_of_one_buffer_are_joined_without_a_copy(shape, cuts):
    buffer = filled(*shape)
    y = F.cat([Tensor(part) for part in np.split(buffer, cuts, axis=1)], 1).data
    assert np.array_equal(y, buffer)
    assert y.ctypes.data == buffer.ctypes.data
    assert y.strides == buffer.strides


def test_parts_of_a_part_of_a_wider_buffer():
    wide = filled(2, 12, 4, 4)
    parts = [wide[:, 3:5, 1:, ::2], wide[:, 5:9, 1:, ::2]]
    y = side_by_side(parts, 1)
    assert np.shares_memory(y, wide)
    assert np.array_equal(y, wide[:, 3:9, 1:, ::2])


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_any_axis(axis):
    buffer = filled(4, 6, 4, 8)
    low, high = np.split(buffer, 2, axis)
    y = side_by_side([low, high], axis)
    assert y.ctypes.data == buffer.ctypes.data
    assert np.array_equal(y, buffer)
    assert side_by_side([high, low], axis) is None


def test_the_result_keeps_the_buffer_alive():
    buffer = filled(1, 32, 64, 64)
    want = buffer.copy()
    y = side_by_side([buffer[:, :8], buffer[:, 8:]], 1)
    del buffer
    others = [channels_last(1, 32, 64, 64) for _ in range(3)]
    for other in others:
        other[...] = np.nan
    assert np.array_equal(y, want)


def test_backwards_views():
    buffer = filled(2, 6, 4, 4)[:, ::-1]
    y = side_by_side([buffer[:, :2], buffer[:, 2:]], 1)
    assert np.array_equal(y, buffer)
    assert y.strides == buffer.strides


wide = filled(2, 8, 4, 4)


@pytest.mark.parametrize(
    "arrays",
    [
        [wide[:, 4:], wide[:, :4]],  # the wrong order
        [wide[:, :3], wide[:, 4:]],  # a channel between them
        [wide[:, :4], wide[:, 3:]],  # a channel in both
        [wide[:, :4], wide[:, :4]],
        [wide[:, 0:4:2], wide[:, 4:]],  # other strides
        [wide[:1, :4], wide[1:, 4:]],  # other samples
        [wide[:, :4, :2], wide[:, 4:, 2:]],  # other rows
        [wide[:, :4], filled(2, 4, 4, 4)],  # other memory
        [wide[:, :4], wide[:, 4:].copy()],
        [wide[:, :4], wide[:, 4:].view(np.int32)],
        [wide[:, :4], wide[:, 4:4]],  # nothing
    ],
)
def test_all_else_is_copied(arrays):
    assert side_by_side(arrays, 1) is None
    if len({a.shape[0:1] + a.shape[2:] for a in arrays}) == 1 and len({a.dtype for a in arrays}) == 1:
        y = F.cat([Tensor(a) for a in arrays], 1).data
        assert np.array_equal(y, np.concatenate(arrays, axis=1))
        assert not any(np.shares_memory(y, a) for a in arrays)


def test_neighbours_in_memory_of_different_owners_are_not_joined():
    """Each would keep alive only its own part of the result."""
    block = bytearray(64)
    low, high = np.frombuffer(block, np.float32, 8).reshape(1, 8), np.frombuffer(block, np.float32, 8, 32).reshape(1, 8)
    assert low.ctypes.data + low.nbytes == high.ctypes.data
    assert side_by_side([low, high], 1) is None


def test_one_that_must_not_be_written_to():
    buffer = filled(2, 6, 4, 4)
    locked = buffer[:, 3:]
    locked.flags.writeable = False
    y = side_by_side([buffer[:, :3], locked], 1)
    assert np.array_equal(y, buffer)
    assert not y.flags.writeable


@pytest.mark.parametrize("channels", [(1, 1), (3, 2), (16, 16), (17, 1, 5)], ids=str)
@pytest.mark.parametrize("spatial", [(9,), (5, 6), (3, 2, 4)], ids=str)
def test_a_copy_is_channels_last_where_the_inputs_are(channels, spatial):
    rng = np.random.default_rng(0)
    arrays = [filled(2, c + 2, *spatial)[:, 1:-1] for c in channels]  # slices of wider buffers
    for array in arrays:
        array[...] = rng.standard_normal(array.shape)
    y = F.cat([Tensor(a) for a in arrays], 1).data
    assert np.array_equal(y, np.concatenate(arrays, axis=1))
    assert np.moveaxis(y, 1, -1).flags.c_contiguous


def test_gradients_are_views_of_the_one_that_comes():
    inputs = [Tensor(filled(2, c, 4, 4), requires_grad=True) for c in (3, 5)]
    node, gy = F.cat(inputs, 1).node, filled(2, 8, 4, 4)
    low, high = node.backward(gy)
    assert np.array_equal(low, gy[:, :3])
    assert np.array_equal(high, gy[:, 3:])
    assert np.shares_memory(low, gy)
    assert np.shares_memory(high, gy)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 1, 0, 2)], ids=str)
def test_on_the_gpu_the_result_lies_as_the_first_input_does(axis, dtype, order):
    rng, back = np.random.default_rng(0), np.argsort(order)
    arrays = []
    for n in (3, 1, 0, 4):
        shape = [2, 3, 4, 5]
        shape[axis] = n
        arrays.append(rng.integers(0, 100, shape).astype(dtype))
    arrays[0] = np.ascontiguousarray(arrays[0].transpose(order)).transpose(back)
    want = np.concatenate(arrays, axis)
    with on("gpu"):
        y = gpu.concatenate(*(to_device(a, "cuda") for a in arrays), axis=axis)
    assert y.dtype == dtype
    assert np.array_equal(y.get(), want)
    assert y.strides == np.ascontiguousarray(want.transpose(order)).transpose(back).strides


def test_on_the_gpu_parts_of_one_buffer_are_joined_without_a_copy():
    with on("gpu"):
        buffer = to_device(filled(2, 7, 4, 5), "cuda")
        y = F.cat([Tensor(buffer[:, :3]), Tensor(buffer[:, 3:])], 1).data
        assert (y.data.ptr, y.strides, y.shape) == (buffer.data.ptr, buffer.strides, buffer.shape)
        assert side_by_side([buffer[:, 3:], buffer[:, :3]], 1) is None
        assert side_by_side([buffer[:, :3], buffer[:, 3:].copy()], 1) is None


def test_on_the_gpu_integers_of_two_kinds_meet_as_in_numpy():
    low, high = np.arange(4, dtype=np.uint8), np.arange(3, dtype=np.int64)
    with on("gpu"):
        y = gpu.concatenate(to_device(low, "cuda"), to_device(high, "cuda"), axis=0)
    assert y.dtype == np.int64
    assert y.get().tolist() == [0, 1, 2, 3, 0, 1, 2]
