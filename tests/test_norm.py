"""Normalisation: running statistics, and accuracy where float32 has little room."""

import numpy as np
import pytest

import minunet as mu
from minunet import Tensor
from minunet import functional as F
from minunet.arrays import to_device
from minunet.ops.norm import gpu, ref
from tests import host_gpu
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


# normalisation and ReLU in one pass, and how the cpu kernels walk through memory

NORMS = {
    "batch": lambda *tensors, **options: F.batch_norm(tensors[0], None, None, *tensors[1:], training=True, **options),
    "running": lambda *tensors, **options: F.batch_norm(tensors[0], *statistics(tensors[0]), *tensors[1:], **options),
    "instance": lambda *tensors, **options: F.instance_norm(tensors[0], None, None, *tensors[1:], **options),
    "group": lambda *tensors, **options: F.group_norm(tensors[0], tensors[0].shape[1], *tensors[1:], **options),
}
every_norm = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)


def statistics(x):
    return Tensor(np.full(x.shape[1], 0.25, x.dtype)), Tensor(np.full(x.shape[1], 2, x.dtype))


def data(*shape, dtype=np.float32):
    """x with channels last in memory, weight, bias, and a gradient for the output."""
    rng = np.random.default_rng(3)
    x, gy = (np.moveaxis(rng.standard_normal((shape[0], *shape[2:], shape[1])).astype(dtype), -1, 1) for _ in range(2))
    weight, bias = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    return x, weight, bias, gy


def run_norm(norm, x, weight, bias, gy, **options):
    """Output and the three gradients."""
    leaves = [Tensor(a, requires_grad=True) for a in (x, weight, bias)]
    y = norm(*leaves, **options)
    y.backward(gy)
    return [y.data, *(leaf.grad for leaf in leaves)]


@every_norm
@pytest.mark.parametrize("kernel_set", ["ref", "auto"])
@pytest.mark.parametrize("shape", [(2, 3, 33, 35), (1, 1, 64, 64), (3, 40, 2, 2)])
def test_with_relu_equals_relu_behind_it(norm, kernel_set, shape):
    x, *rest = data(*shape)
    with mu.use(kernel_set):
        fused = run_norm(norm, x, *rest, activation="relu")
        apart = run_norm(lambda *tensors: F.relu(norm(*tensors)), x, *rest)
    for got, want in zip(fused, apart, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kernel_set", ["ref", "auto"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradient_stops_exactly_where_the_output_is_zero(kernel_set, dtype):
    """Neighbouring floats round the place where y changes sign: the backward computes the sign anew and must round as the forward did."""
    mean, var, weight, bias = (np.array([v], dtype) for v in (0.3, 1.7, 1.3, -0.7))
    zero = (mean - bias / weight * np.sqrt(var + 1e-5)).astype(dtype)
    x = (zero + np.arange(-500, 500) * np.spacing(zero)).astype(dtype).reshape(1, 1, 1000)
    leaf = Tensor(x, requires_grad=True)
    with mu.use(kernel_set):
        y = F.batch_norm(leaf, Tensor(mean), Tensor(var), Tensor(weight), Tensor(bias), activation="relu")
        y.backward(np.ones_like(x))
    assert 0 < (y.data > 0).sum() < 1000
    np.testing.assert_array_equal(leaf.grad > 0, y.data > 0)


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e6])
@pytest.mark.parametrize(("shape", "groups"), [((1, 1500, 33), 33), ((2, 700, 6), 3), ((2, 9, 40), 1), ((1, 20_000, 1), 1)])
def test_statistics_on_the_gpu_are_exact_where_the_mean_is_large(shape, groups, offset):
    x = (np.random.default_rng(1).standard_normal(shape) + offset).astype(np.float32)
    with host_gpu.installed():
        mean, var = (to_device(a, "cpu") for a in gpu.moments(to_device(x, "cuda"), groups))
    exact_mean, exact_var = ref.moments(x.astype(np.float64), groups)
    np.testing.assert_allclose(mean, exact_mean, rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(var, exact_var, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_on_the_gpu_the_gradient_stops_exactly_where_the_output_is_zero(dtype):
    centre, scale, shift = 0.3, 0.99, -0.53
    zero = dtype(centre - shift / scale)
    x = (zero + np.arange(-500, 500) * np.spacing(zero)).astype(dtype).reshape(1, 1000, 1)
    line = np.array([centre, scale, shift, 0, 0], dtype).reshape(5, 1, 1)
    with host_gpu.installed():
        on_gpu, ones, lines = (to_device(a, "cuda") for a in (x, np.ones_like(x), line))
        y = gpu.normalize(on_gpu, lines[:3], 0.0, None).get()
        gx = gpu.grad_x(ones, on_gpu, lines, 0.0).get()
        first, _ = gpu.sums(ones, on_gpu, lines[:3], 0.0)
        passed = first.item()
    assert 0 < (y > 0).sum() < 1000
    np.testing.assert_array_equal(gx > 0, y > 0)
    assert passed == (y > 0).sum()


@every_norm
def test_nan_goes_through_relu(norm):
    x, weight, bias, _ = data(2, 3, 4, 4)
    x[0, 1, 2, 2] = np.nan
    y = norm(Tensor(x), Tensor(weight), Tensor(bias), activation="relu").data
    assert np.isnan(y[0, 1, 2, 2])
    assert np.isfinite(y[:, [0, 2]]).all()


def test_a_result_goes_where_it_is_told_to_whatever_the_memory_order():
    x, weight, bias, _ = data(2, 3, 5, 4)
    want = F.instance_norm(Tensor(x), weight=Tensor(weight), bias=Tensor(bias)).data
    room = np.full((2, 7, 4, 3), np.nan, x.dtype)  # channels last, of lines that are longer
    out = np.moveaxis(room, -1, 1)[:, :, :5]
    F.instance_norm(Tensor(x), weight=Tensor(weight), bias=Tensor(bias), out=out)
    np.testing.assert_allclose(out, want, atol=1e-6)
    assert np.isnan(room[:, 5:]).all()


@every_norm
@pytest.mark.parametrize("channels", [1, 3, 16, 80])
def test_a_slice_of_a_wider_array_is_read_in_place(norm, channels, monkeypatch):
    x, weight, bias, gy = data(2, channels, 24, 25)

    def sliced(a):
        wide = np.full((*a.shape[:1], *a.shape[2:], channels + 7), np.nan, a.dtype)
        wide[..., 4 : 4 + channels] = np.moveaxis(a, 1, -1)
        return np.moveaxis(wide[..., 4 : 4 + channels], -1, 1)

    want = run_norm(norm, x, weight, bias, gy, activation="relu")
    x, gy = sliced(x), sliced(gy)
    monkeypatch.setattr(np, "ascontiguousarray", None)  # nothing is copied
    for got, expected in zip(run_norm(norm, x, weight, bias, gy, activation="relu"), want, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-3 * max(1, abs(expected).max() / 1000))


@every_norm
@pytest.mark.parametrize("shape", [(2, 64, 65, 48), (2, 1, 300, 200), (3, 1030, 7, 9)])
def test_the_number_of_threads_changes_no_bit(norm, shape):
    numba = require("numba")
    before, results = numba.get_num_threads(), []
    try:
        for threads in range(1, min(3, numba.config.NUMBA_NUM_THREADS) + 1):
            numba.set_num_threads(threads)
            results.append(run_norm(norm, *data(*shape), activation="relu"))
    finally:
        numba.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mean", [0, 30])
@pytest.mark.parametrize("shape", [(2, 16, 128, 128), (1, 256, 16, 16), (2, 3, 61, 67)])
def test_float32_is_as_accurate_as_torch(shape, mean):
    torch = require("torch")
    x, weight, bias, gy = data(*shape, dtype=np.float64)
    x, weight, bias, gy = (a.astype(np.float32) for a in (x + mean, weight, bias, gy))
    want = run_norm(NORMS["batch"], *(a.astype(np.float64) for a in (x, weight, bias, gy)))
    ours = run_norm(NORMS["batch"], x, weight, bias, gy)
    leaves = [torch.from_numpy(np.array(a)).requires_grad_() for a in (x, weight, bias)]
    y = torch.nn.functional.batch_norm(leaves[0], None, None, *leaves[1:], training=True)
    y.backward(torch.from_numpy(gy))
    theirs = [y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]
    for a, b, exact in zip(ours, theirs, want, strict=True):
        error, least = (np.sqrt(((v - exact) ** 2).mean() / (exact**2).mean()) for v in (a, b))
        assert error < max(1.2 * least, 1e-7)
