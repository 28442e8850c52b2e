"""Rows of the normalisations. How running statistics move is tested beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minunet import functional as F
from minunet.tensor import Tensor
from minunet.testing.opcases.table import BadInput, OpCase, Sample, normal

Rng = np.random.Generator
SMALL = ((5, 3), (4, 3, 5), (2, 4, 5, 3), (3, 1, 2, 3, 2), (1, 6, 4, 4))
SHAPES = (*SMALL, (2, 70, 23, 21))  # the last fills several chunks of the cpu kernels
# JAX compiles Keras anew for each sample, which takes a second: few samples are compared


def _affine(rng: Rng, *shape: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A weight and a bias."""
    return normal(rng, *shape) + 1, normal(rng, *shape)


def _running(rng: Rng, channels: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return normal(rng, channels), rng.uniform(0.5, 2, channels)


def _with_running(flag: str, minimum: int) -> Callable[[Rng], Iterator[Sample]]:
    """Batch and instance norm: own statistics with and without running ones, running ones alone, with and without weights."""

    def samples(rng: Rng) -> Iterator[Sample]:
        for shape in (s for s in SHAPES if len(s) >= minimum):
            x = 2 * normal(rng, *shape) + 3
            affine, few = _affine(rng, shape[1]), shape in SMALL
            yield Sample((x, None, None, *affine), {flag: True}, keras=few and len(shape) == 4)
            if few:
                yield Sample((x, *_running(rng, shape[1]), *affine), {flag: False}, constant=(1, 2), keras=len(shape) == 4)
        x = normal(rng, 3, 2, 4)
        weight, bias = _affine(rng, 2)
        yield Sample((x, None, None, None, None), {flag: True, "eps": 0.1})
        yield Sample((x, None, None, weight, None), {flag: True}, keras=False)
        yield Sample((x, None, None, None, bias), {flag: True}, keras=False)
        yield Sample((x, *_running(rng, 2), weight, bias), {flag: True, "momentum": 0.5}, constant=(1, 2), keras=False)
        yield Sample((x, *_running(rng, 2), None, None), {flag: False, "eps": 0.01}, constant=(1, 2), keras=False)
        yield Sample((x, *_running(rng, 2), weight, bias), {flag: False}, constant=(0, 1, 2), keras=False)
        # PyTorch's instance_norm cannot have an empty batch
        empty = np.zeros((0, 2, 3, 3))
        yield Sample((empty, *_running(rng, 2), weight, bias), {flag: False}, constant=(1, 2), torch=minimum == 2, keras=False)

    return samples


def _group(rng: Rng) -> Iterator[Sample]:
    for shape, groups in zip(SHAPES, (1, 3, 2, 1, 3, 10), strict=True):
        x = 2 * normal(rng, *shape) + 3
        yield Sample((x, *_affine(rng, shape[1])), {"num_groups": groups}, keras=shape in SMALL and len(shape) == 4)
    yield Sample((normal(rng, 2, 4, 3), None, None), {"num_groups": 4, "eps": 0.1})
    yield Sample((normal(rng, 2, 4, 3), *_affine(rng, 4)), {"num_groups": 1}, constant=(0,), keras=False)
    yield Sample((normal(rng, 2, 4, 3), normal(rng, 4), None), {"num_groups": 2}, keras=False)
    yield Sample((normal(rng, 0, 4, 3), *_affine(rng, 4)), {"num_groups": 2}, keras=False)
    yield Sample((normal(rng, 2, 4, 1, 1), *_affine(rng, 4)), {"num_groups": 2}, keras=False)  # one pixel
    yield Sample((normal(rng, 3, 1, 7), *_affine(rng, 1)), {"num_groups": 1}, keras=False)  # one channel


def _fused(flag: str) -> Callable[[Rng], Iterator[Sample]]:
    """Batch and instance norm with ReLU: statistics of the input and running ones, with and without weights, from one channel to several
    chunks of the cpu kernels, an odd number of pixels, and each gradient."""

    def samples(rng: Rng) -> Iterator[Sample]:
        for shape in ((4, 3, 5), (2, 1, 4, 4), (2, 5, 3, 3), (1, 2, 2, 3, 2), (2, 70, 23, 21), (0, 3, 4)):
            x, affine = 2 * normal(rng, *shape) + 3, _affine(rng, shape[1])
            if shape[0]:
                yield Sample((x, None, None, *affine), {flag: True, "activation": "relu"})
            torch = shape[0] > 0 or flag == "training"
            yield Sample((x, *_running(rng, shape[1]), *affine), {flag: False, "activation": "relu"}, constant=(1, 2), torch=torch)
        yield Sample((normal(rng, 3, 2, 4), None, None, None, None), {flag: True, "activation": "relu"})
        yield Sample((normal(rng, 3, 2, 4), None, None, None, normal(rng, 2)), {flag: True, "activation": "relu"}, constant=(0,))
        pixel = (normal(rng, 3, 2, 1), *_running(rng, 2), *_affine(rng, 2))
        yield Sample(pixel, {flag: False, "activation": "relu"}, constant=(1, 2))

    return samples


def _fused_group(rng: Rng) -> Iterator[Sample]:
    for shape, groups in (((4, 3, 5), 3), ((2, 1, 4, 4), 1), ((2, 6, 3, 3), 2), ((1, 4, 1), 2), ((2, 70, 23, 21), 10), ((0, 4, 3), 2)):
        yield Sample((2 * normal(rng, *shape) + 3, *_affine(rng, shape[1])), {"num_groups": groups, "activation": "relu"})
    yield Sample((normal(rng, 2, 4, 3), None, None), {"num_groups": 2, "activation": "relu"})


def _layer(rng: Rng) -> Iterator[Sample]:
    for shape, n in (((5,), 1), ((3, 5), 1), ((2, 3, 4), 2), ((2, 1, 3, 2), 3)):
        x = 2 * normal(rng, *shape) + 3
        yield Sample((x, *_affine(rng, *shape[-n:])), {"normalized_shape": shape[-n:]}, keras=n == 2)
    yield Sample((normal(rng, 2, 4, 3), None, None), {"normalized_shape": (3,), "eps": 0.1})


def _pure(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Copies the running statistics, which the function would move in place: rows are run again and again."""

    def call(x: Tensor, mean: Tensor | None = None, var: Tensor | None = None, *affine: Tensor | None, **options: Any) -> Tensor:
        return function(x, *(None if t is None else Tensor(t.data.copy()) for t in (mean, var)), *affine, **options)

    return call


def _group_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, num_groups: int = 1, **options: Any) -> Tensor:
    return F.group_norm(x, num_groups, weight, bias, **options)


def _torch_group_norm(torch: Any) -> Callable[..., Any]:
    return lambda x, weight, bias, num_groups, **options: torch.nn.functional.group_norm(x, num_groups, weight, bias, **options)


def _then_relu(counterpart: Callable[[Any], Callable[..., Any]]) -> Callable[[Any], Callable[..., Any]]:
    """PyTorch's function with the activation behind it."""

    def with_relu(torch: Any) -> Callable[..., Any]:
        return lambda *tensors, activation, **options: torch.relu(counterpart(torch)(*tensors, **options))

    return with_relu


def _keras_batch(keras: Any, sample: Sample) -> np.ndarray[Any, Any] | None:
    x, mean, var, weight, bias = sample.inputs
    layer = keras.layers.BatchNormalization(
        axis=1, epsilon=sample.options.get("eps", 1e-5), center=bias is not None, scale=weight is not None, dtype="float64"
    )
    return _keras_layer(layer, x, weight, bias, *(() if mean is None else (mean, var)), training=sample.options["training"])


def _keras_instance(keras: Any, sample: Sample) -> np.ndarray[Any, Any] | None:
    x, _, _, weight, bias = sample.inputs
    if not sample.options["use_input_stats"] or x is None:
        return None
    return _keras_groups(keras, Sample((x, weight, bias), {**sample.options, "num_groups": x.shape[1]}))


def _keras_groups(keras: Any, sample: Sample) -> np.ndarray[Any, Any] | None:
    x, weight, bias = sample.inputs
    layer = keras.layers.GroupNormalization(
        sample.options["num_groups"],
        axis=1,
        epsilon=sample.options.get("eps", 1e-5),
        center=bias is not None,
        scale=weight is not None,
        dtype="float64",
    )
    return _keras_layer(layer, x, weight, bias)


def _keras_layer_norm(keras: Any, sample: Sample) -> np.ndarray[Any, Any] | None:
    x, weight, bias = sample.inputs
    layer = keras.layers.LayerNormalization(
        axis=list(range(-len(sample.options["normalized_shape"]), 0)),
        epsilon=sample.options.get("eps", 1e-5),
        center=bias is not None,
        scale=weight is not None,
        dtype="float64",
    )
    return _keras_layer(layer, x, weight, bias)


def _keras_layer(layer: Any, x: Any, *weights: Any, **options: Any) -> np.ndarray[Any, Any]:
    layer.build(x.shape)
    for variable, value in zip(layer.weights, (w for w in weights if w is not None), strict=False):
        variable.assign(value)
    return np.asarray(layer(x, **options)).astype(np.float32)  # Keras computes statistics in float32


def _bad_channels(function_inputs: int) -> Iterator[BadInput]:
    x = np.ones((2, 3, 4))
    nones = (None,) * (function_inputs - 3)
    yield BadInput((x, *nones, np.ones(2), None), {}, ValueError, "weight has one element for each of the 3 channels .* 2×3×4; got shape 2")
    yield BadInput((x, *nones, None, np.ones((3, 1))), {}, ValueError, "bias has one element for each .*; got shape 3×1")
    yield BadInput((x, *nones, np.ones(3, np.float32), None), {}, TypeError, "mix float32 and float64")
    yield BadInput((x.astype(np.int64), *nones, None, None), {}, TypeError, "expects floating-point input, got int64")


def _with(options: dict[str, Any], bads: Iterator[BadInput]) -> Iterator[BadInput]:
    for bad in bads:
        yield BadInput(bad.inputs, {**bad.options, **options}, bad.error, bad.message)


def _bad_batch() -> Iterator[BadInput]:
    yield from _with({"training": True}, _bad_channels(5))
    yield BadInput((np.ones((2, 3)), None, None), {"activation": "tanh"}, ValueError, "activation is None or 'relu', got 'tanh'")
    yield BadInput((np.ones(3), None, None), {"training": True}, ValueError, r"expects input \(N, C, …\), got 1 axes: 3")
    yield BadInput((np.ones((1, 3, 1, 1)), None, None), {"training": True}, ValueError, "1×3×1×1 has one.*group_norm .*instance_norm")
    yield BadInput((np.ones((2, 3)), None, None), {}, ValueError, "needs running_mean and running_var; got None")
    yield BadInput((np.ones((2, 3)), np.ones(2), np.ones(3)), {}, ValueError, "running_mean has one element .* got shape 2")


def _bad_instance() -> Iterator[BadInput]:
    yield from _bad_channels(5)
    yield BadInput((np.ones((2, 3)),), {}, ValueError, r"expects input \(N, C, \*spatial\), got 2 axes: 2×3")
    yield BadInput((np.ones((2, 3, 1)),), {}, ValueError, "2×3×1 has one")


def _bad_group() -> Iterator[BadInput]:
    yield from _with({"num_groups": 3}, _bad_channels(3))
    yield BadInput((np.ones((2, 4, 3)),), {"num_groups": 3}, ValueError, "must divide the number of channels, 4; got 3")
    yield BadInput((np.ones((2, 4, 3)),), {"num_groups": 0}, ValueError, "must divide the number of channels, 4; got 0")
    yield BadInput((np.ones((2, 4, 1)),), {"num_groups": 4}, ValueError, "4 groups of input 2×4×1 have one each")


def _bad_layer() -> Iterator[BadInput]:
    x = np.ones((2, 3, 4))
    yield BadInput((x,), {"normalized_shape": (3,)}, ValueError, "input 2×3×4 does not end with normalized_shape 3")
    yield BadInput((x, np.ones(3)), {"normalized_shape": (4,)}, ValueError, "weight has the shape normalized_shape, 4; got 3")


CASES = [
    OpCase(
        "batch_norm",
        _pure(F.batch_norm),
        _with_running("training", 2),
        "batch_norm",
        lambda t: t.nn.functional.batch_norm,
        _keras_batch,
        _bad_batch,
        images=(0,),
    ),
    OpCase(
        "instance_norm",
        _pure(F.instance_norm),
        _with_running("use_input_stats", 3),
        "instance_norm",
        lambda t: t.nn.functional.instance_norm,
        _keras_instance,
        _bad_instance,
        images=(0,),
    ),
    OpCase(
        "group_norm",
        _group_norm,
        _group,
        "group_norm",
        _torch_group_norm,
        _keras_groups,
        _bad_group,
        images=(0,),
    ),
    OpCase(
        "layer_norm",
        lambda x, weight=None, bias=None, normalized_shape=(), eps=1e-5: F.layer_norm(x, normalized_shape, weight, bias, eps),
        _layer,
        "layer_norm",
        lambda t: lambda x, weight, bias, normalized_shape, eps=1e-5: t.nn.functional.layer_norm(x, normalized_shape, weight, bias, eps),
        _keras_layer_norm,
        _bad_layer,
    ),
    OpCase(
        "batch_norm with relu",
        _pure(F.batch_norm),
        _fused("training"),
        "batch_norm",
        _then_relu(lambda t: t.nn.functional.batch_norm),
        images=(0,),
    ),
    OpCase(
        "instance_norm with relu",
        _pure(F.instance_norm),
        _fused("use_input_stats"),
        "instance_norm",
        _then_relu(lambda t: t.nn.functional.instance_norm),
        images=(0,),
    ),
    OpCase("group_norm with relu", _group_norm, _fused_group, "group_norm", _then_relu(_torch_group_norm), images=(0,)),
]
