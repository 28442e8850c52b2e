"""Segmentation losses against their formulas, PyTorch and MONAI; the two facts about the lecture's forms; bad inputs."""

import warnings

import numpy as np
import pytest

from minunet import Tensor, losses, tensor
from minunet.testing import gradcheck
from tests.conftest import require

C = 3


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def true_class_probability(z, target):
    """(N, *spatial) from logits (N, C, *spatial), one channel standing for two classes."""
    p = softmax(np.concatenate([0 * z, z], axis=1) if z.shape[1] == 1 else z)
    return np.take_along_axis(p, target[:, None], axis=1)[:, 0]


def sample(channels, seed=0, spatial=(5, 4)):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(2, channels, *spatial)) * 2
    return z, rng.integers(0, max(channels, 2), (2, *spatial)), rng.uniform(0.2, 3, (2, *spatial))


def perfect(target, channels):
    """Logits so large that the prediction is the truth."""
    if channels == 1:
        return 1e3 * (2.0 * target[:, None] - 1)
    return 1e3 * np.moveaxis(np.eye(channels)[target], -1, 1)


# cross-entropy


@pytest.mark.parametrize("channels", [1, 2, C])
@pytest.mark.parametrize("spatial", [(6,), (5, 4), (3, 2, 4)])
def test_cross_entropy_is_the_formula(channels, spatial):
    z, target, pixel_weights = sample(channels, spatial=spatial)
    class_weights = np.arange(1.0, max(channels, 2) + 1)
    nll = -np.log(true_class_probability(z, target))
    w = class_weights[target] * pixel_weights
    assert losses.cross_entropy(Tensor(z), target).item() == pytest.approx(nll.mean())
    weighted = losses.cross_entropy(Tensor(z), target, class_weights=class_weights, pixel_weights=pixel_weights)
    assert weighted.item() == pytest.approx((w * nll).sum() / w.sum())
    ignoring = losses.cross_entropy(Tensor(z), target, pixel_weights=pixel_weights, ignore_index=1)
    w = pixel_weights * (target != 1)
    assert ignoring.item() == pytest.approx((w * nll).sum() / w.sum())


def test_categorical_equals_torch():
    torch = require("torch")
    z, target, _ = sample(C)
    target[0, 0] = 255
    weights = np.array([0.5, 1.0, 3.0])
    ours, theirs = tensor(z, requires_grad=True), torch.tensor(z, requires_grad=True)
    ours_loss = losses.categorical_cross_entropy(ours, target, class_weights=weights, ignore_index=255)
    theirs_loss = torch.nn.functional.cross_entropy(theirs, torch.tensor(target), torch.tensor(weights), ignore_index=255)
    assert ours_loss.item() == pytest.approx(theirs_loss.item(), rel=1e-12)
    ours_loss.backward()
    theirs_loss.backward()
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-10, atol=1e-15)


def test_binary_equals_torch():
    torch = require("torch")
    z, target, _ = sample(1)
    ours, theirs = tensor(z, requires_grad=True), torch.tensor(z, requires_grad=True)
    ours_loss = losses.binary_cross_entropy(ours, target)
    theirs_loss = torch.nn.functional.binary_cross_entropy_with_logits(theirs, torch.tensor(target[:, None], dtype=torch.float64))
    assert ours_loss.item() == pytest.approx(theirs_loss.item(), rel=1e-12)
    ours_loss.backward()
    theirs_loss.backward()
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-10, atol=1e-15)


def test_one_channel_equals_two_with_a_zero():
    z, target, _ = sample(1)
    two = np.concatenate([0 * z, z], axis=1)
    for loss in (losses.cross_entropy, losses.dice_loss, losses.lecture_dice_loss, losses.dice_cross_entropy):
        assert loss(Tensor(z), target).item() == pytest.approx(loss(Tensor(two), target).item(), rel=1e-12)


@pytest.mark.parametrize("channels", [1, C])
def test_all_pixels_ignored_costs_nothing(channels):
    z, target, _ = sample(channels)
    logits = tensor(z, requires_grad=True)
    loss = losses.cross_entropy(logits, np.full_like(target, 255), ignore_index=255)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


# the lecture's forms


@pytest.mark.parametrize("channels", [2, C])
def test_lecture_cross_entropy_is_the_conventional_one_over_the_classes(channels):
    z, target, _ = sample(channels)
    conventional = losses.categorical_cross_entropy(Tensor(z), target).item()
    lecture = losses.categorical_cross_entropy(Tensor(z), target, normalization="lecture").item()
    assert lecture == pytest.approx(conventional / channels, rel=1e-14)


@pytest.mark.parametrize("channels", [1, 2, C, 7])
def test_lecture_dice_of_a_perfect_prediction_is_not_zero(channels):
    _, target, _ = sample(channels)
    logits = Tensor(perfect(target, channels))
    assert losses.lecture_dice_loss(logits, target).item() == pytest.approx(1 - 1 / max(channels, 2), rel=1e-14)
    assert losses.dice_loss(logits, target).item() == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("channels", [1, 2, C])
def test_lecture_dice_is_its_double_sum(channels):
    z, target, _ = sample(channels)
    p = softmax(np.concatenate([0 * z, z], axis=1) if channels == 1 else z)
    g = np.moveaxis(np.eye(p.shape[1])[target], -1, 1)
    double_sum = (2 * p * g / (p + g)).sum() / (target.size * p.shape[1])
    assert losses.lecture_dice_loss(Tensor(z), target).item() == pytest.approx(1 - double_sum, rel=1e-12)


def test_lecture_dice_does_not_measure_overlap():
    """One object pixel missed costs the same on any object; the conventional Dice asks how large the object is."""
    small, large = np.zeros((1, 8, 8), int), np.zeros((1, 8, 8), int)
    small[0, 0, :2], large[0, :4] = 1, 1
    costs = []
    for target in (small, large):
        missed = target.copy()
        missed[0, 0, 0] = 0
        logits = Tensor(perfect(missed, 2))
        costs.append((losses.lecture_dice_loss(logits, target).item(), losses.dice_loss(logits, target).item()))
    (lecture_small, small_dice), (lecture_large, large_dice) = costs
    assert lecture_small == pytest.approx(lecture_large, rel=1e-12)
    assert small_dice > 5 * large_dice


# Dice


@pytest.mark.parametrize("per", ["sample", "batch"])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("smooth", [1.0, 1e-5])
def test_dice_equals_monai(per, background, smooth):
    z, target, _ = sample(C)
    with warnings.catch_warnings(action="ignore"):  # MONAI's import warns
        torch, monai = require("torch"), require("monai.losses")
        options = {"include_background": background, "smooth_nr": smooth, "smooth_dr": smooth, "batch": per == "batch"}
        dice = monai.DiceLoss(to_onehot_y=True, softmax=True, **options)
        both = monai.DiceCELoss(to_onehot_y=True, softmax=True, **options)
        theirs, truth = torch.tensor(z, requires_grad=True), torch.tensor(target[:, None])
        wanted, wanted_sum = dice(theirs, truth), both(theirs, truth)
        wanted.backward()
    ours = tensor(z, requires_grad=True)
    loss = losses.dice_loss(ours, target, per=per, background=background, smooth=smooth)
    loss.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-6, atol=1e-12)
    total = losses.dice_cross_entropy(Tensor(z), target, per=per, background=background, smooth=smooth)
    assert total.item() == pytest.approx(wanted_sum.item(), rel=1e-6)


def test_binary_dice_equals_monai():
    z, target, _ = sample(1)
    with warnings.catch_warnings(action="ignore"):
        torch, monai = require("torch"), require("monai.losses")
        wanted = monai.DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)(torch.tensor(z), torch.tensor(target[:, None]))
    assert losses.dice_loss(Tensor(z), target).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_dice_leaves_ignored_pixels_out():
    z, target, _ = sample(C)
    z, target = z[:1], target[:1]
    marked = np.concatenate([target, np.full_like(target, 255)], axis=1)
    doubled = np.concatenate([z, 5 - z], axis=2)
    for background in (False, True):
        wanted = losses.dice_loss(Tensor(z), target, background=background).item()
        got = losses.dice_loss(Tensor(doubled), marked, background=background, ignore_index=255).item()
        assert got == pytest.approx(wanted, rel=1e-12)


def test_an_empty_image_predicted_empty_costs_nothing():
    target = np.zeros((2, 4, 4), int)
    assert losses.dice_loss(Tensor(perfect(target, 1)), target).item() == pytest.approx(0, abs=1e-14)


def test_dice_per_batch_differs_from_per_sample():
    z, target, _ = sample(2)
    target[0] = 0
    per_sample, per_batch = (losses.dice_loss(Tensor(z), target, per=per).item() for per in ("sample", "batch"))
    assert abs(per_sample - per_batch) > 1e-3


# all of them

ALL = {
    "binary": lambda z, t, w: losses.binary_cross_entropy(z, t, class_weights=(1, 3), pixel_weights=w, ignore_index=255),
    "categorical": lambda z, t, w: losses.categorical_cross_entropy(z, t, class_weights=(1, 2, 3), pixel_weights=w, ignore_index=255),
    "dice": lambda z, t, w: losses.dice_loss(z, t, ignore_index=255),
    "dice, batch, background": lambda z, t, w: losses.dice_loss(z, t, per="batch", background=True, ignore_index=255),
    "dice and entropy": lambda z, t, w: losses.dice_cross_entropy(z, t, pixel_weights=w, ignore_index=255),
    "lecture dice": lambda z, t, w: losses.lecture_dice_loss(z, t * (t != 255)),
}


@pytest.mark.parametrize("name", ALL)
def test_gradients(name):
    z, target, weights = sample(1 if name == "binary" else C)
    target[0, 0] = 255
    gradcheck(lambda z: ALL[name](z, target, weights), [tensor(z, requires_grad=True)])


@pytest.mark.parametrize("name", ALL)
def test_float32_stays_float32_and_inputs_stay_as_they_were(name):
    z, target, weights = sample(1 if name == "binary" else C)
    z = z.astype(np.float32)
    before = z.copy(), target.copy(), weights.copy()
    logits = Tensor(z, requires_grad=True)
    loss = ALL[name](logits, Tensor(target), weights)
    loss.backward()
    assert loss.dtype == logits.grad.dtype == np.float32
    assert loss.shape == ()
    for now, then in zip((z, target, weights), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("channels", [1, C])
def test_certain_and_wrong_stays_finite(channels):
    _, target, _ = sample(channels)
    logits = tensor(-perfect(target, channels), requires_grad=True)
    for loss in (losses.cross_entropy, losses.dice_loss, losses.lecture_dice_loss):
        value = loss(logits, target)
        value.backward()
        assert np.isfinite(value.item())
        assert np.isfinite(logits.grad).all()


ONE, THREE, MASK = np.zeros((2, 1, 4, 4)), np.zeros((2, 3, 4, 4)), np.zeros((2, 4, 4), int)


@pytest.mark.parametrize(
    ("loss", "logits", "target", "options", "error", "message"),
    [
        ("binary_cross_entropy", THREE, MASK, {}, ValueError, "one channel, got 3. Use categorical"),
        ("categorical_cross_entropy", ONE, MASK, {}, ValueError, "got 1. Use binary"),
        ("categorical_cross_entropy", THREE, MASK, {"normalization": "slide"}, ValueError, "'mean' or 'lecture', got 'slide'"),
        ("dice_loss", ONE, MASK, {"background": True}, ValueError, "no background"),
        ("dice_loss", THREE, MASK, {"per": "image"}, ValueError, "'sample' or 'batch', got 'image'"),
        ("dice_loss", THREE, MASK[:, None], {}, ValueError, "need a target 2×4×4, .* no channel axis; got 2×1×4×4"),
        ("cross_entropy", THREE, MASK.astype(float), {}, TypeError, "target is float64, expected class numbers"),
        ("cross_entropy", ONE, MASK + 255, {}, ValueError, "holds class 255, but logits of 1 channels know classes 0 … 1"),
        ("cross_entropy", THREE, MASK, {"class_weights": (1, 2)}, ValueError, r"each of the 3 classes, got shape \(2,\)"),
        ("cross_entropy", THREE, MASK, {"pixel_weights": np.ones((4, 4))}, ValueError, "target's shape 2×4×4, got 4×4"),
        ("lecture_dice_loss", np.zeros(3), MASK, {}, ValueError, r"expects logits \(N, C, \*spatial\), got 3"),
    ],
)
def test_bad_inputs(loss, logits, target, options, error, message):
    with pytest.raises(error, match=message):
        getattr(losses, loss)(Tensor(logits), target, **options)
