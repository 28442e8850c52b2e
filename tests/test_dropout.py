"""Dropout: its masks are what the formula says, and depend on the seed and the shape alone."""

import numpy as np
import pytest

import minunet as mu
from minunet import Tensor, rng
from minunet import functional as F


def ones(*shape):
    return Tensor(np.ones(shape, np.float32))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_the_share_of_zeros_is_p_and_the_mean_is_kept(p):
    y = F.dropout(ones(40, 10, 25, 10), p).data  # 100,000 elements: the share's standard deviation is below 0.0016
    assert abs(float((y == 0).mean()) - p) < 0.008
    assert abs(float(y.mean()) - 1) < 0.008 / (1 - p)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - p))}


def test_neighbours_are_independent():
    kept = F.dropout(ones(10, 10, 100, 100)).data != 0
    for axis in range(4):
        a, b = np.delete(kept, 0, axis), np.delete(kept, -1, axis)
        assert abs(float((a == b).mean()) - 0.5) < 0.01


@pytest.mark.parametrize(
    ("function", "shape"), [(F.dropout1d, (50, 40, 3)), (F.dropout2d, (50, 40, 3, 2)), (F.dropout3d, (50, 40, 2, 1, 3))]
)
def test_channel_dropout_drops_whole_channels_of_single_samples(function, shape):
    y = function(ones(*shape), 0.3).data.reshape(*shape[:2], -1)
    assert (y == y[:, :, :1]).all()
    share = (y[:, :, 0] == 0).mean(axis=1)
    assert abs(share.mean() - 0.3) < 0.05
    assert share.std() > 0, "each sample draws its own channels"


def test_channel_dropout_takes_a_sample_without_batch_axis():
    y = F.dropout2d(ones(200, 3, 2)).data.reshape(200, -1)
    assert (y == y[:, :1]).all()
    assert 60 < (y[:, 0] == 0).sum() < 140


def test_the_seed_decides():
    def draw(seed):
        mu.manual_seed(seed)
        return F.dropout(ones(3, 4, 5, 5)).data

    assert np.array_equal(draw(3), draw(3))
    assert not np.array_equal(draw(3), draw(4))


def test_two_calls_differ():
    assert not np.array_equal(F.dropout(ones(100)).data, F.dropout(ones(100)).data)


def test_a_call_draws_one_number_from_the_stream_whatever_its_size():
    after = []
    for shape in ((2,), (3, 4, 5, 6)):
        mu.manual_seed(0)
        F.dropout(ones(*shape))
        after.append(rng.generator().random())
    assert after[0] == after[1]


def test_backward_uses_the_mask_of_the_forward():
    x = Tensor(np.ones((4, 3, 5, 5)), requires_grad=True)
    y = F.dropout(x, 0.4)
    y.backward(np.full(x.shape, 2.0))
    assert np.array_equal(x.grad, 2 * y.data)


def test_exact_where_nothing_or_all_is_dropped():
    x = Tensor(np.random.default_rng(0).standard_normal((3, 4)), requires_grad=True)
    assert F.dropout(x, 0.0) is x
    assert F.dropout(x, 0.9, training=False) is x
    y = F.dropout(x, 1.0)
    y.backward(np.ones(x.shape))
    assert not y.data.any()
    assert not x.grad.any()
