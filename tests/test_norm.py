"""Normalisation: running statistics, and accuracy where float32 has little room."""

import numpy as np
import pytest

import minunet as mu
from minunet import Tensor
from minunet import functional as F
from tests.conftest import require

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 2, 4, 5)) * 2 + 1
MEAN, VAR = RNG.standard_normal(2), RNG.uniform(0.5, 2, 2)


def running():
    return Tensor(MEAN.copy()), Tensor(VAR.copy())


def test_batch_norm_moves_the_running_statistics_in_place():
    mean, var = running()
    memory = mean.data
    F.batch_norm(Tensor(X), mean, var, training=True, momentum=0.3)
    assert mean.data is memory
    np.testing.assert_allclose(mean.data, 0.7 * MEAN + 0.3 * X.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(
        var.data, 0.7 * VAR + 0.3 * X.var(axis=(0, 2, 3), ddof=1)
    )  # unbiased, though it normalises with the biased one


def test_instance_norm_moves_them_by_the_mean_over_samples():
    mean, var = running()
    F.instance_norm(Tensor(X), mean, var, momentum=0.3)
    np.testing.assert_allclose(mean.data, 0.7 * MEAN + 0.3 * X.mean(axis=(2, 3)).mean(axis=0))
    np.testing.assert_allclose(var.data, 0.7 * VAR + 0.3 * X.var(axis=(2, 3), ddof=1).mean(axis=0))


@pytest.mark.parametrize("kernel_set", ["ref", "auto"])
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics_equal_torch(name, kernel_set):
    torch = require("torch")
    ours, theirs = running(), [torch.from_numpy(a.copy()) for a in (MEAN, VAR)]
    for scale in (1.0, 3.0):
        flag = {"training": True} if name == "batch_norm" else {}
        with mu.use(kernel_set):
            getattr(F, name)(Tensor(scale * X), *ours, **flag)
        getattr(torch.nn.functional, name)(torch.from_numpy(scale * X), *theirs, **flag)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.data, b.numpy(), rtol=1e-12)


def test_keras_stores_the_biased_variance():
    keras = require("keras")
    layer = keras.layers.BatchNormalization(axis=1, momentum=0.9, epsilon=1e-5)
    layer.build(X.shape)
    layer(X.astype(np.float32), training=True)
    var = Tensor(np.ones(2))
    F.batch_norm(Tensor(X), Tensor(np.zeros(2)), var, training=True, momentum=0.1)
    m = X.size / 2
    np.testing.assert_allclose((np.asarray(layer.moving_variance) - 0.9) * m / (m - 1) + 0.9, var.data, rtol=1e-5)


def test_evaluation_and_an_empty_batch_leave_the_running_statistics():
    mean, var = running()
    F.batch_norm(Tensor(X), mean, var)
    F.instance_norm(Tensor(X), mean, var, use_input_stats=False)
    F.batch_norm(Tensor(X[:0]), mean, var, training=True)
    F.instance_norm(Tensor(X[:0]), mean, var)
    assert np.array_equal(mean.data, MEAN)
    assert np.array_equal(var.data, VAR)


def test_running_statistics_keep_their_dtype():
    mean, var = Tensor(MEAN.astype(np.float32)), Tensor(VAR.astype(np.float32))
    F.batch_norm(Tensor(X.astype(np.float32)), mean, var, training=True)
    assert mean.dtype == var.dtype == np.float32


@pytest.mark.parametrize("kernel_set", ["ref", "auto"])
@pytest.mark.parametrize("offset", [0.0, 1e4, -1e6])
def test_float32_is_accurate_where_the_mean_is_large(offset, kernel_set):
    x = (np.random.default_rng(1).integers(-8, 9, (4, 5, 30, 30)) + offset).astype(np.float32)  # exact in float32
    w = np.linspace(0.5, 1.5, 5).astype(np.float32)
    gy = np.random.default_rng(2).standard_normal(x.shape).astype(np.float32)
    results = []
    for dtype in (np.float32, np.float64):
        a, b, c = (Tensor(v.astype(dtype), requires_grad=True) for v in (x, w, 0 * w))
        with mu.use(kernel_set if dtype == np.float32 else "ref"):
            y = F.batch_norm(a, None, None, b, c, training=True)
            y.backward(gy.astype(dtype))
        results.append((y.data, a.grad, b.grad / x[:, 0].size, c.grad / x[:, 0].size))
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize("kernel_set", ["ref", "auto"])
def test_a_constant_channel_becomes_its_bias(kernel_set):
    x = np.full((2, 3, 4, 4), 0.1, np.float32)
    with mu.use(kernel_set):
        y = F.batch_norm(Tensor(x), None, None, None, Tensor(np.array([1, 2, 3], np.float32)), training=True)
    np.testing.assert_allclose(y.data[0, :, 0, 0], [1, 2, 3], atol=1e-5)


def test_channels_last_input_is_not_copied():
    last = np.random.default_rng(0).standard_normal((2, 5, 6, 4))
    y = F.batch_norm(Tensor(np.moveaxis(last, -1, 1)), None, None, training=True)
    assert np.moveaxis(y.data, 1, -1).flags.c_contiguous
