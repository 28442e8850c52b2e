"""eˣ and ln(1 + u) of the kernels against float64, over the whole range; and sums of losses where float32 could lose them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.conftest import require


def compiled(name: str) -> Any:
    numba, function = require("numba"), getattr(require("minunet.explog"), name)

    @numba.njit
    def each(x, y):
        for i in range(x.size):
            y[i] = function(x[i])

    def call(x: np.ndarray) -> np.ndarray:
        y = np.empty_like(x)
        each(x, y)
        return y

    return call


def units(got: np.ndarray, want: np.ndarray) -> float:
    """The largest error, in units of the last place."""
    return float((abs(got.astype(np.float64) - want) / np.spacing(want.astype(np.float32))).max())


def test_exp_is_within_two_units_in_the_last_place():
    x = np.linspace(-103.9, 88.72, 2_000_001).astype(np.float32)  # the smallest results are denormal
    assert units(compiled("exp")(x), np.exp(x.astype(np.float64))) < 2


def test_log1p_is_within_two_units_in_the_last_place():
    u = np.concatenate([np.logspace(-44, 37, 1_000_001), np.linspace(1e-3, 40, 1_000_001)]).astype(np.float32)
    assert units(compiled("log1p")(u), np.log1p(u.astype(np.float64))) < 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ends_of_the_range(dtype):
    x = np.array([-np.inf, -1e4, -0.0, 0, 1e4, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(compiled("exp")(x), np.array([0, 0, 1, 1, np.inf, np.inf, np.nan], dtype))
    np.testing.assert_array_equal(compiled("log1p")(np.array([0, np.nan], dtype)), np.array([0, np.nan], dtype))


def test_float64_is_the_librarys():
    x = np.linspace(-700, 700, 10_001)
    np.testing.assert_allclose(compiled("exp")(x), np.exp(x), rtol=1e-15)
    np.testing.assert_allclose(compiled("log1p")(abs(x)), np.log1p(abs(x)), rtol=1e-15)
