"""Images of 16 bits: the rule for dtypes, how numbers are read and written, losses, and a loss that is scaled. Each operation's values
and gradients are held against float64 by test_opcases.py."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import minunet as mu
from minunet import checkpoint, losses, nn, optim
from minunet import functional as F
from minunet.arrays import HALF, as_dtype, to_device
from minunet.ops.activation.gpu import relu
from minunet.optim.scaling import GOOD_STEPS, LossScaler
from minunet.train.precision import STORED, check_precision
from minunet.train.segmentation import Settings
from tests import host_gpu
from tests.test_train import trainer


def images(*shape: int, name: str = "float16", device: str = "cpu") -> mu.Tensor:
    return mu.tensor(np.random.default_rng(sum(shape)).standard_normal(shape).astype(as_dtype(name)), requires_grad=True, device=device)


# the rule


@pytest.mark.parametrize("name", HALF)
def test_a_network_of_float32_takes_images_of_16_bits(name):
    conv, norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
    x = images(2, 2, 5, 5, name=name)
    y = norm(conv(x))
    loss = F.cross_entropy(y, mu.tensor(np.ones((2, 3, 3), np.int64)))
    loss.backward()
    assert (y.dtype.name, loss.dtype.name, x.grad.dtype.name) == (name, "float32", name)
    assert {a.dtype.name for p in (*conv.parameters(), *norm.parameters()) for a in (p.data, p.grad)} == {"float32"}
    assert {b.dtype.name for b in norm.buffers()} == {"float32", "int64"}


@pytest.mark.parametrize("name", HALF)
def test_parameters_of_16_bits_are_refused(name):
    x, w = images(1, 1, 4, 4, name=name), images(1, 1, 3, 3, name=name)
    with pytest.raises(TypeError, match=rf"Conv: with images of {name} parameters are float32, got {name}\. Keep them in float32\."):
        F.conv2d(x, w)
    with pytest.raises(TypeError, match=f"inputs mix {name} and float32"):
        x + mu.tensor(np.ones((1, 1, 4, 4), np.float32))
    with pytest.raises(TypeError, match="inputs mix"):
        F.conv2d(mu.tensor(np.ones((1, 1, 4, 4), np.float32)), w)


def test_the_target_of_a_binary_loss_is_float32():
    x = images(2, 1, 3, 3)
    with pytest.raises(TypeError, match=r"input is float16, target float16\. Convert with target\.astype\('float32'\)"):
        F.binary_cross_entropy_with_logits(x, x)


def test_bfloat16_is_a_dtype_of_tensors():
    x = mu.tensor([1.0, 2.5], requires_grad=True)
    y = x.astype("bfloat16")
    assert (y.dtype.name, y.tolist()) == ("bfloat16", [1.0, 2.5])
    assert mu.tensor(y).dtype == y.dtype
    (y * 3).sum().backward()
    assert (x.grad.dtype.name, x.grad.tolist()) == ("float32", [3, 3])


def test_bfloat16_where_ml_dtypes_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(RuntimeError, match=r"bfloat16 needs ml_dtypes, which is not installed: pip install 'minunet\[cuda\]'\."):
        mu.tensor([1.0]).astype("bfloat16")


@pytest.mark.parametrize("name", HALF)
def test_which_tells_who_serves(name):
    x, w = images(1, 1, 4, 4, name=name), mu.tensor(np.ones((1, 1, 3, 3), np.float32))
    (choice,) = mu.which(F.conv2d, x, w)
    assert str(choice) == f"conv.forward: ref (the cpu kernels take float32, float64, not {name})"
    with host_gpu.installed():
        (choice,) = mu.which(F.conv2d, x.to("cuda"), w.to("cuda"))
        assert str(choice) == "conv.forward: gpu (CuPy arrays)"


@pytest.mark.parametrize("name", HALF)
def test_halves_of_a_buffer_are_concatenated_already(name):
    left, right = mu.models.blocks.two_halves(images(1, 1, 128, 128, name=name), 4)  # large enough to come from the pool
    left[...], right[...] = 1, 2
    whole = F.cat([mu.Tensor(left), mu.Tensor(right)], dim=1).data
    assert whole.dtype.name == name
    assert np.shares_memory(whole, left)
    assert whole[0, :, 5, 5].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]


# how numbers are read and written


@pytest.mark.parametrize("name", HALF)
def test_each_number_comes_out_as_it_went_in(name):
    """All 65536 of them: subnormal ones, infinities and NaN, through a kernel that hands on what is not negative.

    CuPy has kernels compiled so that float has no numbers below 2⁻¹²⁶. BF16 has: the negative ones count as 0, and are handed on.
    """
    x = np.arange(65536, dtype=np.uint16).view(as_dtype(name))
    want = np.where(x.astype(np.float32) <= -(2.0**-126), 0, x.astype(np.float32))
    with host_gpu.installed():
        y = relu(to_device(x, "cuda")).get()
    assert y.dtype == x.dtype
    assert np.array_equal(y.astype(np.float32), want, equal_nan=True)


@pytest.mark.parametrize("name", HALF)
def test_a_result_is_rounded_to_the_nearest(name):
    """Products of two numbers with 11 and with 24 bits, as dropout makes them; NumPy and ml_dtypes round them here."""
    x = images(4096, name=name).data * np.float32(1e-3 if name == "bfloat16" else 1e-6)  # down to what FP16 has fewer bits for
    x = x.astype(as_dtype(name))
    factor = 1 / (1 - 0.3)
    mu.manual_seed(0)
    want = F.dropout(mu.Tensor(x), 0.3).data
    mu.manual_seed(0)
    with host_gpu.installed():
        got = F.dropout(mu.Tensor(to_device(x, "cuda")), 0.3).data.get()
    assert np.array_equal(got.view(np.uint16) << 1, want.view(np.uint16) << 1)  # but the sign of a zero
    kept = want != 0
    assert np.array_equal(want[kept], (x.astype(np.float32) * np.float32(factor)).astype(want.dtype)[kept])


# losses of segmentation


@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("function", [losses.cross_entropy, losses.dice_loss], ids=lambda f: f.__name__)
def test_losses_of_segmentation(name, channels, device, function):
    """The loss is as exact as float32 is, its gradient is rounded once."""
    z = images(2, channels, 6, 5, name=name).data
    target = np.random.default_rng(1).integers(0, max(channels, 2), (2, 6, 5))
    weights = {"class_weights": [0.5] + [2.0] * max(channels - 1, 1)} if function is losses.cross_entropy else {}
    found = []
    for dtype, place in ((np.float64, "cpu"), (z.dtype, device)):
        with host_gpu.installed():
            logits = mu.Tensor(to_device(z.astype(dtype), place), requires_grad=True)
            loss = function(logits, to_device(target, place), **weights)
            loss.backward()
            found.append((loss.item(), loss.dtype, to_device(logits.grad, "cpu")))
    (want, _, exact), (got, dtype, grad) = found
    assert (dtype, grad.dtype) == (np.float32, z.dtype)
    assert abs(got - want) < 1e-5
    unit = 2.0**-11 if name == "float16" else 2.0**-8
    assert (np.abs(grad.astype(np.float64) - exact) <= 1.01 * unit * np.abs(exact) + 2.0**-25).all()


# the scaled loss


def weights_with(gradients: list[Any]) -> optim.Adam:
    parameters = [nn.Parameter(np.ones(np.shape(g), np.float32)) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = np.asarray(g, np.float32) + 0
    return optim.Adam(parameters, lr=0.5)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("odd", [None, np.inf, -np.inf, np.nan])
def test_gradients_are_divided_and_looked_at(device, odd):
    many = np.arange(5000, dtype=np.float32).reshape(50, 100).T
    single = np.array([4.0 if odd is None else odd], np.float32)
    optimizer, scaler = weights_with([many, single, np.zeros((2, 3))]), LossScaler(4.0)
    optimizer.param_groups[0]["params"][2].grad = np.ones((2, 6), np.float32)[:, ::2]  # not side by side
    with host_gpu.installed():
        for p in optimizer.param_groups[0]["params"]:
            p.data, p.grad = to_device(p.data, device), to_device(p.grad, device)
        assert scaler.unscale(optimizer) == (odd is None)
        first, second, third = (to_device(p.grad, "cpu") for p in optimizer.param_groups[0]["params"])
    assert np.array_equal(first, many / 4)
    assert np.array_equal(second, single / 4, equal_nan=True)
    assert np.array_equal(third, np.full((2, 3), 0.25))
    assert scaler.scale == (4.0 if odd is None else 2.0)


def test_the_scale_doubles_after_many_good_steps():
    scaler, good, bad = LossScaler(), weights_with([np.zeros(2)]), weights_with([np.full(2, np.inf)])
    assert scaler.scale == 65536
    for _ in range(GOOD_STEPS - 1):
        assert scaler.unscale(good)
    assert scaler.state_dict() == {"scale": 65536, "good_steps": GOOD_STEPS - 1}
    resumed = LossScaler()
    resumed.load_state_dict(scaler.state_dict())
    assert resumed.unscale(good)
    assert (resumed.scale, resumed.good_steps) == (131072, 0)
    assert not scaler.unscale(bad)
    assert (scaler.scale, scaler.good_steps) == (32768, 0)


def test_gradients_that_no_scale_makes_finite():
    scaler, bad = LossScaler(2.0), weights_with([np.full(2, np.nan)])
    assert not scaler.unscale(bad)
    with pytest.raises(FloatingPointError, match=r"NaN or infinity even with the loss scaled by 1\. Find the origin with mu\.debug\(\)"):
        scaler.unscale(bad)


def test_small_gradients_survive_in_float16():
    """Of 2⁻³⁰, which float16 does not have."""

    def gradient(scale: float) -> np.ndarray:
        x, w = images(1, 1, 3, 3), nn.Parameter(np.ones((1, 1, 1, 1), np.float32))
        y = F.conv2d(F.conv2d(x, w), mu.tensor(np.ones((1, 1, 1, 1), np.float32)))
        (
            F.cross_entropy(F.cat([y, y * 0], dim=1), mu.tensor(np.zeros((1, 3, 3), np.int64)), reduction="sum") * (2.0**-30 * scale)
        ).backward()
        return w.grad / scale

    assert gradient(1.0) == 0
    assert abs(gradient(65536.0)) > 2.0**-30


# training


def test_an_overflow_skips_the_step_and_spoils_nothing(tmp_path):
    run = trainer(tmp_path, epochs=3, precision="fp16")
    before = {name: value.data.copy() for name, value in run.model.named_parameters()}
    seen = []
    step, unscale = run.optimizer.step, run.scaler.unscale
    run.optimizer.step = lambda: seen.append("step") or step()
    run.scaler.unscale = lambda optimizer: seen.append(run.scaler.scale) or unscale(optimizer)
    run.scaler.scale = 2.0**26
    with np.errstate(all="ignore"):  # the processor would warn of infinity
        run._update(losses.dice_cross_entropy(run.model(images(2, 1, 8, 8)), np.ones((2, 8, 8), np.int64)))
    assert seen == [2.0**26]  # no step
    assert run.scaler.scale == 2.0**25
    assert not run.optimizer.state  # no moments, no count
    for name, value in run.model.named_parameters():
        assert np.array_equal(value.data, before[name])
    with np.errstate(all="ignore"):
        assert run.fit() == "finished"  # the scale falls until a step fits
    assert "step" in seen
    assert seen[-2] < 2.0**26
    assert all(np.isfinite(value.data).all() for value in run.model.parameters())
    assert any((value.data != before[name]).any() for name, value in run.model.named_parameters())


def test_a_run_goes_on_with_its_scale(tmp_path):
    run = trainer(tmp_path, epochs=1, precision="fp16")
    run.scaler.scale = 128.0
    run.fit()
    saved = checkpoint.load(run.last).extra["scaler"]
    assert saved == {"scale": 128.0, "good_steps": 3 + 1}  # seven images, two in a batch
    again = trainer(tmp_path, epochs=2, precision="fp16")
    again.resume()
    assert again.scaler.state_dict() == saved
    other = trainer(tmp_path, epochs=2)  # on the processor again, in float32
    other.resume()
    assert other.scaler is None
    assert other.fit() == "finished"
    assert checkpoint.load(other.last).extra["scaler"] is None


def test_precisions_that_cannot_be():
    for precision in STORED:
        check_precision(precision, "cuda")
    check_precision("float32", "cpu")
    with pytest.raises(ValueError, match=r"precision 'fp16' is for the tensor cores of a GPU: use --device cuda with it, or precision"):
        Settings(precision="fp16")
    with pytest.raises(ValueError, match="precision is one of float32, tf32, fp16, bf16; got 'half'"):
        replace(Settings(), precision="half", device="cuda")
