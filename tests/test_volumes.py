"""The order of elements in memory, as the GPU's kernels are told."""

from __future__ import annotations

import numpy as np
import pytest

from minunet.arrays import back_from, memory_order, to_device
from minunet.volumes import empty, is_channels_last, three, volume
from tests import host_gpu


def in_order(shape, order):
    """An array of the shape whose axes lie in memory in that order."""
    return np.zeros([shape[i] for i in order]).transpose(np.argsort(order))


@pytest.mark.parametrize(
    ("array", "last"),
    [
        (np.zeros((2, 3, 4, 5)), False),
        (in_order((2, 3, 4, 5), (0, 2, 3, 1)), True),
        (in_order((2, 9, 4, 5), (0, 2, 3, 1))[:, 2:5], True),  # some of the channels
        (in_order((2, 3, 4, 5), (0, 2, 3, 1))[:, ::-1], True),
        (in_order((2, 3, 4, 5), (0, 3, 2, 1)), True),
        (in_order((2, 3, 1, 5), (0, 2, 3, 1)), True),
        (in_order((2, 1, 4, 5), (0, 2, 3, 1)), False),  # one channel: both orders are the same
        (in_order((2, 3, 1, 1), (0, 2, 3, 1)), False),  # one pixel
        (np.broadcast_to(0.0, (2, 3, 4, 5)), False),
        (in_order((2, 3, 4), (0, 2, 1)), True),
        (in_order((2, 3, 4, 2, 5), (0, 2, 3, 4, 1)), True),
    ],
)
def test_channels_last(array, last):
    assert is_channels_last(array) == last
    made = empty(array, (6,) * (array.ndim - 2), np.float32)
    assert made.shape == (*array.shape[:2], *(6,) * (array.ndim - 2))
    assert made.dtype == np.float32
    assert is_channels_last(made) == last


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 1, 0, 2)], ids=str)
def test_the_order_in_memory(order):
    array = in_order((2, 3, 4, 5), order)
    assert memory_order(array) == order
    assert array.transpose(memory_order(array)).flags.c_contiguous
    assert array.transpose(order).transpose(back_from(order)).shape == array.shape
    assert memory_order(array[::-1, :, ::2]) == order


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 1, 0, 2)], ids=str)
def test_the_order_stays_on_the_way_to_the_gpu_and_back(order):
    array = in_order((2, 3, 4, 5), order)
    array[...] = np.arange(120).reshape(array.shape)
    with host_gpu.installed():
        for sent, lies in ((array, array), (array[:, ::-1, 1:, ::2], in_order((2, 3, 3, 3), order))):
            there = to_device(sent, "cuda")
            back = to_device(there, "cpu")
            assert there.strides == back.strides == lies.strides
            assert np.array_equal(back, sent)


def test_axes_that_are_absent():
    assert volume(np.zeros((2, 3, 4))).shape == (2, 3, 1, 1, 4)
    assert volume(np.zeros((2, 3, 4, 5))).shape == (2, 3, 1, 4, 5)
    assert volume(np.zeros((2, 3, 4, 5, 6))).shape == (2, 3, 4, 5, 6)
    assert three((4, 5)) == (1, 4, 5)
    assert three((4,), 0) == (0, 0, 4)
