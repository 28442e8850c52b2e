"""Dropout: its masks are what the formula says, and depend on the seed and the shape alone."""

import numpy as np
import pytest

import minunet as mu
from minunet import Tensor, rng
from minunet import functional as F
from minunet.arrays import to_device
from minunet.ops.dropout import cpu, gpu, ref
from tests import host_gpu
from tests.conftest import require


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


def test_philox_gives_the_published_numbers():
    """The test vectors that come with the paper's program, Random123."""
    low, pi = 0xFFFFFFFF, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    for counter, key, want in (
        ((0,) * 4, (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((low,) * 4, (low, low), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (pi, (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ):
        got = ref.philox([np.array([word], np.uint64) for word in counter], key)
        assert tuple(int(word[0]) for word in got) == want


@pytest.mark.parametrize(
    "shape", [(), (3,), (0, 3), (5, 70), (2, 3, 90), (2, 20, 13, 30), (1, 3, 4, 5, 6), (2, 3, 1, 1), (2,) * 6], ids=str
)
def test_every_kernel_set_draws_the_same_mask(shape):
    x, key = np.zeros(shape, np.float32), np.array([0x76543210, 0xFEDCBA98], np.uint32)
    for p in (0.3, 0.5):
        want = ref.draw(x, shape, key, p)
        assert np.array_equal(want, cpu.draw(x, shape, key, p))
        with host_gpu.installed():
            on_gpu = gpu.draw(to_device(x, "cuda"), shape, to_device(key, "cuda"), p).get()
        assert on_gpu.dtype == want.dtype
        assert np.array_equal(want, on_gpu)


def test_an_element_has_its_own_word():
    """Element 64·b + 16·j + i, channels last, is decided by word j of counter 16·b + i."""
    shape, key = (2, 3, 4, 7), np.array([99, 0], np.uint32)
    kept = np.moveaxis(ref.draw(np.zeros(1), shape, key, 0.5), 1, -1).ravel()
    for e in range(kept.size):
        counter = [np.array([16 * (e // 64) + e % 16], np.uint64), *(np.zeros(1, np.uint64),) * 3]
        assert kept[e] == (ref.philox(counter, (99, 0))[e // 16 % 4][0] >= 2**31)


def test_the_mask_does_not_depend_on_threads_or_memory_order():
    numba = require("numba")
    x = np.ones((2, 24, 30, 40), np.float32)
    orders = [x, np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1), np.ones((2, 48, 30, 40), np.float32)[:, ::2]]
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        for array in orders:
            mu.manual_seed(7)
            results.append(F.dropout(Tensor(array), 0.4).data)
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert all(np.array_equal(results[0], y) for y in results[1:])


def test_a_nan_stays_one():
    for kernel_set in ("ref", "cpu"):
        with mu.use(kernel_set):
            assert np.isnan(F.dropout(Tensor(np.full((2, 3, 4, 4), np.nan))).data).all()


def test_whole_numbers_are_refused():
    with pytest.raises(TypeError, match="dropout needs floating-point numbers, got int64"):
        F.dropout(Tensor(np.ones(3, np.int64)))
