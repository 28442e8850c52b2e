"""Cross-entropy: what a training step meets beyond the operation table."""

import numpy as np
import pytest

from minunet import Tensor
from minunet import functional as F

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
