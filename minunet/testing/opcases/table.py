"""What a row of the operation table is.

One row tells everything that generic tests need to know about a public function: inputs worth trying, what it must
equal, and which inputs it must refuse. The tests (values, gradients, dtypes, layouts, kernel sets, determinism) and the
command `minunet check` walk the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minunet.tensor import Tensor


@dataclass(frozen=True)
class Sample:
    """One call: `function(*inputs, **options)`.

    inputs: float64 arrays, integer arrays, or None. Float arrays are turned to the dtype under test and differentiated,
    except those listed in `constant`.
    torch, keras: False where the other framework has no such case (the row then says why in a comment).
    """

    inputs: tuple[np.ndarray[Any, Any] | None, ...]
    options: dict[str, Any] = field(default_factory=dict)
    constant: tuple[int, ...] = ()
    torch: bool = True
    keras: bool = True

    def __str__(self) -> str:
        shapes = ", ".join("None" if a is None else "×".join(map(str, a.shape)) or "scalar" for a in self.inputs)
        return ", ".join([shapes, *(f"{k}={v}" for k, v in self.options.items() if not isinstance(v, np.ndarray))])


@dataclass(frozen=True)
class BadInput:
    """A call that must raise `error` with a message that matches the regular expression `message`."""

    inputs: tuple[Any, ...]
    options: dict[str, Any]
    error: type[Exception]
    message: str


@dataclass(frozen=True)
class OpCase:
    """One public function.

    samples(rng): the calls to try. oracle: its name in tests/oracles/ (same inputs and options, float64 NumPy).
    torch(torch): PyTorch's counterpart, a function of the same arguments. keras(keras, sample): the result computed by
    Keras for the sample as a NumPy array in our layout, or None where Keras has no such call.
    linear: positions of inputs in which the function is linear, each taken alone: checked in float32 with a step of 1.
    random: draws from the random stream (it is reseeded before each call; no comparison with other frameworks).
    tolerance32: relative tolerance of float32 results against float64.
    images: positions of inputs that may have 16 bits; the others, its parameters, are float32 then. None named: all have one dtype.
    """

    name: str
    function: Callable[..., Tensor]
    samples: Callable[[np.random.Generator], Iterable[Sample]]
    oracle: str | None = None
    torch: Callable[[Any], Callable[..., Any]] | None = None
    keras: Callable[[Any, Sample], np.ndarray[Any, Any] | None] | None = None
    bad_inputs: Callable[[], Iterable[BadInput]] = tuple
    linear: tuple[int, ...] = ()
    random: bool = False
    tolerance32: float = 1e-4
    images: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.name


def spaced(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    """Shuffled, evenly spaced values: no two closer than 2/size, none near zero, so that max and ReLU have no near-ties."""
    size = int(np.prod(shape))
    return rng.permutation(np.linspace(-1, 1, size) + 0.5 / max(size, 1)).reshape(shape)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    """Standard normal float64 values."""
    return rng.standard_normal(shape)
