"""Losses, with PyTorch's arguments and meaning.

Every loss is computed for each element (or each pixel), then reduced: 'none' keeps it, 'sum' adds it up, 'mean' divides the sum
by the number of elements, by the sum of the class weights that were used where targets are class numbers, or by the sum of
the weights for `mse_loss` and `l1_loss`.

Logits may have 16 bits where a loss has kernels. Then the loss is float32, and so are weights and a binary target.

Classes lie on axis 1 of (N, C, d₁, …), on axis 0 of (C). Cross-entropy, Dice, and the binary cross-entropy
have kernels: one pass over the logits each way, and where one number is wanted, no array of their size but the gradient. Light losses
over classes work on (C, M), M = N·d₁·…: few long rows, whatever the memory order of the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minunet.arrays import array_module, computed_dtype, is_float, widened
from minunet.autograd import Function
from minunet.cuda import capturing
from minunet.kernels import Kernels
from minunet.ops.reduce import sum as sum_
from minunet.shapes import sizes_text
from minunet.tensor import Tensor

K: Any = Kernels(__name__, "entropy", "grad_entropy", "overlap", "grad_overlap", "binary_entropy", "grad_binary_entropy")
NOTHING = -(2**63)  # the ignore_index of none


class CrossEntropy(Function):
    """y = Σ_i ℓ[i], or ℓ itself    ℓ[i] = s[i]·Σ_c q[i, c]·(−ln p[i, c])    p = softmax over classes of x

    ∂x[i, c] = ∂y[i]·s[i]·(p[i, c]·Σ_k q[i, k] − q[i, c])        q[i, c] = w[c]·((1 − ε)·[c = t[i]] + ε/C)

    x (N, C, …); t (N, …) in 0 … C−1; w (C) and s (N, …) or None for ones; ε is `smoothing`. Where t is `ignored`, ℓ and ∂x are 0.
    binary: x (N, 1, …) is the logit of class 1 against class 0. That is two classes with logits 0 and x: their softmax is the sigmoid.
    each: y is ℓ. Beside y come Σ_i s[i]·w[t[i]], what a mean divides by, and how many t are of no class: the caller refuses them.
    """

    takes_images = True

    def forward(
        ctx, x: Any, t: Any, w: Any, s: Any, *, ignored: int = NOTHING, smoothing: float = 0.0, each: bool = False, binary: bool = False
    ) -> tuple[Any, Any, Any]:
        xp = array_module(x)
        pixels, numbers = _pixels(x), _numbers(t, x)
        w = xp.ones(2 if binary else pixels.shape[1], computed_dtype(x)) if w is None else w
        s = None if s is None else s.reshape(numbers.shape)
        ctx.each, ctx.options = each, {"ignored": ignored, "smoothing": smoothing}
        ctx.save(pixels, numbers, w, s)
        y, total, unknown = K.entropy(pixels, numbers, w, s, each=each, **ctx.options)
        return xp.asarray(y, dtype=computed_dtype(x)).reshape(t.shape if each else ()), xp.asarray(total), xp.asarray(unknown)

    def backward(ctx, gy: Any) -> Any:
        pixels, numbers, w, s = ctx.saved
        gain: Any = gy
        if ctx.each:
            gy = gy.reshape(numbers.shape)
            gain, s = 1, gy if s is None else gy * s
        return K.grad_entropy(pixels, numbers, w, s, gain, **ctx.options).reshape(ctx.shapes[0]), None, None, None


class Dice(Function):
    """y = 1 − 1/K·Σ_nc (2·O + s)/(S + s)    O[n, c] = Σ_i p[n, c, i]·[c = t[n, i]]    S[n, c] = Σ_i p[n, c, i] + Σ_i [c = t[n, i]]

    p = softmax over classes of x    ∂x[n, c, i] = p[n, c, i]·(d[n, c, i] − Σ_k d[n, k, i]·p[n, k, i])

    d[n, c, i] = ∂O[n, c]·[c = t[n, i]] + ∂S[n, c]    ∂O = −∂y/K·2/(S + s)    ∂S = ∂y/K·(2·O + s)/(S + s)²

    x (N, C, …), t (N, …); s is `smooth`; K is the number of ratios. per_batch: O and S are summed over n first. first: the class to begin
    with, of the others no ratio is taken. `ignored` and `binary` as in CrossEntropy. Beside y comes how many t are of no class.
    """

    takes_images = True

    def forward(
        ctx, x: Any, t: Any, *, per_batch: bool, first: int, smooth: float, ignored: int = NOTHING, binary: bool = False
    ) -> tuple[Any, Any]:
        xp = array_module(x)
        pixels, numbers = _pixels(x), _numbers(t, x)
        (both, predicted, true), unknown = K.overlap(pixels, numbers, 2 if binary else pixels.shape[1], ignored=ignored)
        sizes = predicted + true
        if per_batch:
            both, sizes = both.sum(axis=0, keepdims=True), sizes.sum(axis=0, keepdims=True)
        above, below = 2 * both[:, first:] + smooth, sizes[:, first:] + smooth
        ctx.first, ctx.ignored = first, ignored
        ctx.save(pixels, numbers, above, below)
        return xp.asarray(1 - (above / below).mean(), dtype=computed_dtype(x)), xp.asarray(unknown)

    def backward(ctx, gy: Any) -> Any:
        pixels, numbers, above, below = ctx.saved
        xp = array_module(gy)
        d = xp.zeros((2, len(pixels), ctx.first + above.shape[1]), gy.dtype)
        g = gy / above.size
        d[0, :, ctx.first :], d[1, :, ctx.first :] = -2 * g / below, g * above / below**2
        return K.grad_overlap(pixels, numbers, *d, ignored=ctx.ignored).reshape(ctx.shapes[0]), None


class SoftCrossEntropy(Function):
    """y[i] = −Σ_c q[i, c]·ln p[i, c]    ∂x[i, c] = ∂y[i]·(p[i, c]·Σ_k q[i, k] − q[i, c])    ∂q[i, c] = −∂y[i]·ln p[i, c]

    x and q (N, C, …); q is the wanted distribution, times class weights if there are any.
    """

    def forward(ctx, x: Any, q: Any) -> Any:
        xp = array_module(x)
        l = _class_rows(x)
        l -= l.max(axis=0)
        l -= xp.log(xp.exp(l).sum(axis=0))
        rows = _class_rows(q)
        ctx.save(l, rows)
        return -(l * rows).sum(axis=0).reshape(_without_classes(x.shape))

    def backward(ctx, gy: Any) -> Any:
        l, q = ctx.saved
        g = gy.reshape(-1)
        gx = _from_class_rows(g * (array_module(l).exp(l) * q.sum(axis=0) - q), ctx.shapes[0]) if ctx.needs[0] else None
        gq = _from_class_rows(-g * l, ctx.shapes[1]) if ctx.needs[1] else None
        return gx, gq


class NLL(Function):
    """y[i] = −w[i]·x[i, t[i]]    ∂x[i, c] = −w[i]·∂y[i] where c = t[i], else 0"""

    def forward(ctx, x: Any, target: Any, scale: Any) -> Any:
        t = target.reshape(-1)
        ctx.save(t, scale)
        y = -array_module(x).take_along_axis(_class_rows(x), t[None], axis=0).reshape(target.shape)
        return y if scale is None else y * scale

    def backward(ctx, gy: Any) -> Any:
        t, scale = ctx.saved
        xp = array_module(gy)
        shape = ctx.shapes[0]
        gx = xp.zeros((shape[_class_axis(shape)], t.size), dtype=gy.dtype)
        gx[t, xp.arange(t.size)] = -(gy if scale is None else gy * scale).reshape(-1)
        return _from_class_rows(gx, shape), None, None


class BinaryCrossEntropy(Function):
    """y = −(t·ln x + (1−t)·ln(1−x)), logarithms held at −100 or above

    ∂x = ∂y·(x − t)/max(x(1−x), 1e-12)    ∂t = ∂y·(ln(1−x) − ln x)
    """

    def forward(ctx, x: Any, t: Any) -> Any:
        xp = array_module(x)
        with np.errstate(divide="ignore"):  # ln 0 = −∞ is what −100 replaces
            log_x, log_rest = xp.maximum(xp.log(x), -100), xp.maximum(xp.log1p(-x), -100)
        ctx.save(x, t, log_x, log_rest)
        return (t - 1) * log_rest - t * log_x

    def backward(ctx, gy: Any) -> tuple[Any, ...]:
        x, t, log_x, log_rest = ctx.saved
        gx = gy * (x - t) / array_module(x).maximum(x * (1 - x), 1e-12) if ctx.needs[0] else None
        gt = gy * (log_rest - log_x) if ctx.needs[1] else None
        return gx, gt


class BinaryCrossEntropyWithLogits(Function):
    """y = Σ_i ℓ[i]/n, or ℓ itself    ℓ = −(v·t·ln σ(x) + (1−t)·ln(1−σ(x))), v the weight of positives, n the `divisor`

    = (1 − t + v·t)·ln(1 + e^−|x|) + (where x > 0: (1−t)·x, else −v·t·x)        nothing overflows, nothing cancels

    ∂x = ∂y·((1 − t + v·t)·σ(x) − v·t)    ∂t = ∂y·((v−1)·ln(1 + e⁻ˣ) − x)
    """

    takes_images = True

    def forward(ctx, x: Any, t: Any, v: Any, *, each: bool, divisor: int = 1) -> Any:
        xp = array_module(x)
        ctx.each, ctx.divisor = each, divisor
        ctx.axes = sorted(range(x.ndim), key=lambda a: -abs(x.strides[a]))  # the order of x in memory
        flat = [None if a is None else ctx.flat(a) for a in (x, t, None if v is None else xp.broadcast_to(v, x.shape))]
        ctx.save(*flat)
        y = K.binary_entropy(*flat, each=each)
        if each:
            return ctx.shaped(y)
        with np.errstate(invalid="ignore"):  # the mean of nothing is NaN, as in PyTorch
            return xp.asarray(xp.divide(y, divisor), dtype=computed_dtype(x))

    def backward(ctx, gy: Any) -> tuple[Any, ...]:
        x, t, v = ctx.saved
        xp = array_module(gy)
        factor, gain = (ctx.flat(gy), 1) if ctx.each else (None, gy / max(ctx.divisor, 1))
        gx = gt = None
        if ctx.needs[0]:
            gx = ctx.shaped(K.grad_binary_entropy(x, t, v, factor, gain))
        if ctx.needs[1]:
            x = widened(x)
            gt = -x if v is None else (v - 1) * (xp.log1p(xp.exp(-abs(x))) + xp.maximum(-x, 0)) - x
            gt = ctx.shaped(gt * (gain if factor is None else factor))
        return gx, gt, None

    def flat(ctx, a: Any) -> Any:
        return a.transpose(ctx.axes).reshape(-1)

    def shaped(ctx, a: Any) -> Any:
        shape = [ctx.shapes[0][axis] for axis in ctx.axes]
        return a.reshape(shape).transpose(sorted(range(len(shape)), key=ctx.axes.__getitem__))


class SquaredError(Function):
    """y = (x − t)²    ∂x = 2·∂y·(x − t)    ∂t = −∂x"""

    def forward(ctx, x: Any, t: Any) -> Any:
        d = x - t
        ctx.save(d)
        return d * d

    def backward(ctx, gy: Any) -> tuple[Any, ...]:
        (d,) = ctx.saved
        g = 2 * gy * d
        return g if ctx.needs[0] else None, -g if ctx.needs[1] else None


class AbsoluteError(Function):
    """y = |x − t|    ∂x = ∂y·sign(x − t), 0 where they are equal    ∂t = −∂x"""

    def forward(ctx, x: Any, t: Any) -> Any:
        d = x - t
        ctx.save(d)
        return abs(d)

    def backward(ctx, gy: Any) -> tuple[Any, ...]:
        (d,) = ctx.saved
        g = gy * array_module(gy).sign(d)
        return g if ctx.needs[0] else None, -g if ctx.needs[1] else None


def _class_axis(shape: tuple[int, ...]) -> int:
    return 1 if len(shape) > 1 else 0


def _without_classes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:1] + shape[2:] if len(shape) > 1 else ()


def _class_rows(x: Any) -> Any:
    """(N, C, d₁, …) → a new array (C, N·d₁·…); (C) → (C, 1)."""
    return array_module(x).moveaxis(x, _class_axis(x.shape), 0).copy().reshape(x.shape[_class_axis(x.shape)], -1)


def _from_class_rows(rows: Any, shape: tuple[int, ...]) -> Any:
    """(C, N·d₁·…) → a view of shape (N, C, d₁, …)."""
    return array_module(rows).moveaxis(rows.reshape(rows.shape[0], *_without_classes(shape)), 0, _class_axis(shape))


def _pixels(x: Any) -> Any:
    """(N, C, d₁, …) or (C) → (N, C, P), a view in either memory order."""
    n, c = x.shape[:2] if x.ndim > 1 else (1, x.shape[0])
    return x.reshape(n, c, math.prod(x.shape[2:]))


def _numbers(t: Any, x: Any) -> Any:
    """Class numbers (N, d₁, …) for logits x → (N, P), of one of the two types that kernels read."""
    if t.dtype.kind == "b":
        t = t.view("uint8")
    elif t.dtype != "uint8":
        t = t.astype("int64", copy=False)
    return t.reshape(_pixels(x).shape[::2])


def _check_float(name: str, input: Tensor) -> None:
    if not is_float(input.data):
        raise TypeError(f"{name} expects floating-point input, got {input.dtype}. Convert with input.astype('float32').")


def _check_options(name: str, size_average: Any, reduce: Any, reduction: str) -> None:
    if size_average is not None or reduce is not None:
        raise ValueError(f"{name}: size_average and reduce were replaced by reduction='mean', 'sum' or 'none' long ago; use that.")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{name}: reduction is 'none', 'mean' or 'sum'; got {reduction!r}.")


def _check_alike(name: str, input: Tensor, target: Tensor, dtype: Any = None) -> None:
    """dtype: the target's, None for the input's."""
    _check_float(name, input)
    wanted = input.dtype if dtype is None else dtype
    if target.dtype != wanted:
        raise TypeError(f"{name}: input is {input.dtype}, target {target.dtype}. Convert with target.astype('{wanted}').")
    if input.shape != target.shape:
        raise ValueError(
            f"{name} compares element by element: input is {sizes_text(input.shape) or 'a scalar'}, target "
            f"{sizes_text(target.shape) or 'a scalar'}. Give both one shape, with reshape or unsqueeze."
        )


def _reduce(loss: Tensor, reduction: str, divisor: Any = None) -> Tensor:
    """divisor: what 'mean' divides by; None for the number of elements."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return sum_(loss)
    return _divide(sum_(loss), loss.size if divisor is None else divisor)


def _divide(total: Tensor, count: Any) -> Tensor:
    with np.errstate(invalid="ignore"):  # the mean of nothing is NaN, as in PyTorch
        return total / count


def _check_class_numbers(name: str, input: Tensor, target: Tensor) -> None:
    expected = _without_classes(input.shape)
    if target.shape != expected:
        raise ValueError(
            f"{name}: for input {sizes_text(input.shape)} with its {input.shape[_class_axis(input.shape)]} classes on axis "
            f"{_class_axis(input.shape)} a target of class numbers is {sizes_text(expected) or 'a scalar'}; "
            f"got {sizes_text(target.shape) or 'a scalar'}."
        )


def _refuse_unknown(name: str, input: Tensor, target: Tensor, ignore_index: int) -> None:
    """Raises ValueError where the target holds numbers of no class."""
    xp, index = array_module(input.data), target.data
    classes = input.shape[_class_axis(input.shape)]
    unknown = (index != ignore_index) & ((index < 0) | (index >= classes))
    if unknown.any():
        values = [int(v) for v in xp.unique(index[unknown])[:5]]
        raise ValueError(
            f"{name}: the target holds {', '.join(map(str, values))}, but the input has {classes} classes, 0 … {classes - 1}. "
            f"Map the mask's values to class numbers, or leave a value out with ignore_index={values[0]}."
        )


def where_known(loss: Tensor, unknown: Tensor, refuse: Callable[[], None]) -> Tensor:
    """The loss where no class number is unknown, else `refuse` raises. A CUDA graph cannot raise: there the loss becomes NaN."""
    if capturing():
        mark = array_module(unknown.data).where(unknown.data == 0, 0.0, math.nan)
        return loss + Tensor(mark.astype(loss.dtype))
    if unknown.item():
        refuse()
    return loss


def _check_classes(name: str, input: Tensor, weight: Tensor | None) -> None:
    _check_float(name, input)
    if input.ndim == 0:
        raise ValueError(f"{name} expects input (N, C), (N, C, d₁, …) or (C), got a scalar.")
    classes = input.shape[_class_axis(input.shape)]
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"{name}: weight has one element for each of the {classes} classes; got shape {sizes_text(weight.shape) or '()'}.")


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """−ln softmax(input)[target]: input holds logits, (N, C, d₁, …) or (C).

    target: class numbers (N, d₁, …), any integer type; or probabilities in the shape of input.
    weight: one factor for each class. ignore_index: the class number that does not count.
    label_smoothing ε: the target becomes (1−ε)·target + ε/C.
    """
    _check_options("cross_entropy", size_average, reduce, reduction)
    _check_classes("cross_entropy", input, weight)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing lies between 0 and 1, got {label_smoothing}.")
    classes = input.shape[_class_axis(input.shape)]
    if is_float(target.data):
        if ignore_index >= 0:
            raise ValueError("cross_entropy: ignore_index belongs to a target of class numbers; this one holds probabilities.")
        _check_alike("cross_entropy with probabilities as target", input, target)
        wanted = target * (1 - label_smoothing) + label_smoothing / classes if label_smoothing else target
    else:
        _check_class_numbers("cross_entropy", input, target)
        loss, total, unknown = CrossEntropy.apply(
            input,
            target,
            None if weight is None else weight.detach(),
            None,
            ignored=ignore_index,
            smoothing=label_smoothing,
            each=reduction == "none",
        )
        loss = where_known(loss, unknown, lambda: _refuse_unknown("cross_entropy", input, target, ignore_index))
        return _divide(loss, Tensor(total.data.astype(loss.dtype))) if reduction == "mean" else loss
    if weight is not None:
        wanted = wanted * weight.reshape(classes, *(1,) * max(input.ndim - 2, 0))  # (C, 1, …), against (N, C, …)
    return _reduce(SoftCrossEntropy.apply(input, wanted), reduction)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """−input[target]: input holds log-probabilities (N, C, d₁, …) or (C), target class numbers (N, d₁, …)."""
    _check_options("nll_loss", size_average, reduce, reduction)
    _check_classes("nll_loss", input, weight)
    if is_float(target.data):
        raise TypeError(f"nll_loss: target holds class numbers, of an integer type; got {target.dtype}.")
    _check_class_numbers("nll_loss", input, target)
    _refuse_unknown("nll_loss", input, target, ignore_index)
    xp = array_module(input.data)
    kept = target.data != ignore_index
    index = xp.where(kept, target.data, 0).astype("int64")
    if weight is None and kept.all():
        return _reduce(NLL.apply(input, Tensor(index), None), reduction)
    scale = kept.astype(input.dtype) if weight is None else weight.data[index] * kept
    return _reduce(NLL.apply(input, Tensor(index), Tensor(scale)), reduction, scale.sum())


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """−(t·ln x + (1−t)·ln(1−x)) for probabilities x; target in the shape of input. Prefer the form with logits.

    weight: a factor for each element, broadcast.
    """
    _check_options("binary_cross_entropy", size_average, reduce, reduction)
    _check_alike("binary_cross_entropy", input, target)
    if input.size and not bool(((input.data >= 0) & (input.data <= 1)).all()):
        raise ValueError(
            f"binary_cross_entropy expects probabilities; the input reaches from {input.data.min():.4g} to {input.data.max():.4g}. "
            "Use binary_cross_entropy_with_logits for a network's raw output, or apply sigmoid first."
        )
    loss = BinaryCrossEntropy.apply(input, target)
    return _reduce(loss if weight is None else loss * weight, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy of σ(input), exact for logits of any size; target in the shape of input.

    weight: a factor for each element, broadcast. pos_weight: a factor for positives alone, broadcast over the target's shape
    (PyTorch's rule: for (N, C, H, W) one a channel is (C, 1, 1)).
    """
    _check_options("binary_cross_entropy_with_logits", size_average, reduce, reduction)
    _check_alike("binary_cross_entropy_with_logits", input, target, computed_dtype(input.data))
    if weight is None and reduction != "none":
        divisor = input.size if reduction == "mean" else 1
        return BinaryCrossEntropyWithLogits.apply(input, target, pos_weight, each=False, divisor=divisor)
    loss = BinaryCrossEntropyWithLogits.apply(input, target, pos_weight, each=True)
    return _reduce(loss if weight is None else loss * weight, reduction)


def _weighted_error(
    name: str,
    function: type[Function],
    input: Tensor,
    target: Tensor,
    reduction: str,
    weight: Tensor | None,
) -> Tensor:
    _check_alike(name, input, target)
    loss = function.apply(input, target)
    if weight is None:
        return _reduce(loss, reduction)
    _check_alike(f"{name} with weights", input, weight)
    return sum_(loss * weight) / sum_(weight) if reduction == "mean" else _reduce(loss * weight, reduction)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(input − target)², shapes equal. weight: a factor for each element; the mean is then Σ w·loss / Σ w."""
    _check_options("mse_loss", size_average, reduce, reduction)
    return _weighted_error("mse_loss", SquaredError, input, target, reduction, weight)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """|input − target|, shapes equal. weight: a factor for each element; the mean is then Σ w·loss / Σ w."""
    _check_options("l1_loss", size_average, reduce, reduction)
    return _weighted_error("l1_loss", AbsoluteError, input, target, reduction, weight)
