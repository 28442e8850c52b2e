"""Interpolation: what the operation table cannot say."""

from __future__ import annotations

import numpy as np
import pytest

import minunet as mu
from minunet import functional as F
from minunet.arrays import to_device
from minunet.ops.upsample import gpu, ref
from minunet.ops.upsample.tables import linear_table, nearest_table, transposed
from tests import running
from tests.conftest import require
from tests.running import on

every_set = pytest.mark.parametrize("kernel_set", ["ref", "cpu", "gpu"])


def dense(table, n):
    matrix = np.zeros((len(table.source), n))
    np.add.at(matrix, (np.arange(len(table.source))[:, None], table.source), table.weight)
    return matrix


def test_the_transposed_table_is_the_transposed_matrix():
    for n in range(1, 9):
        for out in range(1, 20):
            step = n / out
            for table in (nearest_table(n, out, step, 0.0), linear_table(n, out, step, False), linear_table(n, out, step, True)):
                assert np.allclose(dense(table, n).sum(axis=1), 1)
                assert np.array_equal(dense(transposed(table, n), out), dense(table, n).T)


def test_nearest_takes_the_neighbour_that_torch_takes():
    """At some sizes the last bit of the position decides; PyTorch computes it in float32."""
    torch = require("torch")
    for n in (2, 3, 7, 22, 49):
        for out in (*range(1, 60), 82, 94, 98, 110):
            x = np.arange(n, dtype=np.float32).reshape(1, 1, n)
            want = torch.nn.functional.interpolate(torch.from_numpy(x), size=out).numpy()
            assert np.array_equal(F.interpolate(mu.Tensor(x), size=out).data, want), f"{n} → {out}"


@every_set
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_nearest_keeps_labels(kernel_set, dtype):
    labels = np.array([[0, 1], [2, 255]], dtype).reshape(1, 1, 2, 2)
    with on(kernel_set):
        y = to_device(F.interpolate(mu.Tensor(to_device(labels, running.device)), scale_factor=2).data, "cpu")
    assert y.dtype == dtype
    assert np.array_equal(y[0, 0], labels[0, 0].repeat(2, 0).repeat(2, 1))


def channels_last(array):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last])
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 5, 4), (1, 2, 3, 2, 4), (2, 8, 5, 4)], ids=str)
def test_the_gpu_keeps_the_order_in_memory(shape, layout):
    x = layout(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    tables = tuple(linear_table(n, 7, n / 7, False) for n in shape[2:])
    back = tuple(map(transposed, tables, shape[2:]))
    with on("gpu"):
        y = gpu.resample(to_device(x, "cuda"), tables)
        gx = gpu.resample(y, back)
    for got, want in ((y, ref.resample(x, tables)), (gx, ref.resample(ref.resample(x, tables), back))):
        assert got.strides == layout(want).strides
        np.testing.assert_allclose(got.get(), want, atol=2e-6 * np.abs(want).max())


def test_tables_go_to_the_gpu_once():
    gpu._packed.cache_clear()
    with on("gpu"):
        x = mu.Tensor(to_device(np.ones((1, 1, 3, 4), np.float32), "cuda"), requires_grad=True)
        for _ in range(3):
            F.interpolate(x, scale_factor=2, mode="bilinear").sum().backward()
    assert gpu._packed.cache_info().misses == 2  # there and back


def test_arguments_by_position_are_torchs():
    torch = require("torch")
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 4))
    want = torch.nn.functional.interpolate(torch.from_numpy(x), None, 1.6, "bilinear", True, False)
    assert np.allclose(F.interpolate(mu.Tensor(x), None, 1.6, "bilinear", True, False).data, want.numpy(), atol=1e-14)
