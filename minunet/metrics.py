"""Metrics: NumPy arrays in, plain floats out. Segmentation metrics of class maps come first, those of restored images last.

Those of segmentation follow from one table of counts, M[t, p] = the number of pixels of true class t that were predicted as p:

    TP_c = M[c, c]        FP_c = Σ_t M[t, c] − TP_c        FN_c = Σ_p M[c, p] − TP_c

    Dice_c = 2·TP / (2·TP + FP + FN)        IoU_c = TP / (TP + FP + FN) = Dice / (2 − Dice)
    precision_c = TP / (TP + FP)            recall_c = TP / (TP + FN)
    pixel accuracy = Σ_c TP_c / Σ M         pixel error = 1 − pixel accuracy

0/0 is NaN: the Dice and IoU of a class that is neither in the truth nor in the prediction, the precision of a class that was
never predicted, the recall of a class that is not there. Means leave NaN out, so an absent class is neither rewarded nor punished.

Scores are taken over all pixels that were added. That weights large objects more than the mean of scores over images does;
for the latter, score each image alone and average.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.shapes import sizes_text

Floats = np.ndarray[Any, np.dtype[np.float64]]


class Confusion:
    """Counts of (true class, predicted class) pairs, added batch by batch; every score is an attribute.

        scores = Confusion(classes=2)
        for images, masks in batches:
            scores.add(class_map(model(images).data), masks)
        scores.iou[1], scores.result()

    counts: (classes, classes) integers, rows are the truth, columns the prediction.
    ignore_index: pixels with this true class are not counted.
    """

    def __init__(self, classes: int = 2, *, ignore_index: int | None = None) -> None:
        if classes < 2:
            raise ValueError(f"metrics need at least 2 classes (background and one object), got {classes}.")
        self.classes = classes
        self.ignore_index = ignore_index
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, prediction: Any, target: Any) -> Confusion:
        """Counts the pixels of two class maps of one shape, any number of axes. Returns itself."""
        prediction, target = _class_numbers("prediction", prediction), _class_numbers("target", target)
        if prediction.shape != target.shape:
            raise ValueError(
                f"metrics compare class maps of one shape, got prediction {prediction.shape} and target {target.shape}. "
                "Turn logits (N, C, *spatial) into classes with class_map(logits) first."
            )
        if self.ignore_index is not None:
            counted = target != self.ignore_index
            prediction, target = prediction[counted], target[counted]
        for name, values in (("prediction", prediction), ("target", target)):
            self._check_range(name, values)
        pairs = target.astype(np.int64).ravel() * self.classes + prediction.ravel()
        self.counts += np.bincount(pairs, minlength=self.classes**2).reshape(self.counts.shape)
        return self

    def _check_range(self, name: str, values: np.ndarray[Any, Any]) -> None:
        if values.size and (values.min() < 0 or values.max() >= self.classes):
            odd = values.min() if values.min() < 0 else values.max()
            raise ValueError(
                f"metrics: the {name} holds class {odd}, but with {self.classes} classes they are 0 … {self.classes - 1}. "
                "Turn a mask of 0 and 255 into 0 and 1, or pass ignore_index."
            )

    @property
    def pixel_accuracy(self) -> float:
        """The fraction of pixels with the right class; NaN before any pixel was added."""
        return float(_ratio(np.trace(self.counts), self.counts.sum()))

    @property
    def pixel_error(self) -> float:
        """The fraction of pixels with a wrong class."""
        return 1 - self.pixel_accuracy

    @property
    def dice(self) -> Floats:
        """(classes,) 2·TP / (2·TP + FP + FN): the F1 score of each class."""
        return _ratio(2 * self._hits, self._predicted + self._true)

    @property
    def iou(self) -> Floats:
        """(classes,) TP / (TP + FP + FN): intersection over union, the Jaccard index."""
        return _ratio(self._hits, self._predicted + self._true - self._hits)

    @property
    def precision(self) -> Floats:
        """(classes,) TP / (TP + FP): how much of what was found is right."""
        return _ratio(self._hits, self._predicted)

    @property
    def recall(self) -> Floats:
        """(classes,) TP / (TP + FN): how much of what is there was found."""
        return _ratio(self._hits, self._true)

    def result(self, *, background: bool = False) -> dict[str, float]:
        """Plain numbers for a log: pixel_error, then dice, iou, precision and recall as means over the classes.

        background: whether class 0 takes part in the means. Without it a black prediction scores 0, as it should.
        """
        first = 0 if background else 1
        means = {name: mean(getattr(self, name)[first:]) for name in ("dice", "iou", "precision", "recall")}
        return {"pixel_error": self.pixel_error, **means}

    @property
    def _hits(self) -> np.ndarray[Any, Any]:
        return np.diagonal(self.counts)

    @property
    def _predicted(self) -> np.ndarray[Any, Any]:
        return self.counts.sum(axis=0)

    @property
    def _true(self) -> np.ndarray[Any, Any]:
        return self.counts.sum(axis=1)


def class_map(logits: Any) -> np.ndarray[Any, Any]:
    """Logits (N, C, *spatial) → class numbers (N, *spatial): with one channel 1 where the logit is positive
    (p > 0.5), with more the largest channel (argmax of a single channel would always be 0)."""
    logits = np.asarray(logits)
    if logits.ndim < 2 or logits.shape[1] == 0:
        raise ValueError(f"class_map expects logits (N, C, *spatial), got shape {logits.shape}.")
    return (logits[:, 0] > 0).astype(np.int64) if logits.shape[1] == 1 else logits.argmax(axis=1)


def confusion_matrix(prediction: Any, target: Any, classes: int = 2, *, ignore_index: int | None = None) -> np.ndarray[Any, Any]:
    """(classes, classes) pixel counts: row = true class, column = predicted class."""
    return Confusion(classes, ignore_index=ignore_index).add(prediction, target).counts


def pixel_accuracy(prediction: Any, target: Any, classes: int = 2, *, ignore_index: int | None = None) -> float:
    """The fraction of pixels with the right class."""
    return Confusion(classes, ignore_index=ignore_index).add(prediction, target).pixel_accuracy


def pixel_error(prediction: Any, target: Any, classes: int = 2, *, ignore_index: int | None = None) -> float:
    """The fraction of pixels with a wrong class."""
    return Confusion(classes, ignore_index=ignore_index).add(prediction, target).pixel_error


def dice(prediction: Any, target: Any, classes: int = 2, *, ignore_index: int | None = None) -> Floats:
    """Dice of each class, (classes,); NaN for a class in neither map. `mean(dice(…)[1:])` is the mean without background."""
    return Confusion(classes, ignore_index=ignore_index).add(prediction, target).dice


def iou(prediction: Any, target: Any, classes: int = 2, *, ignore_index: int | None = None) -> Floats:
    """Intersection over union of each class, (classes,); NaN for a class in neither map."""
    return Confusion(classes, ignore_index=ignore_index).add(prediction, target).iou


def precision(prediction: Any, target: Any, classes: int = 2, *, ignore_index: int | None = None) -> Floats:
    """Precision of each class, (classes,); NaN for a class that was never predicted."""
    return Confusion(classes, ignore_index=ignore_index).add(prediction, target).precision


def recall(prediction: Any, target: Any, classes: int = 2, *, ignore_index: int | None = None) -> Floats:
    """Recall of each class, (classes,); NaN for a class that is not in the truth."""
    return Confusion(classes, ignore_index=ignore_index).add(prediction, target).recall


def mean(scores: Any) -> float:
    """The mean of the scores that are not NaN; NaN where all are."""
    values = np.asarray(scores, np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def psnr(image: Any, reference: Any, *, data_range: float = 1.0) -> float:
    """Peak signal-to-noise ratio in decibels: 10·log₁₀(data_range² / mean (image − reference)²); infinite for equal images.

    data_range: largest minus smallest possible value, 1 for images in [0, 1].
    """
    image, reference = _alike("psnr", image, reference)
    error = np.mean((image - reference) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))


def ssim(image: Any, reference: Any, *, data_range: float = 1.0) -> float:
    """Structural similarity of images (C, H, W) or volumes (C, D, H, W): 1 where equal. The mean over pixels and channels of

        (2·μ_x·μ_y + c₁)·(2·σ_xy + c₂) / ((μ_x² + μ_y² + c₁)·(σ_x² + σ_y² + c₂))        c₁ = (0.01·L)², c₂ = (0.03·L)²

    with means, variances and covariance under a Gaussian window of σ = 1.5 pixels, 11 wide, as published; pixels whose window reaches
    over the edge are left out. L is data_range. Wang, Bovik, Sheikh & Simoncelli, IEEE Trans. Image Processing 13:600, 2004.
    """
    from scipy import ndimage  # noqa: PLC0415  the other metrics need NumPy alone

    x, y = _alike("ssim", image, reference)
    radius, axes = 5, tuple(range(1, x.ndim))
    if x.ndim < 2 or min(x.shape[1:]) <= 2 * radius:
        raise ValueError(
            f"ssim compares windows of {2 * radius + 1} pixels in images (C, *spatial); got {sizes_text(x.shape) or 'a number'}."
        )

    def mean(values: Floats) -> Floats:
        return ndimage.gaussian_filter(values, 1.5, radius=radius, axes=axes)

    inner = (slice(None), *[slice(radius, -radius)] * len(axes))
    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y, covariance = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2, mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((above / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)))[inner].mean())


def _alike(name: str, image: Any, reference: Any) -> tuple[Floats, Floats]:
    image, reference = np.asarray(image, np.float64), np.asarray(reference, np.float64)
    if image.shape != reference.shape or not image.size:
        raise ValueError(
            f"{name}: image and reference have one shape and a pixel or more; got {sizes_text(image.shape) or 'a number'} "
            f"and {sizes_text(reference.shape) or 'a number'}."
        )
    return image, reference


def _class_numbers(name: str, values: Any) -> np.ndarray[Any, Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "biu":
        raise TypeError(f"metrics: the {name} is {array.dtype}, expected class numbers (integers or booleans). Use class_map(logits).")
    return array


def _ratio(part: Any, whole: Any) -> Floats:
    """part / whole, NaN where whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)
