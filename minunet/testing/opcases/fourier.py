"""Rows of filters in the frequency domain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minunet import functional as F
from minunet.testing.opcases.table import BadInput, OpCase, Sample, normal


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, gain in (
        ((2, 3, 5), (5,)),
        ((1, 1, 8), (8,)),
        ((2, 3, 4, 6), (4, 6)),
        ((2, 2, 5, 3), (2, 1, 5, 3)),
        ((1, 2, 3, 2, 4), (3, 2, 4)),
    ):
        yield Sample((normal(rng, *shape), normal(rng, *gain)), constant=(1,))
    yield Sample((normal(rng, 0, 2, 3, 4), normal(rng, 3, 4)), constant=(1,), torch=False)  # PyTorch's transform wants an image


def _torch(torch: Any) -> Any:
    def counterpart(x: Any, gain: Any) -> Any:
        axes = tuple(range(2, x.ndim))
        return torch.fft.ifftn(gain * torch.fft.fftn(x, dim=axes), dim=axes).real

    return counterpart


def _bad() -> Iterator[BadInput]:
    x = np.ones((1, 2, 3, 4))
    yield BadInput((x, np.ones((4, 3))), {}, ValueError, "a factor for each frequency, 3×4; got 4×3")
    yield BadInput((x, np.ones((1, 4))), {}, ValueError, "a factor for each frequency, 3×4; got 1×4")
    yield BadInput((x, np.ones((2, 1, 3, 4))), {}, ValueError, "a factor for each frequency, 3×4; got 2×1×3×4")
    yield BadInput((x[0, 0], np.ones((3, 4))), {}, ValueError, r"\(N, C, \*spatial\) of 3×4")


CASES = [OpCase("fourier_filter", F.fourier_filter, _samples, "fourier_filter", _torch, bad_inputs=_bad, linear=(0,))]
