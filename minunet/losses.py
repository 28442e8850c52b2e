"""Losses for segmentation and for restoration, one number out.

Segmentation takes logits (N, C, *spatial) and a class map (N, *spatial) of integers. What a channel means is read from their number:
one channel is the logit of class 1 against class 0, p₁ = sigmoid(z); two or more are one class each, p = softmax(z). No loss wants
probabilities: from logits the logarithms are exact where p is 0 or 1.

Two formulas of the lecture differ from what the field calls by the same names. Both forms are here; N counts pixels, |C| classes:

    cross-entropy    conventional  −1/N · Σ_i ln p_i            lecture  −1/(N·|C|) · Σ_i ln p_i
    Dice             conventional  1 − mean_c 2·Σ_i p·g / (Σ_i p + Σ_i g)
                     lecture       1 − 1/(N·|C|) · Σ_i Σ_c 2·p·g / (p + g)

where p_i is the probability of pixel i's true class and g is 1 for it, 0 for the others. The first differs by a factor: the same
minimum, a learning rate divided by |C|. The second is another loss: see `lecture_dice_loss`.

Restoration takes an image f and a target y of one shape, (N, C, *spatial). Where the target is noisy, the loss decides what is learned:
the value f with the smallest expected loss over all targets that may come for one input (Lehtinen et al. 2018, arXiv:1803.04189)

    squared_error    (f − y)²                 the mean of the targets
    absolute_error   |f − y|                  their median
    annealed_error   (|f − y| + ε)^γ, γ 2→0   their mode
    hdr_error        (f − y)²/(f + 0.01)²     the mean, errors counted relative to the brightness
"""

from __future__ import annotations

from typing import Any

from minunet import functional as F
from minunet.arrays import Array, array_module, computed_dtype, is_array
from minunet.ops.losses import NOTHING, CrossEntropy, Dice, where_known
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
    target = _check("binary_cross_entropy", logits, target)
    if logits.shape[1] != 1:
        raise ValueError(f"binary_cross_entropy takes logits of one channel, got {logits.shape[1]}. Use categorical_cross_entropy.")
    return _cross_entropy("binary_cross_entropy", logits, target, class_weights, pixel_weights, ignore_index)


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
    target = _check("categorical_cross_entropy", logits, target)
    if logits.shape[1] < 2:
        raise ValueError("categorical_cross_entropy takes logits of two or more channels, got 1. Use binary_cross_entropy.")
    if normalization not in ("mean", "lecture"):
        raise ValueError(f"categorical_cross_entropy: normalization is 'mean' or 'lecture', got {normalization!r}.")
    loss = _cross_entropy("categorical_cross_entropy", logits, target, class_weights, pixel_weights, ignore_index)
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
    target = _check("dice_loss", logits, target)
    if per not in ("sample", "batch"):
        raise ValueError(f"dice_loss: per is 'sample' or 'batch', got {per!r}.")
    if background and logits.shape[1] == 1:
        raise ValueError("dice_loss: logits of one channel hold no background to score; leave background=False.")
    options = _options(logits, ignore_index) | {"per_batch": per == "batch", "first": 0 if background else 1, "smooth": smooth}
    loss, unknown = Dice.apply(logits, Tensor(target), **options)
    return where_known(loss, unknown, lambda: _refuse_unknown("dice_loss", logits, target, ignore_index))


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
    target = _check("lecture_dice_loss", logits, target)
    entropy, _, unknown = CrossEntropy.apply(logits, Tensor(target), None, None, each=True, **_options(logits, None))
    entropy = where_known(entropy, unknown, lambda: _refuse_unknown("lecture_dice_loss", logits, target, None))
    p = (-entropy).exp()  # (N, *spatial)
    return 1 - (2 * p / (p + 1)).mean() / max(logits.shape[1], 2)


def squared_error(output: Tensor, target: Any, *, mask: Any = None) -> Tensor:
    """L2: L = mean (f − y)². With a mask, of 0 and 1 or of weights: L = Σ m·(f − y)² / Σ m, and 0 where all of m is 0.

    The mask is broadcast to the target's shape. A pixel it leaves out has no gradient: it may hold anything but NaN.
    """
    target = _like(output, target, "squared_error")
    if mask is None:
        return F.mse_loss(output, target)
    xp = array_module(output.data)
    weight = Tensor(xp.broadcast_to(_on_device(output, mask).astype(output.dtype), output.shape))
    total = xp.asarray(weight.data.sum())  # stays where it is: nobody waits for the GPU
    return F.mse_loss(output, target, reduction="sum", weight=weight) / Tensor(total + (total == 0).astype(total.dtype))


def absolute_error(output: Tensor, target: Any) -> Tensor:
    """L1: L = mean |f − y|."""
    return F.l1_loss(output, _like(output, target, "absolute_error"))


def annealed_error(output: Tensor, target: Any, *, gamma: Any, epsilon: float = 1e-8) -> Tensor:
    """L0 in the limit: L = mean (|f − y| + ε)^γ, γ falling from 2 to 0 during training.

    At γ = 2 it is L2, at 1 L1. Near 0 it counts the elements that are not hit, whatever they miss by, so that targets which are far off
    have no say; started there it would have no slope to follow. Lehtinen et al. 2018, section 3.2.
    gamma: a number; for a CUDA graph an array of one, as `cuda.varying` makes it, since a graph repeats numbers.
    """
    if not is_array(gamma) and gamma < 0:
        raise ValueError(f"annealed_error: gamma falls from 2 to 0, got {gamma}.")
    return ((F.abs(output - _like(output, target, "annealed_error")) + epsilon) ** gamma).mean()


def hdr_error(output: Tensor, target: Any, *, floor: float = 0.01) -> Tensor:
    """L = mean (f − y)² / (f + 0.01)², the divisor held fixed in the gradient: ∂f = 2·(f − y)/(f + 0.01)² over the number of elements.

    For light in high dynamic range: an error counts relative to the brightness, so that a few very bright pixels do not rule. Dividing
    by the target instead would shift the mean that is learned, and so would a gradient through the divisor. Light is not negative:
    where f is, the divisor is that of 0. Lehtinen et al. 2018, section 3.3.
    """
    difference = output - _like(output, target, "hdr_error")
    xp = array_module(output.data)
    return ((difference / Tensor(xp.maximum(output.data, 0) + output.dtype.type(floor))) ** 2).mean()


def _like(output: Tensor, target: Any, name: str) -> Tensor:
    """The target as a tensor of the output's shape and dtype, without a gradient."""
    array = _on_device(output, target)
    if array.shape != output.shape:
        raise ValueError(
            f"{name}: the target has the output's shape {sizes_text(output.shape) or '()'}, got {sizes_text(array.shape) or 'a number'}."
        )
    return Tensor(array.astype(output.dtype, copy=False))


def _cross_entropy(name: str, logits: Tensor, target: Array, class_weights: Any, pixel_weights: Any, ignore_index: int | None) -> Tensor:
    """Σ w·ℓ / Σ w, 0 where all w are 0."""
    weights = _weights(logits, target, class_weights, pixel_weights)
    loss, total, unknown = CrossEntropy.apply(logits, Tensor(target), *weights, **_options(logits, ignore_index))
    loss = where_known(loss, unknown, lambda: _refuse_unknown(name, logits, target, ignore_index))
    count = total.data.astype(loss.dtype)
    return loss / Tensor(count + (count == 0))


def _options(logits: Tensor, ignore_index: int | None) -> dict[str, Any]:
    return {"ignored": NOTHING if ignore_index is None else ignore_index, "binary": logits.shape[1] == 1}


def _weights(logits: Tensor, target: Array, class_weights: Any, pixel_weights: Any) -> tuple[Tensor | None, Tensor | None]:
    """A weight for each class, (C,), and for each pixel, (N, *spatial); None for ones."""
    dtype, each, pixels = computed_dtype(logits.data), None, None
    if class_weights is not None:
        each = array_module(logits.data).asarray(class_weights, dtype=dtype)
        classes = max(logits.shape[1], 2)
        if each.shape != (classes,):
            raise ValueError(f"class_weights holds one number for each of the {classes} classes, got shape {each.shape}.")
    if pixel_weights is not None:
        pixels = _on_device(logits, pixel_weights).astype(dtype)
        if pixels.shape != target.shape:
            raise ValueError(
                f"pixel_weights has the target's shape {sizes_text(target.shape)}, got {sizes_text(pixels.shape) or 'a number'}."
            )
    return None if each is None else Tensor(each), None if pixels is None else Tensor(pixels)


def _check(name: str, logits: Tensor, target: Any) -> Array:
    """The target as an integer array; every way its type and shape can fail to fit the logits is said in one sentence."""
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
    return target


def _refuse_unknown(name: str, logits: Tensor, target: Array, ignore_index: int | None) -> None:
    """Raises ValueError: pixels are of a class that the logits do not know."""
    counted = target if ignore_index is None else target[target != ignore_index]
    odd = int(counted.min()) if int(counted.min()) < 0 else int(counted.max())
    channels, last = logits.shape[1], max(logits.shape[1], 2) - 1
    raise ValueError(
        f"{name}: the target holds class {odd}, but logits of {channels} channels know classes 0 … {last}. "
        "Turn a mask of 0 and 255 into 0 and 1, or pass ignore_index."
    )


def _on_device(logits: Tensor, values: Any) -> Array:
    """A tensor's array, or an array, or lists of numbers; an array on another device than the logits raises."""
    array = values.data if isinstance(values, Tensor) else values
    return array_module(logits.data, array if is_array(array) else None).asarray(array)
