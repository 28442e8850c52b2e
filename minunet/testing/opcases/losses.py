"""Rows of the losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minunet import functional as F
from minunet.testing.opcases.table import BadInput, OpCase, Sample, normal

Rng = np.random.Generator
SHAPES = ((3,), (4, 3), (2, 4, 5), (2, 3, 4, 3), (1, 2, 2, 3, 2))  # classes on axis 1, or 0 of the first


def _classes(shape: tuple[int, ...]) -> int:
    return shape[1] if len(shape) > 1 else shape[0]


def _numbers(rng: Rng, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """A target of class numbers for logits of this shape."""
    return np.asarray(rng.integers(0, _classes(shape), shape[:1] + shape[2:] if len(shape) > 1 else ()))


def _distribution(rng: Rng, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    q = rng.uniform(0.1, 1, shape)
    return q / q.sum(axis=1 if len(shape) > 1 else 0, keepdims=True)


def _class_numbers(rng: Rng) -> Iterator[Sample]:
    """What cross_entropy and nll_loss share."""
    for shape in SHAPES:
        c = _classes(shape)
        x = normal(rng, *shape)
        yield Sample((x, _numbers(rng, shape)))
        reductions = ("none", "sum", "mean") if len(shape) == 4 else ("mean",)
        for reduction in reductions:
            yield Sample((x, _numbers(rng, shape), rng.uniform(0.5, 2, c)), {"reduction": reduction}, constant=(2,))
    x = normal(rng, 2, 3, 4, 3)
    target = _numbers(rng, x.shape)
    target[0, :2] = 255
    for weight in (None, rng.uniform(0.5, 2, 3)):
        for reduction in ("none", "mean"):
            yield Sample((x, target, weight), {"ignore_index": 255, "reduction": reduction}, constant=(2,))
    yield Sample((x, _numbers(rng, x.shape)), {"ignore_index": 1})
    yield Sample((x, np.minimum(target, 2).astype(np.uint8)), torch=False)  # PyTorch wants int64 here
    yield Sample((normal(rng, 3, 1), np.zeros(3, np.int64)))  # one class
    yield Sample((normal(rng, 0, 3), np.zeros(0, np.int64)), {"reduction": "sum"}, keras=False)


def _cross_entropy(rng: Rng) -> Iterator[Sample]:
    yield from _class_numbers(rng)
    yield Sample((np.array([[1000.0, 0.0, -1000.0], [-800.0, -800.0, -900.0]]), np.array([0, 1])))  # e^x overflows
    for shape in SHAPES:
        c = _classes(shape)
        yield Sample((normal(rng, *shape), _distribution(rng, shape), rng.uniform(0.5, 2, c)), {"label_smoothing": 0.2}, constant=(1, 2))
        yield Sample((normal(rng, *shape), _numbers(rng, shape), rng.uniform(0.5, 2, c)), {"label_smoothing": 0.1}, constant=(2,))
    x = normal(rng, 2, 3, 4)
    target = _numbers(rng, x.shape)
    for reduction in ("none", "sum", "mean"):
        yield Sample((x, target), {"label_smoothing": 0.3, "ignore_index": 1, "reduction": reduction})
        yield Sample((x, _distribution(rng, x.shape)), {"reduction": reduction})
        empty = np.zeros((0, 3, 2, 3))
        if reduction != "mean":  # which is NaN
            yield Sample((empty, _numbers(rng, empty.shape)), {"reduction": reduction}, keras=False)
    for shape, options in (((1, 3, 131, 127), {"ignore_index": 1}), ((2, 2, 93, 91), {"reduction": "none", "label_smoothing": 0.1})):
        x = normal(rng, *shape)  # fills several chunks of the cpu kernels
        yield Sample((x, _numbers(rng, shape), rng.uniform(0.5, 2, shape[1])), options, constant=(2,), keras=False)


def _elementwise(rng: Rng, low: float, high: float, target_low: float, target_high: float) -> Iterator[Sample]:
    def draw(*shape: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return rng.uniform(low, high, shape), rng.uniform(target_low, target_high, shape)

    for shape in ((), (4,), (3, 4), (2, 1, 3, 3), (2, 1, 2, 3, 2)):
        yield Sample(draw(*shape))
    for reduction in ("none", "sum", "mean"):
        yield Sample(draw(2, 3, 4), {"reduction": reduction})
    yield Sample(draw(0, 3), {"reduction": "sum"})
    yield Sample(draw(0, 1, 2), {"reduction": "none"})
    yield Sample(draw(1, 1, 1, 1))


def _errors(rng: Rng) -> Iterator[Sample]:
    yield from _elementwise(rng, -2, 2, -2, 2)
    for reduction in ("none", "sum", "mean"):
        x, t = normal(rng, 2, 3, 4), normal(rng, 2, 3, 4)
        yield Sample((x, t), {"weight": rng.uniform(0.5, 2, x.shape), "reduction": reduction}, keras=False)


def _binary(rng: Rng) -> Iterator[Sample]:
    yield from _elementwise(rng, 0.05, 0.95, 0, 1)
    x, t = rng.uniform(0.1, 0.9, (2, 3, 4)), rng.uniform(0, 1, (2, 3, 4))
    for shape in ((2, 3, 4), (3, 1), ()):
        yield Sample((x, t, rng.uniform(0.5, 2, shape)), constant=(2,), keras=False)
    # logarithms end at −100 there, so finite differences see a kink: values and PyTorch's gradients only
    yield Sample((np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])), {"reduction": "none"}, constant=(0, 1), keras=False)


def _binary_logits(rng: Rng) -> Iterator[Sample]:
    yield from _elementwise(rng, -3, 3, 0, 1)
    x, t = normal(rng, 2, 3, 4, 3), rng.uniform(0, 1, (2, 3, 4, 3))
    for weight in (None, rng.uniform(0.5, 2, (2, 3, 4, 3)), rng.uniform(0.5, 2, 3)):
        yield Sample((x, t, weight), {"reduction": "none"}, constant=(2,), keras=False)
        yield Sample((x, t, weight), {"pos_weight": rng.uniform(0.5, 3, (3, 1, 1))}, constant=(2,), keras=False)
    yield Sample((x, t), {"pos_weight": np.array([4.0])}, keras=False)
    x, t = normal(rng, 2, 1, 93, 91), rng.uniform(0, 1, (2, 1, 93, 91))  # fill several chunks of the cpu kernels
    yield Sample((x, t), keras=False)
    yield Sample((x, t), {"reduction": "none", "pos_weight": np.array([4.0])}, keras=False)
    yield Sample((np.array([-900.0, -40.0, 40.0, 900.0]), np.array([1.0, 0.0, 1.0, 0.0])), {"reduction": "sum"}, keras=False)


def _reduced(values: Any, sample: Sample) -> np.ndarray[Any, Any]:
    reduction = sample.options.get("reduction", "mean")
    return np.asarray(values if reduction == "none" else getattr(np, reduction)(values))


def _keras_cross_entropy(keras: Any, sample: Sample) -> np.ndarray[Any, Any] | None:
    x, target, *weight = sample.inputs
    if x is None or target is None or x.shape[-1] == 1 or not x.size or weight or "ignore_index" in sample.options:
        return None  # Keras leaves out values and weighs classes elsewhere, with another mean
    axis = 1 if x.ndim > 1 else 0
    classes = x.shape[axis]
    if target.dtype.kind != "f":
        target = np.moveaxis(np.eye(classes)[target], -1, axis)
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, axis=axis, label_smoothing=sample.options.get("label_smoothing", 0.0), reduction=None, dtype="float64"
    )
    return _reduced(loss(target, x), sample)


def _keras_elementwise(name: str, **options: Any) -> Any:
    def counterpart(keras: Any, sample: Sample) -> np.ndarray[Any, Any] | None:
        x, target = sample.inputs[:2]
        reduction = sample.options.get("reduction", "mean")
        if x is None or target is None or not x.ndim or not x.size or reduction == "none":
            return None
        lines = np.asarray(getattr(keras.losses, name)(target, x, **options))  # Keras averages over the last axis, in float32
        return np.asarray(lines.sum() * x.shape[-1] if reduction == "sum" else lines.mean(), dtype=np.float32)

    return counterpart


def _bad_options(*inputs: np.ndarray[Any, Any]) -> Iterator[BadInput]:
    yield BadInput(inputs, {"size_average": True}, ValueError, "use that")
    yield BadInput(inputs, {"reduce": False}, ValueError, "size_average and reduce were replaced by reduction=")
    yield BadInput(inputs, {"reduction": "average"}, ValueError, "'none', 'mean' or 'sum'; got 'average'")


def _bad_classes() -> Iterator[BadInput]:
    x, target = np.ones((2, 3, 4)), np.ones((2, 4), np.int64)
    yield from _bad_options(x, target)
    yield BadInput((x, 255 * target), {}, ValueError, "holds 255, but the input has 3 classes, 0 … 2.*ignore_index=255")
    yield BadInput((x, -target), {}, ValueError, "holds -1, but")
    yield BadInput((x, target[:, None]), {}, ValueError, "input 2×3×4 with its 3 classes on axis 1 .* is 2×4; got 2×1×4")
    yield BadInput((x, target, np.ones(2)), {}, ValueError, "one element for each of the 3 classes; got shape 2")
    yield BadInput((np.ones(()), np.zeros((), np.int64)), {}, ValueError, "got a scalar")
    yield BadInput((x.astype(np.int64), target), {}, TypeError, "expects floating-point input, got int64")


def _bad_cross_entropy() -> Iterator[BadInput]:
    yield from _bad_classes()
    x = np.ones((2, 3, 4))
    yield BadInput((x, x[:, :2]), {}, ValueError, "input is 2×3×4, target 2×2×4")
    yield BadInput((x, x), {"ignore_index": 0}, ValueError, "ignore_index belongs to a target of class numbers")
    yield BadInput((x, x), {"label_smoothing": 1.5}, ValueError, "between 0 and 1, got 1.5")
    yield BadInput((x, x.astype(np.float32)), {}, TypeError, "input is float64, target float32")


def _bad_nll() -> Iterator[BadInput]:
    yield from _bad_classes()
    yield BadInput((np.ones((2, 3)), np.ones((2, 3))), {}, TypeError, "class numbers, of an integer type; got float64")


def _bad_elementwise() -> Iterator[BadInput]:
    x = np.full((3, 1), 0.5)
    yield from _bad_options(x, x)
    yield BadInput((x, x[:, 0]), {}, ValueError, "input is 3×1, target 3. Give both one shape")
    yield BadInput((x, np.ones((3, 1), np.int64)), {}, TypeError, "input is float64, target int64. Convert")


def _bad_binary() -> Iterator[BadInput]:
    yield from _bad_elementwise()
    yield BadInput((np.array([0.2, 1.5]), np.ones(2)), {}, ValueError, "reaches from 0.2 to 1.5. Use binary_cross_entropy_with_logits")


CASES = [
    OpCase(
        "cross_entropy",
        F.cross_entropy,
        _cross_entropy,
        "cross_entropy",
        lambda t: t.nn.functional.cross_entropy,
        _keras_cross_entropy,
        _bad_cross_entropy,
        images=(0,),
    ),
    OpCase("nll_loss", F.nll_loss, _class_numbers, "nll_loss", lambda t: t.nn.functional.nll_loss, bad_inputs=_bad_nll, linear=(0,)),
    OpCase(
        "binary_cross_entropy",
        F.binary_cross_entropy,
        _binary,
        "binary_cross_entropy",
        lambda t: t.nn.functional.binary_cross_entropy,
        _keras_elementwise("binary_crossentropy"),
        _bad_binary,
        linear=(1,),
    ),
    OpCase(
        "binary_cross_entropy_with_logits",
        F.binary_cross_entropy_with_logits,
        _binary_logits,
        "binary_cross_entropy_with_logits",
        lambda t: t.nn.functional.binary_cross_entropy_with_logits,
        _keras_elementwise("binary_crossentropy", from_logits=True),
        _bad_elementwise,
        linear=(1,),
        images=(0,),
    ),
    OpCase(
        "mse_loss",
        F.mse_loss,
        _errors,
        "mse_loss",
        lambda t: t.nn.functional.mse_loss,
        _keras_elementwise("mean_squared_error"),
        _bad_elementwise,
    ),
    OpCase(
        "l1_loss",
        F.l1_loss,
        _errors,
        "l1_loss",
        lambda t: t.nn.functional.l1_loss,
        _keras_elementwise("mean_absolute_error"),
        _bad_elementwise,
    ),
]
