"""Interpolation: what the operation table cannot say."""

from __future__ import annotations

import numpy as np
import pytest

import minunet as mu
from minunet import functional as F
from minunet.ops.upsample.tables import linear_table, nearest_table, transposed
from tests.conftest import require

both_sets = pytest.mark.parametrize("kernel_set", ["ref", "cpu"])


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


@both_sets
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_nearest_keeps_labels(kernel_set, dtype):
    labels = np.array([[0, 1], [2, 255]], dtype).reshape(1, 1, 2, 2)
    with mu.use(kernel_set):
        y = F.interpolate(mu.Tensor(labels), scale_factor=2)
    assert y.dtype == dtype
    assert np.array_equal(y.data[0, 0], labels[0, 0].repeat(2, 0).repeat(2, 1))


def test_arguments_by_position_are_torchs():
    torch = require("torch")
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 4))
    want = torch.nn.functional.interpolate(torch.from_numpy(x), None, 1.6, "bilinear", True, False)
    assert np.allclose(F.interpolate(mu.Tensor(x), None, 1.6, "bilinear", True, False).data, want.numpy(), atol=1e-14)
