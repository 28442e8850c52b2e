"""Padding: what the operation table cannot say."""

from __future__ import annotations

import numpy as np

import minunet as mu
from minunet import functional as F


def test_any_dtype():
    labels = np.array([[1, 2], [3, 255]], np.uint8)
    y = F.pad(mu.Tensor(labels), (1, 0, 0, 1), value=7)
    assert y.dtype == np.uint8
    assert y.tolist() == [[7, 1, 2], [7, 3, 255], [7, 7, 7]]
    assert F.pad(mu.Tensor(labels[None]), (1, 0, 0, 1), "reflect").tolist() == [[[2, 1, 2], [255, 3, 255], [2, 1, 2]]]


def test_memory_stays_channels_last():
    x = np.moveaxis(np.zeros((2, 5, 6, 8), np.float32), -1, 1)
    for mode in ("constant", "reflect"):
        y = F.pad(mu.Tensor(x), (1, 1, 1, 1), mode).data
        assert np.moveaxis(y, 1, -1).flags.c_contiguous, mode
