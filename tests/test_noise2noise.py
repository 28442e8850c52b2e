"""The network of Noise2Noise: counts, sizes, equality with PyTorch, weights trained elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

import minunet as mu
from minunet import Tensor, checkpoint, metrics
from minunet.data import read_image
from minunet.inference import Denoiser
from minunet.models import Noise2NoiseUNet, SharedNoise2NoiseUNet, load_noise2noise
from tests.conftest import require


def image(*shape: int):
    return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)


@pytest.mark.parametrize(("channels", "parameters"), [((3, 3), 991_203), ((1, 1), 988_609), ((9, 3), 997_251)])
def test_parameter_count(channels, parameters):
    assert sum(p.size for p in Noise2NoiseUNet(*channels).parameters()) == parameters


def test_parameter_count_of_the_shared_one():
    assert sum(p.size for p in SharedNoise2NoiseUNet().parameters()) == 700_611


def test_he_initialisation_keeps_the_signal():
    mu.manual_seed(0)
    model = Noise2NoiseUNet(1, 1)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.data.any(), name
        elif p.size > 5000:
            gain = 2 / 1.01
            assert p.data.std() == pytest.approx(np.sqrt(gain / np.prod(p.shape[1:])), rel=0.05), name
    with mu.no_grad():
        output = model(Tensor(image(2, 1, 32, 32))).data
    assert 0.05 < output.std() < 2


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_shapes(rank):
    model = Noise2NoiseUNet(2, 3, rank=rank)
    with mu.no_grad():
        assert model(Tensor(image(1, 2, *(64, 32, 32)[:rank]))).shape == (1, 3, *(64, 32, 32)[:rank])


def torch_forward(torch, weights, x):
    """Table 2 of the paper, written out in PyTorch with our names of the weights."""
    functional = torch.nn.functional

    def conv(x, name, act=True):
        y = functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)
        return functional.leaky_relu(y, 0.1) if act else y

    def pool(x):
        return functional.max_pool2d(x, 2)

    def up(x, skip):
        return torch.cat([functional.interpolate(x, scale_factor=2, mode="nearest"), skip], dim=1)

    pool1 = pool(conv(conv(x, "first"), "encoder.0"))
    pool2 = pool(conv(pool1, "encoder.1"))
    pool3 = pool(conv(pool2, "encoder.2"))
    pool4 = pool(conv(pool3, "encoder.3"))
    pool5 = pool(conv(pool4, "encoder.4"))
    y = conv(pool5, "bottleneck")
    for level, skip in enumerate((pool4, pool3, pool2, pool1, x)):
        y = conv(conv(up(y, skip), f"decoder.{level}.0"), f"decoder.{level}.1")
    return conv(y, "head", act=False)


def test_equals_torch():
    torch = require("torch")
    mu.manual_seed(0)
    model = Noise2NoiseUNet(3, 2).astype(np.float64)  # in float32, rounding decides who is the largest of a window
    x = image(2, 3, 32, 64).astype(np.float64)
    weights = {name: torch.tensor(np.ascontiguousarray(p.data)).requires_grad_() for name, p in model.state_dict().items()}
    theirs = torch_forward(torch, weights, torch.from_numpy(x))
    ours = model(Tensor(x))
    np.testing.assert_allclose(ours.data, theirs.detach().numpy(), rtol=0, atol=1e-11)
    gy = np.random.default_rng(1).standard_normal(ours.shape)
    ours.backward(gy)
    theirs.backward(torch.from_numpy(gy))
    for name, p in model.named_parameters():
        wanted = weights[name].grad.numpy()
        np.testing.assert_allclose(p.grad, wanted, rtol=0, atol=1e-9 * abs(wanted).max(), err_msg=name)


def test_sizes_that_do_not_fit():
    model = Noise2NoiseUNet(1, 1)
    with pytest.raises(ValueError, match=r"needs height and width divisible by 32; got 40×64. Pad to 64×64 or pass pad='reflect'."):
        model(Tensor(image(1, 1, 40, 64)))
    with mu.no_grad():
        assert model(Tensor(image(1, 1, 40, 64)), pad="reflect").shape == (1, 1, 40, 64)
        fits = Tensor(image(1, 1, 32, 32))
        np.testing.assert_array_equal(model(fits).data, model(fits, pad="reflect").data)
    for bad, message in (
        (image(1, 2, 32, 32), "built for images of 1 channels, got 2"),
        (image(1, 32, 32), "of rank 2 expects .*, got 3 axes"),
    ):
        with pytest.raises(ValueError, match=message):
            model(Tensor(bad))
    with pytest.raises(ValueError, match="pad is None, 'reflect'"):
        model(Tensor(image(1, 1, 32, 32)), pad="mirror")
    with pytest.raises(ValueError, match="in_channels must be at least 1, got 0"):
        Noise2NoiseUNet(0, 1)
    with pytest.raises(ValueError, match="rank is one of 1, 2, 3; got 4"):
        Noise2NoiseUNet(1, 1, rank=4)


def test_weights_are_loaded_by_name(tmp_path):
    mu.manual_seed(0)
    model = Noise2NoiseUNet(2, 1)
    np.savez(tmp_path / "weights.npz", **{name: p.data for name, p in model.state_dict().items()})
    loaded = load_noise2noise(tmp_path / "weights.npz")
    assert (loaded.in_channels, loaded.out_channels) == (2, 1)
    for name, p in loaded.state_dict().items():
        np.testing.assert_array_equal(p.data, model.state_dict()[name].data)
    np.savez(tmp_path / "other.npz", **{"conv.weight": np.ones(3)})
    with pytest.raises(checkpoint.CheckpointError, match=r"other.npz holds no network of Noise2Noise.*got conv.weight"):
        load_noise2noise(tmp_path / "other.npz")
    np.savez(tmp_path / "part.npz", **{name: p.data for name, p in model.state_dict().items() if name != "bottleneck.bias"})
    with pytest.raises(checkpoint.CheckpointError, match=r"1 missing: bottleneck\.bias"):
        load_noise2noise(tmp_path / "part.npz")


def test_weights_trained_elsewhere_remove_text(real_data):
    """As measured in PyTorch: 15.07 dB before, 28.10 dB after, not clipped."""
    folder = real_data("pretrained")
    clean, noisy = read_image(folder / "monarch.png"), read_image(folder / "monarch-text-noisy.png")
    denoiser = Denoiser.load(folder / "n2n-text.npz")
    assert metrics.psnr(noisy, clean) == pytest.approx(15.07, abs=0.005)
    assert metrics.psnr(denoiser(noisy), clean) == pytest.approx(28.10, abs=0.02)
