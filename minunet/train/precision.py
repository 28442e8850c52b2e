"""The formats a network can be trained in: what its images are stored as, and what multiplies them.

| precision | images, activations and their gradients | multiplied by |
|---|---|---|
| float32 | float32 | the ordinary units |
| tf32 | float32 | the tensor cores, factors rounded to 10 bits behind the point |
| fp16 | float16 | the tensor cores; the loss is scaled |
| bf16 | bfloat16 | the tensor cores |

Weights, statistics, sums, the loss and the optimiser are float32 in all of them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from minunet import cuda
from minunet.arrays import as_dtype

STORED = {"float32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def check_precision(precision: str, device: str) -> None:
    """Raises ValueError where there is no such precision, or the device does not have it."""
    if precision not in STORED:
        raise ValueError(f"precision is one of {', '.join(STORED)}; got {precision!r}.")
    if precision != "float32" and device != "cuda":
        raise ValueError(f"precision {precision!r} is for the tensor cores of a GPU: use --device cuda with it, or precision 'float32'.")


def as_images(array: Any, precision: str) -> Any:
    """The array as a network takes it in this precision."""
    return array.astype(as_dtype(STORED[precision]), copy=False)


def multiplying(precision: str) -> AbstractContextManager[None]:
    """The block in which to compute."""
    return cuda.precision("tf32") if precision == "tf32" else nullcontext()
