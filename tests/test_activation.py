"""Activations where the operation table cannot look: at the kink and at NaN."""

import numpy as np
import pytest

import minunet as mu
from minunet import Tensor
from minunet import functional as F
from tests.conftest import require

NAMES = ["relu", "leaky_relu", "elu", "sigmoid", "tanh"]


@pytest.mark.parametrize("name", NAMES)
def test_slope_at_zero_is_pytorchs(name):
    torch = require("torch")
    x, t = Tensor(np.zeros(1), requires_grad=True), torch.zeros(1, dtype=torch.float64, requires_grad=True)
    getattr(F, name)(x).backward(np.full(1, 3.0))
    function = getattr(torch, name) if name in ("sigmoid", "tanh") else getattr(torch.nn.functional, name)
    function(t).backward(torch.full((1,), 3.0, dtype=torch.float64))
    assert x.grad[0] == t.grad.item()


@pytest.mark.parametrize("name", [*NAMES, "prelu"])
def test_nan_stays_nan(name):
    weight = (Tensor(np.array([0.25])),) if name == "prelu" else ()
    y = getattr(F, name)(Tensor(np.array([np.nan, 1.0])), *weight).data
    assert np.isnan(y[0])
    assert np.isfinite(y[1])


def test_relu_of_numbers_that_are_not_aligned():
    records = np.zeros(6, np.dtype([("tag", "u1"), ("values", "f4", 5)]))  # rows of floats 21 bytes apart
    records["values"] = np.random.default_rng(0).standard_normal((6, 5))
    np.testing.assert_array_equal(F.relu(Tensor(records["values"])).data, np.maximum(records["values"], 0))


@pytest.mark.parametrize("name", NAMES)
def test_infinity_has_its_limit(name):
    low = {"relu": 0, "leaky_relu": -np.inf, "elu": -1, "sigmoid": 0, "tanh": -1}[name]
    high = 1 if name in ("sigmoid", "tanh") else np.inf
    np.testing.assert_array_equal(getattr(F, name)(Tensor(np.array([-np.inf, np.inf]))).data, [low, high])


@pytest.mark.parametrize("kernel_set", ["ref", "auto"])
def test_relu_stops_the_gradient_at_zero_and_passes_it_at_nan(kernel_set):
    """As PyTorch's does; an infinite gradient is stopped like any other."""
    torch = require("torch")
    values, gy = np.array([-1, -0.0, 0, 2, np.nan, -3]), np.array([1, 2, 3, 4, 5, np.inf])
    x, t = Tensor(values, requires_grad=True), torch.from_numpy(values.copy()).requires_grad_()
    with mu.use(kernel_set):
        F.relu(x).backward(gy)
    torch.relu(t).backward(torch.from_numpy(gy))
    np.testing.assert_array_equal(x.grad, t.grad.numpy())


def test_relu_keeps_the_memory_order_and_reads_slices_in_place(monkeypatch):
    rng = np.random.default_rng(0)
    last, wide = rng.standard_normal((2, 9, 8, 5)), rng.standard_normal((2, 9, 8, 12))
    x, gy = np.moveaxis(last, -1, 1), np.moveaxis(wide[..., 4:9], -1, 1)
    leaf = Tensor(x, requires_grad=True)
    monkeypatch.setattr(np, "ascontiguousarray", None)  # nothing is copied
    y = F.relu(leaf)
    gx = y.node.backward(gy)
    assert y.data.strides == gx.strides == x.strides
    np.testing.assert_array_equal(y.data, np.maximum(x, 0))
    np.testing.assert_array_equal(gx, gy * (x > 0))
    np.testing.assert_array_equal(F.relu(Tensor(gy)).data, np.maximum(gy, 0))


def test_relu_on_several_threads():
    numba = require("numba")
    values = np.random.default_rng(0).standard_normal((3, 7, 101, 103)).astype(np.float32)
    before = numba.get_num_threads()
    try:
        for threads in range(1, min(3, numba.config.NUMBA_NUM_THREADS) + 1):
            numba.set_num_threads(threads)
            x = Tensor(values, requires_grad=True)
            y = F.relu(x)
            y.backward(values)
            np.testing.assert_array_equal(y.data, np.maximum(values, 0))
            np.testing.assert_array_equal(x.grad, np.maximum(values, 0))
    finally:
        numba.set_num_threads(before)
