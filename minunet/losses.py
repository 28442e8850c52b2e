"""Losses for segmentation: logits (N, C, *spatial) and a class map (N, *spatial) of integers in, one number out.

What a channel means is read from their number: one channel is the logit of class 1 against class 0, p₁ = sigmoid(z); two or
more are one class each, p = softmax(z). No loss wants probabilities: from logits the logarithms are exact where p is 0 or 1.

Two formulas of the lecture differ from what the field calls by the same names. Both forms are here; N counts pixels, |C| classes:

    cross-entropy    conventional  −1/N · Σ_i ln p_i            lecture  −1/(N·|C|) · Σ_i ln p_i
    Dice             conventional  1 − mean_c 2·Σ_i p·g / (Σ_i p + Σ_i g)
                     lecture       1 − 1/(N·|C|) · Σ_i Σ_c 2·p·g / (p + g)

where p_i is the probability of pixel i's true class and g is 1 for it, 0 for the others. The first differs by a factor: the same
minimum, a learning rate divided by |C|. The second is another loss: see `lecture_dice_loss`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet import functional as F
from minunet.arrays import Array, array_module, is_array
from minunet.shapes import sizes_text
from minunet.tensor import Tensor


def binary_cross_entropy(
    logits: Tensor,
    target: Any,
    *,
    class_weights: Any = None,
    pixel_weights: Any = None,
    ignore_index: int | None = None,
) -> Tensor:
    """L = Σ_i w_i·ℓ_i / Σ_i w_i,    ℓ_i = −ln σ(z_i) where the pixel is of class 1, −ln(1 − σ(z_i)) where it is of class 0.

    logits (N, 1, *spatial), target (N, *spatial) of 0 and 1.
    class_weights: (weight of class 0, weight of class 1). pixel_weights: (N, *spatial), as UNet's map that raises the borders between
    touching cells. w_i is their product, and 0 where the target is ignore_index; a batch with nothing but ignored pixels costs 0.
    """
    target = _check("binary_cross_entropy", logits, target, ignore_index)
    if logits.shape[1] != 1:
        raise ValueError(f"binary_cross_entropy takes logits of one channel, got {logits.shape[1]}. Use categorical_cross_entropy.")
    weights = _weights(logits, target, class_weights, pixel_weights, ignore_index)
    return _weighted_mean(_pixel_cross_entropy(logits, target, ignore_index), weights)


def categorical_cross_entropy(
    logits: Tensor,
    target: Any,
    *,
    class_weights: Any = None,
    pixel_weights: Any = None,
    ignore_index: int | None = None,
    normalization: str = "mean",
) -> Tensor:
    """L = Σ_i w_i·ℓ_i / Σ_i w_i,    ℓ_i = −ln softmax(z_i)[target_i].

    logits (N, C ≥ 2, *spatial), target (N, *spatial) of 0 … C−1.
    class_weights: C numbers. pixel_weights: (N, *spatial). w_i is their product, and 0 where the target is ignore_index; a batch with
    nothing but ignored pixels costs 0.
    normalization: "mean" is the formula above; "lecture" divides it by the number of classes too. Only the scale changes: the lecture's
    loss with learning rate |C|·η takes the same steps of gradient descent as the conventional one with η.
    """
    target = _check("categorical_cross_entropy", logits, target, ignore_index)
    if logits.shape[1] < 2:
        raise ValueError("categorical_cross_entropy takes logits of two or more channels, got 1. Use binary_cross_entropy.")
    if normalization not in ("mean", "lecture"):
        raise ValueError(f"categorical_cross_entropy: normalization is 'mean' or 'lecture', got {normalization!r}.")
    weights = _weights(logits, target, class_weights, pixel_weights, ignore_index)
    loss = _weighted_mean(_pixel_cross_entropy(logits, target, ignore_index), weights)
    return loss / logits.shape[1] if normalization == "lecture" else loss


def cross_entropy(
    logits: Tensor,
    target: Any,
    *,
    class_weights: Any = None,
    pixel_weights: Any = None,
    ignore_index: int | None = None,
) -> Tensor:
    """`binary_cross_entropy` for logits of one channel, `categorical_cross_entropy` for more."""
    loss = binary_cross_entropy if logits.shape[1] == 1 else categorical_cross_entropy
    return loss(logits, target, class_weights=class_weights, pixel_weights=pixel_weights, ignore_index=ignore_index)


def dice_loss(
    logits: Tensor,
    target: Any,
    *,
    per: str = "sample",
    background: bool = False,
    smooth: float = 1.0,
    ignore_index: int | None = None,
) -> Tensor:
    """L = 1 − mean (2·Σ_i p_i·g_i + s) / (Σ_i p_i + Σ_i g_i + s): the soft Dice loss, an overlap, so it does not see class imbalance.

    g is 1 where the target is the class, else 0; the sums run over pixels, the mean over classes and samples.
    per: "sample" computes one ratio for each image, "batch" one over all images of the batch; then a class that is missing from one small
    crop disturbs less. background: whether class 0 takes part; logits of one channel have only the object to score.
    smooth: s; it makes 0/0 a perfect score: an image without the object, and none predicted, costs 0.
    ignore_index: pixels with this target count in no sum.
    """
    target = _check("dice_loss", logits, target, ignore_index)
    if per not in ("sample", "batch"):
        raise ValueError(f"dice_loss: per is 'sample' or 'batch', got {per!r}.")
    if background and logits.shape[1] == 1:
        raise ValueError("dice_loss: logits of one channel hold no background to score; leave background=False.")
    xp, classes, first = array_module(logits.data), logits.shape[1], 0 if background else 1
    if classes == 1:
        p = F.sigmoid(logits)  # (N, 1, *spatial)
        classes = 2
    else:
        p = F.softmax(logits, dim=1)[:, first:]  # (N, C, *spatial) → (N, C − first, *spatial)
    numbers = xp.arange(first, classes).reshape(-1, *(1,) * (logits.ndim - 2))
    g = (target[:, None] == numbers).astype(logits.dtype)
    if ignore_index is not None:
        p = p * Tensor((target != ignore_index)[:, None].astype(logits.dtype))
        g = g * (target != ignore_index)[:, None]
    pixels = tuple(range(2, logits.ndim)) if per == "sample" else (0, *range(2, logits.ndim))
    overlap = (p * Tensor(g)).sum(pixels)  # (N, C) or (C,)
    sizes = p.sum(pixels) + Tensor(g.sum(pixels))
    return 1 - ((2 * overlap + smooth) / (sizes + smooth)).mean()


def dice_cross_entropy(
    logits: Tensor,
    target: Any,
    *,
    per: str = "sample",
    background: bool = False,
    smooth: float = 1.0,
    class_weights: Any = None,
    pixel_weights: Any = None,
    ignore_index: int | None = None,
) -> Tensor:
    """`dice_loss` + `cross_entropy`: the overlap is what is wanted, the cross-entropy gives every pixel a gradient from the start."""
    entropy = cross_entropy(logits, target, class_weights=class_weights, pixel_weights=pixel_weights, ignore_index=ignore_index)
    return entropy + dice_loss(logits, target, per=per, background=background, smooth=smooth, ignore_index=ignore_index)


def lecture_dice_loss(logits: Tensor, target: Any) -> Tensor:
    """L = 1 − 1/(N·|C|) · Σ_i Σ_c 2·p_ic·g_ic / (p_ic + g_ic), a term 0/0 counted as 0: Dice as the lecture writes it.

    The ratio is taken in each pixel before the sum. g is 0 or 1, so all terms but the true class's vanish, and what is left is

        L = 1 − 1/(N·|C|) · Σ_i 2·p_i / (p_i + 1)        p_i: the probability of pixel i's true class

    Three things follow. A perfect prediction (all p_i = 1) costs 1 − 1/|C|, not 0. No overlap is measured: each pixel counts alone and
    alike, so a small object on a large background weighs as little as in a cross-entropy. And it is defined where the conventional
    ratio of sums would be 0/0. To train for overlap take `dice_loss`. Logits of one channel stand for |C| = 2 classes.
    """
    target = _check("lecture_dice_loss", logits, target, None)
    p = (-_pixel_cross_entropy(logits, target, None)).exp()  # (N, *spatial): ℓ = −ln p
    return 1 - (2 * p / (p + 1)).mean() / max(logits.shape[1], 2)


def _pixel_cross_entropy(logits: Tensor, target: Array, ignore_index: int | None) -> Tensor:
    """(N, *spatial) −ln p of each pixel's true class; anything finite where the target is ignored."""
    if ignore_index is not None:
        target = target * (target != ignore_index)
    if logits.shape[1] == 1:
        truth = Tensor(target.astype(logits.dtype))
        return F.binary_cross_entropy_with_logits(logits.reshape(target.shape), truth, reduction="none")
    return F.cross_entropy(logits, Tensor(target), reduction="none")


def _weighted_mean(losses: Tensor, weights: Array | None) -> Tensor:
    """Σ w·ℓ / Σ w, 0 where all w are 0."""
    if weights is None:
        return losses.mean()
    return (losses * Tensor(weights)).sum() / (float(weights.sum()) or 1.0)


def _weights(logits: Tensor, target: Array, class_weights: Any, pixel_weights: Any, ignore_index: int | None) -> Array | None:
    """(N, *spatial) the weight of each pixel, or None where all are 1."""
    dtype = logits.dtype
    counted = None if ignore_index is None else target != ignore_index
    weights = None if counted is None else counted.astype(dtype)
    if class_weights is not None:
        each = array_module(logits.data).asarray(class_weights, dtype=dtype)
        classes = max(logits.shape[1], 2)
        if each.shape != (classes,):
            raise ValueError(f"class_weights holds one number for each of the {classes} classes, got shape {each.shape}.")
        chosen = each[target if counted is None else target * counted]
        weights = chosen if weights is None else weights * chosen
    if pixel_weights is not None:
        chosen = _on_device(logits, pixel_weights).astype(dtype)
        if chosen.shape != target.shape:
            raise ValueError(
                f"pixel_weights has the target's shape {sizes_text(target.shape)}, got {sizes_text(chosen.shape) or 'a number'}."
            )
        weights = chosen if weights is None else weights * chosen
    return weights


def _check(name: str, logits: Tensor, target: Any, ignore_index: int | None) -> Array:
    """The target as an integer array; every way it can fail to fit the logits is said in one sentence."""
    target = _on_device(logits, target)
    if logits.ndim < 2 or logits.shape[1] < 1:
        raise ValueError(f"{name} expects logits (N, C, *spatial), got {sizes_text(logits.shape) or 'a scalar'}.")
    if target.dtype.kind not in "biu":
        raise TypeError(f"{name}: the target is {target.dtype}, expected class numbers: integers or booleans.")
    wanted = (logits.shape[0], *logits.shape[2:])
    if target.shape != wanted:
        raise ValueError(
            f"{name}: logits {sizes_text(logits.shape)} need a target {sizes_text(wanted)}, a class number for each pixel "
            f"and no channel axis; got {sizes_text(target.shape) or 'a scalar'}."
        )
    target = target.astype(np.int64)
    counted = target if ignore_index is None else target[target != ignore_index]
    classes = max(logits.shape[1], 2)
    if counted.size and (int(counted.min()) < 0 or int(counted.max()) >= classes):
        odd = int(counted.min()) if int(counted.min()) < 0 else int(counted.max())
        raise ValueError(
            f"{name}: the target holds class {odd}, but logits of {logits.shape[1]} channels know classes 0 … {classes - 1}. "
            "Turn a mask of 0 and 255 into 0 and 1, or pass ignore_index."
        )
    return target


def _on_device(logits: Tensor, values: Any) -> Array:
    """A tensor's array, or an array, or lists of numbers; an array on another device than the logits raises."""
    array = values.data if isinstance(values, Tensor) else values
    return array_module(logits.data, array if is_array(array) else None).asarray(array)
