"""The rows of docs/conventions.md that no other test pins, and the page itself: each row names a test that exists."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import minunet as mu
from minunet import Tensor, models
from minunet import functional as F
from tests.conftest import require

ROOT = Path(__file__).parents[1]


def values(*numbers, shape=None):
    return Tensor(np.array(numbers, np.float64).reshape(shape or (1, 1, len(numbers))), requires_grad=True)


def numbers(tensor):
    return tensor.data.ravel().tolist()


def slope(function, at):
    """The gradient of a function of one number."""
    x = values(at)
    function(x).sum().backward()
    return x.grad.item()


# the page


def rows():
    text = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    table = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [cells for cells in table if cells[0].strip() != "Question" and set(cells[0]) != {"-"}]


@pytest.mark.parametrize("cells", rows(), ids=lambda cells: cells[0].strip())
def test_a_row_of_the_page_names_its_test(cells):
    assert len(cells) == 4
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", cells[3])
    assert named, f"{cells[0].strip()!r} names no test"
    for file, test in named:
        defined = {node.name for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}
        assert test in defined, f"there is no {test} in {file}"


# layout


def test_layout_of_weights():
    x = Tensor(np.ones((1, 4, 6, 6)))
    assert F.conv2d(x, Tensor(np.ones((8, 2, 3, 5))), groups=2).shape == (1, 8, 4, 2)
    assert F.conv_transpose2d(x, Tensor(np.ones((4, 3, 3, 5))), groups=2).shape == (1, 6, 8, 10)


def test_convolution_does_not_flip_the_kernel():
    assert numbers(F.conv1d(values(0, 0, 1, 0, 0), values(1, 2, 3))) == [3, 2, 1]


def test_transposed_convolution_paints_the_kernel():
    assert numbers(F.conv_transpose1d(values(0, 1, 0), values(1, 2, 3), stride=2)) == [0, 0, 1, 2, 3, 0, 0]


def test_pad_counts_axes_from_the_last():
    assert F.pad(Tensor(np.ones((1, 1, 2, 3))), (1, 0, 5, 0)).shape == (1, 1, 7, 4)


def test_unet_concatenates_the_skip_first():
    """With the weights behind the up-sampled half set to zero, the decoder sees the skip alone: channels 0 … half."""
    model = models.UNet(1, 1, base_channels=2, depth=1)
    parameters = dict(model.named_parameters())
    weight = parameters["decoder.0.conv1.weight"].data
    x = mu.tensor(np.random.default_rng(0).standard_normal((1, 1, 4, 4)).astype(np.float32))
    before = model(x).data.copy()
    parameters["bottleneck.conv2.bias"].data[:] += 1
    assert not np.array_equal(model(x).data, before)
    weight[:, weight.shape[1] // 2 :] = 0
    before = model(x).data.copy()
    parameters["bottleneck.conv2.bias"].data[:] += 1
    assert np.array_equal(model(x).data, before)


def test_center_crop_leaves_the_odd_pixel_at_the_end():
    assert numbers(F.center_crop(values(0, 1, 2, 3, 4), (2,))) == [1, 2]


# windows


def test_output_sizes_are_rounded_down():
    x, w = Tensor(np.ones((1, 1, 6))), Tensor(np.ones((1, 1, 3)))
    assert F.conv1d(x, w, stride=2).shape[2] == 2
    assert F.max_pool1d(x, 3, stride=2).shape[2] == 2
    assert F.max_pool1d(x, 3, stride=2, ceil_mode=True).shape[2] == 3
    assert F.interpolate(x, scale_factor=0.4).shape[2] == 2


def test_same_puts_the_odd_zero_at_the_end():
    x, w = values(1, 2, 3, 4), values(1, 10, 100)
    assert numbers(F.conv1d(x, w, stride=2, padding="same")) == [1 + 20 + 300, 3 + 40]
    assert numbers(F.conv1d(x, w, stride=2, padding=1)) == [10 + 200, 2 + 30 + 400]  # PyTorch's: a zero on either side
    assert numbers(F.max_pool1d(values(-1, -2, -3, -4), 3, stride=2, padding="same")) == [-1, -3]


def test_transposed_same_is_one_pixel_off_pytorchs():
    x, w = values(1, 10), values(1, 2, 3)
    keras = F.conv_transpose1d(x, w, stride=2, padding="same")
    pytorch = F.conv_transpose1d(x, w, stride=2, padding=1, output_padding=1)
    full = numbers(F.conv_transpose1d(x, w, stride=2))
    assert full == [1, 2, 13, 20, 30]
    assert numbers(keras) == full[:4]
    assert numbers(pytorch) == full[1:]


def test_transposed_valid_reaches_a_whole_stride():
    x, w = values(1, 10), values(7)
    assert numbers(F.conv_transpose1d(x, w, stride=3, padding="valid")) == [7, 0, 0, 70, 0, 0]
    assert numbers(F.conv_transpose1d(x, w, stride=3)) == [7, 0, 0, 70]


def test_pooling_strides_by_its_kernel():
    assert numbers(F.max_pool1d(values(1, 2, 3, 4, 5, 6), 3)) == [3, 6]
    assert numbers(F.avg_pool1d(values(1, 2, 3, 4, 5, 6), 3)) == [2, 5]


def test_max_pooling_pads_with_minus_infinity():
    assert numbers(F.max_pool1d(values(-5, -7), 3, stride=1, padding=1)) == [-5, -5]


def test_average_pooling_counts_explicit_padding():
    x = values(6, 6)
    assert numbers(F.avg_pool1d(x, 3, stride=1, padding=1)) == [4, 4]
    assert numbers(F.avg_pool1d(x, 3, stride=1, padding=1, count_include_pad=False)) == [6, 6]
    assert numbers(F.avg_pool1d(x, 3, stride=1, padding="same")) == [6, 6]


# resampling


def test_align_corners():
    x = values(0, 3)
    assert numbers(F.interpolate(x, size=4, mode="linear")) == [0, 0.75, 2.25, 3]
    assert np.allclose(numbers(F.interpolate(x, size=4, mode="linear", align_corners=True)), [0, 1, 2, 3])


def test_nearest_rounds_down():
    x = values(0, 1, 2)
    assert numbers(F.interpolate(x, size=5)) == [0, 0, 1, 1, 2]
    assert numbers(F.interpolate(x, size=5, mode="nearest-exact")) == [0, 0, 1, 2, 2]


# slopes


def test_slopes_at_a_kink():
    assert slope(F.relu, 0.0) == 0
    assert slope(lambda x: F.conv1d(x, values(1), activation="relu"), 0.0) == 0
    assert slope(lambda x: F.leaky_relu(x, 0.2), 0.0) == 0.2
    assert slope(lambda x: F.elu(x, 0.7), 0.0) == 0.7
    assert slope(F.abs, 0.0) == 0
    assert slope(lambda x: F.clip(x, 0.0, 1.0), 0.0) == 1
    assert slope(lambda x: F.clip(x, 0.0, 1.0), 1.0) == 1
    a, b = values(2), values(2)
    F.maximum(a, b).sum().backward()
    assert (a.grad.item(), b.grad.item()) == (0.5, 0.5)


def test_ties_of_a_reduction_share():
    x = values(3, 1, 3)
    x.max(-1).sum().backward()
    assert x.grad.ravel().tolist() == [0.5, 0, 0.5]


# statistics and losses


def test_variance_is_unbiased():
    x = values(1, 2, 3)
    assert x.var().item() == 1
    assert np.isclose(x.var(correction=0).item(), 2 / 3)


def test_defaults_that_keras_sets_otherwise():
    keras = require("keras")
    assert inspect.signature(F.leaky_relu).parameters["negative_slope"].default == 0.01
    assert keras.layers.LeakyReLU().negative_slope == 0.3
    defaults = inspect.signature(F.batch_norm).parameters
    assert (defaults["momentum"].default, defaults["eps"].default) == (0.1, 1e-5)


def test_weighted_cross_entropy_divides_by_the_weights():
    logits, target, weight = Tensor(np.log([[0.5, 0.5], [0.8, 0.2]])), Tensor(np.array([0, 1])), Tensor(np.array([1.0, 3.0]))
    expected = -(1 * np.log(0.5) + 3 * np.log(0.2)) / (1 + 3)
    assert np.isclose(F.cross_entropy(logits, target, weight).item(), expected)
