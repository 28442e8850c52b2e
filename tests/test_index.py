"""The gradient of indexing: what one element gives to many places comes back as one sum, always added in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minunet import Tensor
from minunet.arrays import to_device
from tests.running import on

SHAPE = (5, 6, 7)
RNG = np.random.default_rng(0)
INDICES: dict[str, Any] = {
    "one row many times": np.zeros(1000, np.int64),
    "rows in disorder": RNG.integers(0, 5, 300),
    "negative": np.array([-1, 4, -5, 0, -1]),
    "two arrays": (RNG.integers(-5, 5, (40, 1)), RNG.integers(0, 6, 30)),
    "between slices": (slice(None, None, -2), RNG.integers(0, 6, 50), slice(2, 5)),
    "apart": (RNG.integers(0, 5, 20), slice(1, 4), RNG.integers(0, 7, 20)),
    "a mask": RNG.random(SHAPE) < 0.3,
    "a mask of rows": (np.array([True, False, True, True, False]), Ellipsis, 3),
    "a mask of two axes": np.arange(30).reshape(5, 6) % 4 == 1,
    "a list": [0, 3, 3, -2, 3],
    "a new axis": (None, np.array([2, 2, 0, 2])),
    "nothing": np.zeros((0, 2), np.int64),
}


def gradient(index: Any, gy: np.ndarray, device: str) -> np.ndarray:
    x = Tensor(to_device(np.ones(SHAPE, gy.dtype), device), requires_grad=True)
    x[index].backward(to_device(gy, device))
    return to_device(x.grad, "cpu")


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_place_gets_its_sum_in_the_same_order_everywhere(name: str, dtype: type):
    index = INDICES[name]
    gy = RNG.standard_normal(np.ones(SHAPE)[index].shape).astype(dtype)
    want = np.zeros(SHAPE)
    np.add.at(want, index, gy.astype(np.float64))
    got = gradient(index, gy, "cpu")
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 if dtype == np.float64 else 2e-5)
    with on("gpu"):
        assert gradient(index, gy, "cuda").tobytes() == gradient(index, gy, "cuda").tobytes() == got.tobytes()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9])
def test_neighbours_are_added_first_then_pairs(count: int):
    """In whole numbers of float32 that round, so that another order gives another sum."""
    values = [np.float32(v) for v in RNG.integers(1 << 22, 1 << 26, count)]
    row = list(values)
    while len(row) > 1:
        row = [a + b for a, b in zip(row[::2], row[1::2], strict=False)] + row[len(row) // 2 * 2 :]
    x = Tensor(np.zeros(3, np.float32), requires_grad=True)
    x[np.full(count, 1)].backward(np.array(values))
    assert x.grad.tolist() == [0, row[0], 0]


def test_the_sum_of_many_is_exact_to_rounding():
    """One after another, 2²⁰ tenths in float32 would be wrong in the third digit."""
    x = Tensor(np.zeros(1, np.float32), requires_grad=True)
    x[np.zeros(1 << 20, np.int64)].backward(np.full(1 << 20, 0.1, np.float32))
    assert x.grad[0] == pytest.approx((1 << 20) * float(np.float32(0.1)), rel=1e-7)
