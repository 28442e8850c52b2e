"""UNet: counts, sizes, every combination of options, and equality with the same network written in PyTorch."""

import math

import numpy as np
import pytest

import minunet as mu
from minunet import Tensor, losses, tensor
from minunet.inspection import unused_parameters
from minunet.models import UNet
from tests.conftest import require

TINY = {"base_channels": 2, "depth": 2}


@pytest.fixture(autouse=True)
def seed():
    mu.manual_seed(0)


def image(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def count(model):
    return sum(p.size for p in model.parameters())


# what it is made of


@pytest.mark.parametrize(
    ("out_channels", "options", "parameters"),
    [
        (1, {}, 31_030_593),
        (2, {"padding": "valid", "dropout": 0.5, "up": "nearest"}, 31_030_658),
        (1, {"norm": "batch"}, 31_036_481),  # a scale and a shift for each channel instead of a bias
    ],
)
def test_parameter_count(out_channels, options, parameters):
    assert count(UNet(1, out_channels, **options)) == parameters


def test_he_initialisation():
    model = UNet(3, 1, base_channels=32, depth=2)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.data.any()
        elif p.size > 5000 and ".up" not in name and not name.startswith("ups"):
            fan_in = math.prod(p.shape[1:])
            assert p.data.std() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05), name
            assert abs(p.data.mean()) < 0.05 * p.data.std() * 3, name


def test_logits_keep_their_size_through_the_layers():
    """He's initialisation is there so that a deep network's answer neither vanishes nor explodes."""
    logits = UNet(1, 1, base_channels=16)(Tensor(image(1, 1, 64, 64))).data
    assert 0.1 < logits.std() < 10


# sizes


def test_original_sizes():
    model = UNet(1, 2, padding="valid", base_channels=1)
    assert model.output_size(572) == (388, 388)
    assert model.output_size((572, 700)) == (388, 516)
    assert model.input_size((388, 388)) == (572, 572)
    assert model.input_size((387, 389)) == (572, 588)
    assert model.margin == 184


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_valid_sizes_are_those_where_all_pooled_sizes_are_even(depth):
    """Level by level, on paper: two convolutions take 4 pixels, pooling needs an even rest, the way up needs pixels left."""

    def by_hand(n):
        sizes = []
        for _ in range(depth):
            n -= 4
            if n < 2 or n % 2:
                return None
            sizes.append(n)
            n //= 2
        n -= 4
        for _ in sizes:
            if n < 1:
                return None
            n = 2 * n - 4
        return n if n > 0 else None

    model = UNet(1, 1, base_channels=1, depth=depth, padding="valid", rank=1)
    for n in range(1, 150):
        if by_hand(n) is None:
            with pytest.raises(ValueError, match="with valid convolutions needs length of"):
                model.output_size(n)
        else:
            assert model.output_size(n) == (by_hand(n),)


def test_valid_network_runs_at_its_smallest_size_and_the_next():
    for n in (44, 48):
        model = UNet(1, 1, **TINY, padding="valid")
        assert model(Tensor(image(1, 1, n, 48))).shape == (1, 1, n - 40, 8)
        assert model.output_size((n, 48)) == (n - 40, 8)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("mode", ["reflect", "replicate", "constant"])
@pytest.mark.parametrize("size", [(29, 30), (32, 32), (33, 45)])
def test_padding_is_undone(padding, mode, size):
    model = UNet(1, 2, **TINY, padding=padding)
    assert model(Tensor(image(2, 1, *size)), pad=mode).shape == (2, 2, *size)


def test_padding_does_not_shift_the_image():
    """The middle of the padded network's answer, where no invented pixel is seen, is the answer without padding."""
    model = UNet(1, 1, **TINY, padding="valid")
    x = Tensor(image(1, 1, 64, 64))
    np.testing.assert_allclose(model(x, pad="reflect").data[..., 20:44, 20:44], model(x).data, rtol=1e-4, atol=1e-5)


def test_padding_with_zeros_by_hand():
    model = UNet(1, 1, **TINY)
    x = image(1, 1, 13, 16)
    by_hand = np.pad(x, ((0, 0), (0, 0), (1, 2), (0, 0)))  # 13 → 16: the odd row goes to the end
    np.testing.assert_array_equal(model(Tensor(x), pad="constant").data, model(Tensor(by_hand)).data[..., 1:14, :])


@pytest.mark.parametrize(
    ("options", "shape", "pad", "message"),
    [
        (
            {"depth": 4},
            (1, 1, 700, 512),
            None,
            r"UNet of depth 4 needs height and width divisible by 16; got 700×512\. Pad to 704×512 or pass pad='reflect'\.$",
        ),
        ({"rank": 3, "depth": 2}, (1, 1, 4, 8, 6), None, "depth, height and width divisible by 4; got 4×8×6. Pad to 4×8×8 or"),
        (
            {"depth": 4, "padding": "valid"},
            (1, 1, 570, 572),
            None,
            "16·m − 4 pixels, 188 or more; got 570×572. Crop to 556×572, pad to 572×572 or",
        ),
        ({"depth": 4, "padding": "valid"}, (1, 1, 100, 572), None, "got 100×572. Pad to 188×572 or pass pad='reflect'"),
        ({}, (1, 3, 16, 16), None, r"built for images of 1 channels, got 3 channels: 1×3×16×16\. Convert .* UNet\(in_channels=3"),
        ({}, (1, 16, 16), None, r"rank 2 expects \(N, C, H, W\), got 3 axes: 1×16×16"),
        ({}, (1, 1, 16, 16), "mirror", "'replicate' or 'constant'; got 'mirror'"),
    ],
)
def test_bad_inputs(options, shape, pad, message):
    with pytest.raises(ValueError, match=message):
        UNet(1, 1, base_channels=1, **options)(Tensor(np.zeros(shape, np.float32)), pad=pad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "full"}, "padding is one of 'same', 'valid'; got 'full'"),
        ({"norm": "layer"}, "norm is one of None, 'batch', 'instance', 'group'; got 'layer'"),
        ({"up": "bicubic"}, "up is one of 'transposed', 'nearest', 'bilinear'; got 'bicubic'"),
        ({"rank": 4}, "rank is one of 1, 2, 3; got 4"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"dropout": 1.5}, "between 0 and 1; got 1.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        UNet(1, 1, **options)


# every combination learns


def learns(model, x, classes):
    """One step of gradient descent: every parameter gets a finite gradient, and the loss falls."""
    target = np.random.default_rng(1).integers(0, classes, (x.shape[0], *model.output_size(x.shape[2:])))

    def loss():
        return losses.cross_entropy(model(Tensor(x)), target)

    first = loss()
    first.backward()
    assert unused_parameters(model) == []
    norm = math.sqrt(sum(float((p.grad.astype(np.float64) ** 2).sum()) for p in model.parameters()))
    assert 0 < norm < math.inf
    for p in model.parameters():
        p.data -= 0.01 / norm * p.grad
    assert loss().item() < first.item()


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("norm", [None, "batch", "instance", "group"])
@pytest.mark.parametrize("up", ["transposed", "nearest", "bilinear"])
def test_all_options_learn(padding, norm, up):
    size = 44 if padding == "valid" else 16
    learns(UNet(2, 3, **TINY, padding=padding, norm=norm, up=up), image(2, 2, size, size + 4), 3)


@pytest.mark.parametrize(
    ("rank", "options", "size"),
    [
        (1, {"norm": "batch", "up": "bilinear"}, (32,)),
        (3, {}, (4, 8, 8)),
        (3, {"norm": "group", "up": "bilinear"}, (8, 4, 4)),
        (3, {"depth": 1, "padding": "valid", "norm": "instance", "up": "nearest"}, (18, 20, 18)),
    ],
)
def test_other_ranks_learn(rank, options, size):
    learns(UNet(1, 1, **{**TINY, **options}, rank=rank), image(2, 1, *size), 2)


def test_dropout_acts_in_training_only_at_the_end_of_the_contracting_path():
    model, x = UNet(1, 1, **TINY, dropout=0.5), Tensor(image(1, 1, 16, 16))
    assert (model(x).data != model(x).data).any()
    model.eval()
    np.testing.assert_array_equal(model(x).data, model(x).data)
    plain = UNet(1, 1, **TINY)
    plain.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(model(x).data, plain(x).data)


def test_same_seed_same_network_and_gradients():
    results = []
    for _ in range(2):
        mu.manual_seed(3)
        model = UNet(1, 1, **TINY, dropout=0.3)
        loss = losses.cross_entropy(model(Tensor(image(2, 1, 16, 16))), np.ones((2, 16, 16), int))
        loss.backward()
        results.append([loss.data, *(p.grad for p in model.parameters())])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


# the same network in PyTorch


def torch_unet(torch, w, x, *, rank, depth, padding, norm, up):
    """UNet as plain function calls on the weights w, under our names."""
    f = torch.nn.functional
    conv, pool = getattr(f, f"conv{rank}d"), getattr(f, f"max_pool{rank}d")

    def double(x, path):
        for i in (1, 2):
            x = conv(x, w[f"{path}.conv{i}.weight"], w.get(f"{path}.conv{i}.bias"), padding=int(padding == "same"))
            scale, shift = w.get(f"{path}.norm{i}.weight"), w.get(f"{path}.norm{i}.bias")
            if norm == "batch":
                x = f.batch_norm(x, None, None, scale, shift, training=True)
            elif norm == "instance":
                x = f.instance_norm(x, weight=scale, bias=shift)
            elif norm == "group":
                x = f.group_norm(x, math.gcd(8, x.shape[1]), scale, shift)
            x = torch.relu(x)
        return x

    def up_conv(x, path):
        kernel, bias = w[f"{path}.conv.weight"], w[f"{path}.conv.bias"]
        if up == "transposed":
            return getattr(f, f"conv_transpose{rank}d")(x, kernel, bias, stride=2)
        linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]
        x = f.interpolate(x, scale_factor=2, mode="nearest" if up == "nearest" else linear)
        return conv(f.pad(x, (0, 1) * rank), kernel, bias)

    skips = []
    for level in range(depth):
        skips.append(double(x, f"encoder.{level}"))
        x = pool(skips[-1], 2)
    x = double(x, "bottleneck")
    for level in range(depth):
        x = up_conv(x, f"ups.{level}")
        skip = skips.pop()
        cut = [slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(skip.shape[2:], x.shape[2:], strict=True)]
        x = double(torch.cat([skip[(..., *cut)], x], 1), f"decoder.{level}")
    return conv(x, w["head.weight"], w["head.bias"])


@pytest.mark.parametrize(
    ("rank", "padding", "norm", "up", "size"),
    [
        (2, "same", None, "transposed", (16, 20)),
        (2, "valid", None, "transposed", (44, 48)),
        (2, "same", "batch", "bilinear", (16, 12)),
        (2, "same", "group", "nearest", (12, 16)),
        (2, "valid", "instance", "nearest", (48, 44)),
        (3, "same", None, "transposed", (4, 8, 8)),
        (3, "same", "batch", "bilinear", (8, 4, 8)),
        (1, "same", "instance", "transposed", (24,)),
    ],
)
def test_equals_torch(rank, padding, norm, up, size):
    torch = require("torch")
    model = UNet(2, 3, **TINY, rank=rank, padding=padding, norm=norm, up=up).astype(np.float64)
    x = image(2, 2, *size, dtype=np.float64)
    weights = {name: torch.tensor(p.data, requires_grad=True) for name, p in model.named_parameters()}
    ours, theirs = tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)

    logits = model(ours)
    wanted = torch_unet(torch, weights, theirs, rank=rank, depth=2, padding=padding, norm=norm, up=up)
    np.testing.assert_allclose(logits.data, wanted.detach().numpy(), rtol=1e-9, atol=1e-11)

    gy = image(*logits.shape, dtype=np.float64)
    logits.backward(gy)
    wanted.backward(torch.tensor(gy))
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-7, atol=1e-10)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.grad, weights[name].grad.numpy(), rtol=1e-7, atol=1e-10, err_msg=name)
