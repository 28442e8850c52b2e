"""Rows of the activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minunet import functional as F
from minunet.testing.opcases.table import BadInput, OpCase, Sample, normal, spaced

Rng = np.random.Generator


def _samples(**options: tuple[float, ...]) -> Callable[[Rng], Iterator[Sample]]:
    """Ranks 0 to 5 and an empty batch with the defaults, then each value of each option."""

    def samples(rng: Rng) -> Iterator[Sample]:
        for shape in ((), (5,), (3, 4), (2, 3, 5), (2, 3, 4, 3), (1, 2, 2, 3, 2), (0, 3, 2)):
            yield Sample((np.asarray(3 * spaced(rng, *shape)),))
        for name, values in options.items():
            for value in values:
                yield Sample((3 * spaced(rng, 2, 3, 4),), {name: value})

    return samples


def _relu(rng: Rng) -> Iterator[Sample]:
    yield from _samples()(rng)
    yield Sample((spaced(rng, 3, 5, 67, 69),), keras=False)  # fills several chunks of the cpu kernel


def _leaky_relu(rng: Rng) -> Iterator[Sample]:
    yield from _samples(negative_slope=(0.0, 0.3, -0.5))(rng)
    yield Sample((spaced(rng, 3, 5, 67, 69),), {"negative_slope": 0.1}, keras=False)  # fills several chunks of the cpu kernel


def _tails(rng: Rng) -> Iterator[Sample]:
    yield from _samples()(rng)
    yield Sample((np.array([-800.0, -90.0, -30.0, 0.0, 30.0, 90.0, 800.0]),))


def _prelu(rng: Rng) -> Iterator[Sample]:
    yield Sample((spaced(rng, 3), normal(rng, 1)))
    yield Sample((spaced(rng, 4, 3), normal(rng, 3)))
    yield Sample((spaced(rng, 2, 3, 5), normal(rng, 1)))
    yield Sample((spaced(rng, 2, 3, 4, 5), normal(rng, 3)))
    yield Sample((spaced(rng, 2, 1, 2, 3, 2), normal(rng, 1)))
    yield Sample((spaced(rng, 0, 2, 3), normal(rng, 2)))


def _keras(name: str, **renamed: str) -> Callable[[Any, Sample], np.ndarray[Any, Any] | None]:
    def counterpart(keras: Any, sample: Sample) -> np.ndarray[Any, Any]:
        options = {renamed.get(key, key): value for key, value in sample.options.items()}
        return np.asarray(getattr(keras.ops, name)(sample.inputs[0], **options))

    return counterpart


def _keras_prelu(keras: Any, sample: Sample) -> np.ndarray[Any, Any] | None:
    x, slope = sample.inputs
    if x is None or slope is None or x.ndim < 2 or not x.size:
        return None
    layer = keras.layers.PReLU(shared_axes=list(range(2, x.ndim)), dtype="float64")  # one slope a channel, shared by the pixels
    layer.build(x.shape)
    layer.weights[0].assign(np.broadcast_to(slope, (x.shape[1],)).reshape(-1, *(1,) * (x.ndim - 2)))
    return np.asarray(layer(x))


def _bad_inplace() -> Iterator[BadInput]:
    yield BadInput((np.ones(3),), {"inplace": True}, ValueError, "inplace=True is not supported")


def _bad_prelu() -> Iterator[BadInput]:
    yield BadInput((np.ones((2, 3, 4)), np.ones(4)), {}, ValueError, "one for each of the 3 channels .* 2×3×4; got weight of shape 4")


CASES = [
    OpCase("relu", F.relu, _relu, "relu", lambda t: t.relu, _keras("relu"), _bad_inplace, images=(0,)),
    OpCase(
        "leaky_relu",
        F.leaky_relu,
        _leaky_relu,
        "leaky_relu",
        lambda t: t.nn.functional.leaky_relu,
        lambda keras, sample: _keras("leaky_relu")(keras, Sample(sample.inputs, {"negative_slope": 0.01} | sample.options)),
        _bad_inplace,
        images=(0,),
    ),
    OpCase("prelu", F.prelu, _prelu, "prelu", lambda t: t.nn.functional.prelu, _keras_prelu, _bad_prelu, linear=(1,)),
    OpCase("elu", F.elu, _samples(alpha=(0.5, 2.0, -1.0)), "elu", lambda t: t.nn.functional.elu, _keras("elu"), _bad_inplace),
    OpCase("sigmoid", F.sigmoid, _tails, "sigmoid", lambda t: t.sigmoid, _keras("sigmoid")),
    OpCase("tanh", F.tanh, _tails, "tanh", lambda t: t.tanh, _keras("tanh")),
]
