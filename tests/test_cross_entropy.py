"""Cross-entropy: what a training step meets beyond the operation table."""

import numpy as np
import pytest

from minunet import Tensor, losses
from minunet import functional as F
from tests.conftest import require

RNG = np.random.default_rng(0)


def test_the_mean_over_nothing_is_nan():
    loss = F.cross_entropy(Tensor(np.ones((2, 3))), Tensor(np.full(2, 255)), ignore_index=255)
    assert np.isnan(loss.item())


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64, bool])
def test_any_integer_type_holds_class_numbers(dtype):
    x, target = RNG.standard_normal((2, 2, 5)), RNG.integers(0, 2, (2, 5))
    assert F.cross_entropy(Tensor(x), Tensor(target.astype(dtype))).item() == F.cross_entropy(Tensor(x), Tensor(target)).item()


def test_ignored_pixels_get_no_gradient():
    x = Tensor(RNG.standard_normal((1, 3, 4)), requires_grad=True)
    F.cross_entropy(x, Tensor(np.array([[0, 255, 2, 255]])), ignore_index=255).backward()
    assert not x.grad[0, :, [1, 3]].any()
    assert x.grad[0, :, [0, 2]].all()


def test_it_equals_log_softmax_and_nll_loss():
    x, target, weight = RNG.standard_normal((2, 3, 4, 5)), RNG.integers(0, 3, (2, 4, 5)), Tensor(np.array([0.5, 1, 2]))
    grads = []
    for function in (F.cross_entropy, lambda x, *rest: F.nll_loss(F.log_softmax(x, 1), *rest)):
        logits = Tensor(x, requires_grad=True)
        loss = function(logits, Tensor(target), weight)
        loss.backward()
        grads.append((loss.item(), logits.grad))
    assert grads[0][0] == pytest.approx(grads[1][0], rel=1e-14)
    np.testing.assert_allclose(grads[0][1], grads[1][1], atol=1e-16)


@pytest.mark.parametrize("channels", [2, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_reaches_the_loss_and_its_pixel_alone(channels, dtype):
    x = RNG.standard_normal((1, channels, 700)).astype(dtype)
    x[0, 1, 3] = np.nan
    logits = Tensor(x, requires_grad=True)
    loss = F.cross_entropy(logits, Tensor(np.zeros((1, 700), int)))
    loss.backward()
    assert np.isnan(loss.item())
    assert np.isnan(logits.grad[0, :, 3]).all()
    assert np.isfinite(np.delete(logits.grad, 3, axis=2)).all()


def test_a_loss_far_below_one_keeps_its_digits():
    """ln(1 + e⁻³⁰) is 1e-13, though 1 + e⁻³⁰ is 1 in float32."""
    x = np.zeros((1, 3, 4), np.float32)
    x[:, 1] = 30
    loss = F.cross_entropy(Tensor(x), Tensor(np.ones((1, 4), int)))
    assert loss.item() == pytest.approx(2 * np.exp(-30), rel=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_class_ruled_out_by_minus_infinity(classes):
    x = Tensor(np.array([[-np.inf, *range(classes - 1)]]), requires_grad=True)
    loss = F.cross_entropy(x, Tensor(np.array([1])))
    loss.backward()
    assert np.isfinite(loss.item())
    assert np.isfinite(x.grad).all()
    assert x.grad[0, 0] == 0


def test_a_slice_of_a_wider_buffer_gives_the_same():
    """Pixels that lie further apart than their classes take room, over more pixels than one chunk holds."""
    wide, target = RNG.standard_normal((2, 100, 100, 7)).astype(np.float32), RNG.integers(0, 3, (2, 100, 100))
    part = np.moveaxis(wide[..., 2:5], -1, 1)
    results = []
    for x in (part, part.copy()):
        logits = Tensor(x, requires_grad=True)
        loss = F.cross_entropy(logits, Tensor(target))
        loss.backward()
        results.append((loss.item(), logits.grad))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_threads_do_not_change_a_bit_over_many_chunks():
    numba = require("numba")
    x, target = RNG.standard_normal((3, 2, 150, 150)).astype(np.float32), RNG.integers(0, 2, (3, 150, 150))
    before, results = numba.get_num_threads(), []
    functions = (
        lambda x: F.cross_entropy(x, Tensor(target), label_smoothing=0.1),
        lambda x: losses.dice_loss(x, target),
        lambda x: F.binary_cross_entropy_with_logits(x, Tensor(abs(x.data))),
    )
    try:
        for threads in range(1, min(numba.config.NUMBA_NUM_THREADS, 3) + 1):
            numba.set_num_threads(threads)
            for function in functions:
                logits = Tensor(x, requires_grad=True)
                loss = function(logits)
                loss.backward()
                results.append((loss.data.tobytes(), logits.grad.tobytes()))
    finally:
        numba.set_num_threads(before)
    assert all(result == results[i % len(functions)] for i, result in enumerate(results))
