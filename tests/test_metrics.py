"""Metrics against loops over pixels, MONAI and scikit-image."""

import math
import warnings

import numpy as np
import pytest

from minunet import metrics
from tests.conftest import require


def maps(classes, seed=0, shape=(2, 9, 7)):
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, shape), rng.integers(0, classes, shape)


def loop_scores(prediction, target, classes, ignore_index=None):
    """dice, iou, precision and recall per class, pixel by pixel."""
    rows = []
    for c in range(classes):
        tp = fp = fn = 0
        for p, t in zip(prediction.ravel(), target.ravel(), strict=True):
            if t == ignore_index:
                continue
            tp += p == c and t == c
            fp += p == c and t != c
            fn += p != c and t == c
        nan = float("nan")
        rows.append(
            (
                2 * tp / (2 * tp + fp + fn) if tp + fp + fn else nan,
                tp / (tp + fp + fn) if tp + fp + fn else nan,
                tp / (tp + fp) if tp + fp else nan,
                tp / (tp + fn) if tp + fn else nan,
            )
        )
    return np.array(rows).T


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("ignore_index", [None, 1, 255])
def test_scores_equal_loops(classes, ignore_index):
    prediction, target = maps(classes)
    if ignore_index == 255:
        target[0, :3] = 255
    got = [
        f(prediction, target, classes, ignore_index=ignore_index) for f in (metrics.dice, metrics.iou, metrics.precision, metrics.recall)
    ]
    np.testing.assert_allclose(got, loop_scores(prediction, target, classes, ignore_index), rtol=1e-15)
    counted = target != ignore_index if ignore_index is not None else np.ones_like(target, bool)
    accuracy = (prediction == target)[counted].mean()
    assert metrics.pixel_accuracy(prediction, target, classes, ignore_index=ignore_index) == pytest.approx(accuracy, rel=1e-15)
    assert metrics.pixel_error(prediction, target, classes, ignore_index=ignore_index) == pytest.approx(1 - accuracy, rel=1e-14)


def test_confusion_matrix_rows_are_the_truth():
    counts = metrics.confusion_matrix([0, 1, 1, 2], [0, 0, 1, 2], 3)
    np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 1, 0], [0, 0, 1]])


def test_adding_batches_equals_one_call():
    prediction, target = maps(4, shape=(6, 5, 5))
    scores = metrics.Confusion(4)
    for i in range(0, 6, 2):
        scores.add(prediction[i : i + 2], target[i : i + 2])
    np.testing.assert_array_equal(scores.counts, metrics.confusion_matrix(prediction, target, 4))
    result = scores.result()
    assert result["dice"] == pytest.approx(metrics.mean(metrics.dice(prediction, target, 4)[1:]))
    assert scores.result(background=True)["iou"] == pytest.approx(metrics.mean(metrics.iou(prediction, target, 4)))
    assert all(type(value) is float for value in result.values())
    assert list(result) == ["pixel_error", "dice", "iou", "precision", "recall"]


def test_absent_class_is_nan_and_left_out_of_the_mean():
    prediction, target = np.array([0, 1, 1]), np.array([0, 1, 0])
    assert math.isnan(metrics.dice(prediction, target, 3)[2])
    assert metrics.mean(metrics.dice(prediction, target, 3)) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert math.isnan(metrics.precision([0, 0], [0, 1])[1])  # never predicted
    assert metrics.recall([0, 0], [0, 1])[1] == 0  # there, and missed
    assert math.isnan(metrics.recall([0, 1], [0, 0])[1])  # not there
    assert math.isnan(metrics.mean([float("nan")]))


def test_nothing_added_is_nan_without_a_warning():
    assert all(math.isnan(value) for value in metrics.Confusion(2).result().values())
    assert math.isnan(metrics.pixel_accuracy(np.zeros((0, 4), int), np.zeros((0, 4), int)))


def test_black_prediction_scores_zero():
    assert metrics.Confusion().add(np.zeros(100, int), np.arange(100) == 0).result()["dice"] == 0


def test_iou_follows_from_dice():
    prediction, target = maps(3)
    d = metrics.dice(prediction, target, 3)
    np.testing.assert_allclose(metrics.iou(prediction, target, 3), d / (2 - d), rtol=1e-14)


def test_class_map():
    logits = np.array([[[-1.0, 0.0, 2.0]]])  # (N=1, C=1, 3)
    np.testing.assert_array_equal(metrics.class_map(logits), [[0, 0, 1]])
    logits = np.stack([logits[:, 0], -logits[:, 0], np.zeros((1, 3))], axis=1)  # (1, 3, 3)
    np.testing.assert_array_equal(metrics.class_map(logits), [[1, 0, 0]])


def test_equals_monai():
    with warnings.catch_warnings(action="ignore"):  # MONAI's import warns
        torch, monai = require("torch"), require("monai.metrics")
        prediction, target = maps(3, shape=(1, 8, 8))
        one_hot = [torch.tensor(np.moveaxis(np.eye(3)[m], -1, 1)) for m in (prediction, target)]
        dice = monai.compute_dice(*one_hot, include_background=True)[0].numpy()
        iou = monai.compute_iou(*one_hot, include_background=True)[0].numpy()
    np.testing.assert_allclose(metrics.dice(prediction, target, 3), dice, rtol=1e-6)
    np.testing.assert_allclose(metrics.iou(prediction, target, 3), iou, rtol=1e-6)


def test_equals_scikit_image():
    skimage = require("skimage.metrics")
    prediction, target = maps(3)
    table = skimage.contingency_table(target.ravel(), prediction.ravel()).toarray()
    np.testing.assert_array_equal(metrics.confusion_matrix(prediction, target, 3), table)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.dice(np.zeros((2, 3), int), np.zeros((3, 2), int)), ValueError, r"one shape, got prediction \(2, 3\) and target"),
        (lambda: metrics.dice(np.zeros(3), np.zeros(3, int)), TypeError, "prediction is float64, expected class numbers"),
        (lambda: metrics.dice(np.zeros(3, int), np.array([0, 255, 0])), ValueError, "target holds class 255, .* pass ignore_index"),
        (lambda: metrics.dice(np.array([-1]), np.array([0])), ValueError, "prediction holds class -1"),
        (lambda: metrics.Confusion(1), ValueError, "at least 2 classes"),
        (lambda: metrics.class_map(np.zeros(3)), ValueError, r"expects logits \(N, C, \*spatial\)"),
    ],
)
def test_bad_inputs(call, error, message):
    with pytest.raises(error, match=message):
        call()
