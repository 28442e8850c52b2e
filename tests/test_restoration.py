"""Losses and metrics of restored images: against their formulas, PyTorch and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest

from minunet import Tensor, losses, metrics, tensor
from minunet.testing import gradcheck
from tests.conftest import require


def sample(seed: int = 0):
    """An output and a target, (2, 3, 4, 5); no two values that belong together are close."""
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(2, 3, 4, 5))
    return target + rng.choice([-1, 1], target.shape) * rng.uniform(0.1, 1, target.shape), target


# losses


@pytest.mark.parametrize(("ours", "theirs"), [("squared_error", "mse_loss"), ("absolute_error", "l1_loss")])
def test_equals_torch(ours, theirs):
    torch = require("torch")
    f, y = sample()
    a, b = tensor(f, requires_grad=True), torch.tensor(f, requires_grad=True)
    loss = getattr(losses, ours)(a, y)
    expected = getattr(torch.nn.functional, theirs)(b, torch.tensor(y))
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-10)


def test_masked_squared_error_counts_what_the_mask_leaves():
    f, y = sample()
    mask = np.random.default_rng(1).random((2, 1, 4, 5)) < 0.4
    output = tensor(f, requires_grad=True)
    loss = losses.squared_error(output, y, mask=mask)
    loss.backward()
    every = np.broadcast_to(mask, f.shape)
    assert loss.item() == pytest.approx(((f - y) ** 2)[every].mean())
    np.testing.assert_allclose(output.grad, np.where(every, 2 * (f - y) / every.sum(), 0))
    nothing = losses.squared_error(output, y, mask=np.zeros_like(f))
    nothing.backward()
    assert nothing.item() == 0


@pytest.mark.parametrize("gamma", [2.0, 1.0, 0.5, 0.02])
def test_annealed_error_is_the_formula(gamma):
    f, y = sample()
    assert losses.annealed_error(Tensor(f), y, gamma=gamma).item() == pytest.approx(((abs(f - y) + 1e-8) ** gamma).mean())


def test_annealed_error_begins_as_l2_and_ends_by_counting():
    f, y = sample()
    assert losses.annealed_error(Tensor(f), y, gamma=2).item() == pytest.approx(losses.squared_error(Tensor(f), y).item(), rel=1e-6)
    f[:, 0] = y[:, 0]  # a third is hit
    assert losses.annealed_error(Tensor(f), y, gamma=1e-6).item() == pytest.approx(1, abs=1e-4)
    misses = losses.annealed_error(Tensor(f), y, gamma=0.3).item()
    assert misses == pytest.approx((abs(f - y)[:, 1:] ** 0.3).sum() / f.size + 1e-8**0.3 / 3)
    still = tensor(f, requires_grad=True)
    losses.annealed_error(still, y, gamma=0).backward()
    assert not still.grad.any()


def test_hdr_error_holds_its_divisor_fixed():
    f, y = sample()
    f[0, 0, 0] = abs(f[0, 0, 0]) * 100  # a firefly
    output = tensor(f, requires_grad=True)
    loss = losses.hdr_error(output, y)
    loss.backward()
    divisor = (np.maximum(f, 0) + 0.01) ** 2
    assert loss.item() == pytest.approx(((f - y) ** 2 / divisor).mean())
    np.testing.assert_allclose(output.grad, 2 * (f - y) / divisor / f.size, rtol=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        losses.squared_error,
        losses.absolute_error,
        lambda f, y: losses.squared_error(f, y, mask=np.arange(5) % 2),
        lambda f, y: losses.annealed_error(f, y, gamma=1.7),
        lambda f, y: losses.annealed_error(f, y, gamma=0.4),
    ],
    ids=["l2", "l1", "masked", "γ=1.7", "γ=0.4"],
)
def test_gradients(loss):
    f, y = sample()
    assert gradcheck(lambda output: loss(output, y), [tensor(f, requires_grad=True)])


def test_gradient_of_hdr_error_with_its_divisor_fixed():
    f, y = sample()
    divisor = Tensor(np.maximum(f, 0) + 0.01)
    fixed = tensor(f, requires_grad=True)
    assert gradcheck(lambda output: (((output - Tensor(y)) / divisor) ** 2).mean(), [fixed])
    (((fixed - Tensor(y)) / divisor) ** 2).mean().backward()
    ours = tensor(f, requires_grad=True)
    losses.hdr_error(ours, y).backward()
    np.testing.assert_allclose(ours.grad, fixed.grad, rtol=1e-12)


def minimiser(loss, targets: np.ndarray) -> float:
    """The constant on a fine grid that has the smallest loss to all targets."""
    grid = np.linspace(-1, 1, 401)
    costs = [loss(Tensor(np.full(targets.shape, value)), targets).item() for value in grid]
    return float(grid[int(np.argmin(costs))])


def test_what_each_loss_makes_of_many_targets():
    """A quarter hits 0.2, the others are anything in 0 … 1: mean, median and mode are three numbers."""
    rng = np.random.default_rng(0)
    targets = np.where(rng.random(2000) < 0.25, 0.2, rng.random(2000))
    mean, median = targets.mean(), np.median(targets)
    assert mean - 0.05 > median > 0.2 + 0.05
    assert minimiser(losses.squared_error, targets) == pytest.approx(mean, abs=0.003)
    assert minimiser(losses.absolute_error, targets) == pytest.approx(median, abs=0.01)
    assert minimiser(lambda f, y: losses.annealed_error(f, y, gamma=0.05), targets) == pytest.approx(0.2, abs=1e-9)


def test_losses_refuse_what_does_not_fit():
    f, y = sample()
    for loss in (losses.squared_error, losses.absolute_error, losses.hdr_error):
        with pytest.raises(ValueError, match=r"the target has the output's shape 2×3×4×5, got 2×3×4\.$"):
            loss(Tensor(f), y[..., 0])
    with pytest.raises(ValueError, match="gamma falls from 2 to 0, got -1"):
        losses.annealed_error(Tensor(f), y, gamma=-1)


# metrics


@pytest.mark.parametrize("shape", [(1, 32, 40), (3, 21, 17), (1, 14, 13, 15)])
@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_scores_equal_scikit_image(shape, data_range):
    scores = require("skimage.metrics")
    rng = np.random.default_rng(0)
    clean = np.cumsum(rng.random(shape), axis=-1) / shape[-1] * data_range
    noisy = clean + 0.1 * data_range * rng.standard_normal(shape)
    assert metrics.psnr(noisy, clean, data_range=data_range) == pytest.approx(
        scores.peak_signal_noise_ratio(clean, noisy, data_range=data_range), rel=1e-12
    )
    published = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 0}
    expected = scores.structural_similarity(clean, noisy, data_range=data_range, **published)
    assert metrics.ssim(noisy, clean, data_range=data_range) == pytest.approx(expected, rel=1e-9)


def test_scores_of_equal_images():
    image = np.random.default_rng(0).random((1, 16, 16))
    assert metrics.psnr(image, image) == float("inf")
    assert metrics.ssim(image, image) == pytest.approx(1)
    assert metrics.psnr(image + 0.1, image) == pytest.approx(20)


def test_scores_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match=r"psnr: image and reference have one shape .* got 1×4×4 and 4×4"):
        metrics.psnr(np.ones((1, 4, 4)), np.ones((4, 4)))
    with pytest.raises(ValueError, match="ssim compares windows of 11 pixels"):
        metrics.ssim(np.ones((1, 10, 30)), np.ones((1, 10, 30)))
