"""The steps of docs/fast_convolution.md compute the convolution, and the page's figures are those of the results."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import steps
from tests.conftest import require


@pytest.fixture(scope="module")
def operands():
    return steps.operands(channels=64, size=16, images=2)


@pytest.mark.parametrize("key", steps.steps())
def test_a_step_is_the_convolution(key, operands):
    x, w, exact = operands
    y = np.full(exact.shape, np.nan, np.float32)
    _, function = steps.steps()[key]
    result = function(x, w, y)
    np.testing.assert_allclose(y if result is None else result, exact, rtol=1e-4, atol=1e-5)


def test_pytorch_computes_the_same(operands):
    require("torch")
    x, w, exact = operands
    for _, run in steps.pytorch(x, w).values():
        np.testing.assert_allclose(run(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("points", [(0, 1), (0, 1, -1), (0, 1, -1, 2, -2), steps.POINTS, (0, 1, -1, 2, -2, 1 / 2, -1 / 2)])
@pytest.mark.parametrize("taps", [2, 3])
def test_matrices_of_cook_and_toom(points, taps):
    outputs = len(points) + 2 - taps
    A, G, B = steps.cook_toom(points, outputs, taps)
    rng = np.random.default_rng(0)
    d, g = rng.standard_normal(len(points) + 1), rng.standard_normal(taps)
    np.testing.assert_allclose(A @ ((G @ g) * (B @ d)), np.correlate(d, g), atol=1e-12)


def test_the_page_shows_the_results():
    page = steps.PAGE.read_text(encoding="utf-8")
    results = json.loads(steps.RESULTS.read_text(encoding="utf-8"))
    assert page == steps.written(page, results)
    assert page.count("<!-- measured ") == len(results["steps"])  # the table, each step, PyTorch's two in one
    assert [tuple(shape) for shape in results["shapes"]] == list(steps.SHAPES)
