"""Activations where the operation table cannot look: at the kink and at NaN."""

import numpy as np
import pytest

from minunet import Tensor
from minunet import functional as F
from tests.conftest import require

NAMES = ["relu", "leaky_relu", "elu", "sigmoid", "tanh"]


@pytest.mark.parametrize("name", NAMES)
def test_slope_at_zero_is_pytorchs(name):
    torch = require("torch")
    x, t = Tensor(np.zeros(1), requires_grad=True), torch.zeros(1, dtype=torch.float64, requires_grad=True)
    getattr(F, name)(x).backward(np.full(1, 3.0))
    function = getattr(torch, name) if name in ("sigmoid", "tanh") else getattr(torch.nn.functional, name)
    function(t).backward(torch.full((1,), 3.0, dtype=torch.float64))
    assert x.grad[0] == t.grad.item()


@pytest.mark.parametrize("name", [*NAMES, "prelu"])
def test_nan_stays_nan(name):
    weight = (Tensor(np.array([0.25])),) if name == "prelu" else ()
    y = getattr(F, name)(Tensor(np.array([np.nan, 1.0])), *weight).data
    assert np.isnan(y[0])
    assert np.isfinite(y[1])


@pytest.mark.parametrize("name", NAMES)
def test_infinity_has_its_limit(name):
    low = {"relu": 0, "leaky_relu": -np.inf, "elu": -1, "sigmoid": 0, "tanh": -1}[name]
    high = 1 if name in ("sigmoid", "tanh") else np.inf
    np.testing.assert_array_equal(getattr(F, name)(Tensor(np.array([-np.inf, np.inf]))).data, [low, high])
