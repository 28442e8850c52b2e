"""The summary's figures against counting and PyTorch; receptive fields against wiggling every input pixel; dead layers found."""

import numpy as np
import pytest

import minunet as mu
from minunet import Tensor, nn
from minunet import functional as F
from minunet.inspection import feature_maps, summary, unused_parameters
from minunet.inspection.receptive_field import PIXEL, union
from minunet.models import UNet
from tests.conftest import require


@pytest.fixture(autouse=True)
def seed():
    mu.manual_seed(0)


def averaging(model):
    """All weights positive, averages of their inputs: then an output pixel changes exactly if an input pixel it depends on does."""
    for name, p in model.named_parameters():
        p.data[...] = 0 if name.endswith("bias") else 1 / p.data[0].size
    return model.astype(np.float64)


def dependencies(model, n):
    """{layer: the [first, last] input pixel that each output pixel depends on}, found by raising one input pixel at a time."""
    x = np.concatenate([np.ones((1, n)), np.ones((n, n)) + np.eye(n)])[:, None]  # (1 + n, 1, n): image 1 + i has pixel i raised
    found = {}
    for name, y in feature_maps(model, Tensor(x)).items():
        changed = abs(y[1:, 0] - y[:1, 0]) > 1e-13  # (input pixel, output pixel)
        found[name] = np.stack([changed.argmax(0), n - 1 - changed[::-1].argmax(0)], axis=1)  # (output pixels, 2)
    return found


def rows(table):
    return {row.name: row for row in table.rows if row.name}


# the summary


def test_original_unet():
    table = summary(UNet(1, 2, padding="valid", base_channels=64), (1, 572, 572))
    named = rows(table)
    assert table.output_shape == (1, 2, 388, 388)
    assert table.parameters == 31_030_658 == sum(row.parameters for row in table.rows)
    assert round(table.macs / 1e9, 2) == 150.43
    assert named["bottleneck.conv2"].output_shape == (1, 1024, 28, 28)
    assert named["bottleneck.conv2"].receptive_field == ((140,), (140,))
    assert named["bottleneck.conv2"].reaches[0].jump == 16
    assert table.receptive_field == ((188, 204), (188, 204))
    phases = [table.rows[-1].reaches[0](p) for p in range(388)]
    assert [high - low + 1 for low, high in phases].count(188) == 100
    concatenations = [row.output_shape for row in table.rows if row.kind == "concatenate"]
    assert concatenations == [(1, 1024, 56, 56), (1, 512, 104, 104), (1, 256, 200, 200), (1, 128, 392, 392)]


def test_summary_equals_a_real_run():
    """Shapes and memory are those of the forward."""
    for model, shape in (
        (UNet(2, 3, base_channels=4, depth=2, norm="group", up="bilinear"), (2, 2, 16, 20)),
        (UNet(1, 1, base_channels=2, depth=1, padding="valid", rank=3, norm="batch"), (1, 1, 18, 20, 18)),
    ):
        table = summary(model, shape)
        maps = feature_maps(model, np.zeros(shape, np.float32))
        real = [y for name, y in maps.items() if not name.startswith("dropout")]
        layers = [row for row in table.rows if row.kind != "concatenate"]
        assert [row.output_shape for row in layers] == [y.shape for y in real]
        assert [row.activation_bytes for row in layers] == [y.nbytes for y in real]


def test_macs_equal_torch_flop_counter():
    torch = require("torch")
    from torch.utils.flop_counter import FlopCounterMode

    ours = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2), nn.Conv2d(4, 2, 1))
    t = torch.nn
    theirs = t.Sequential(t.Conv2d(4, 6, 3, stride=2, groups=2), t.ConvTranspose2d(6, 4, 3, stride=2, groups=2), t.Conv2d(4, 2, 1))
    with FlopCounterMode(display=False) as counter:
        theirs(torch.zeros(2, 4, 9, 11))
    assert 2 * summary(ours, (2, 4, 9, 11)).macs == counter.get_total_flops()


def test_batch_axis_may_be_left_out():
    model = UNet(1, 1, base_channels=2, depth=1)
    one, two = summary(model, (1, 8, 8)), summary(model, (2, 1, 8, 8))
    assert one.input_shape == (1, 1, 8, 8)
    assert two.macs == 2 * one.macs
    assert two.activation_bytes == 2 * one.activation_bytes
    assert two.parameters == one.parameters


def test_summary_leaves_no_trace():
    model = UNet(1, 1, base_channels=2, depth=1, norm="batch", dropout=0.5)
    mu.manual_seed(5)
    state = {name: value.data.copy() for name, value in model.state_dict().items()}
    with mu.no_grad():
        summary(model, (1, 8, 8))
    drawn = mu.rng.generator().normal()
    mu.manual_seed(5)
    assert drawn == mu.rng.generator().normal()
    assert all("forward" not in vars(module) and module.training for module in model.modules())
    assert all((value.data == state[name]).all() for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ValueError, match="divisible by 2"):
        summary(model, (1, 9, 8))
    assert all("forward" not in vars(module) for module in model.modules())


def test_the_table_as_text():
    text = str(summary(UNet(3, 1, base_channels=4, depth=1, norm="batch", dropout=0.5), (3, 8, 12)))
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "kind", "output", "parameters", "MACs", "activations", "receptive", "field"]
    assert lines[2].split() == ["encoder.0.conv1", "Conv2d", "3×3", "1×4×8×12", "108", "10.37", "K", "1.50", "KiB", "3"]
    assert ["concatenate", "1×8×8×12", "3.00", "KiB", "14"] in [line.split() for line in lines]
    assert any(line.split()[:5] == ["encoder.0.norm2", "BatchNorm2d", "+", "ReLU", "1×4×8×12"] for line in lines)
    assert any(line.split()[:4] == ["dropout", "(2)", "Dropout", "1×8×4×6"] for line in lines)
    assert lines[-2] == "UNet: 1×3×8×12 → 1×1×8×12"
    assert lines[-1] == "parameters 1,749 (6.83 KiB) · 89.86 K multiply-accumulates · activations 22.50 KiB · receptive field 18 px"


def test_shared_and_other_layers():
    conv = nn.Conv2d(2, 2, 3, padding=1)
    model = nn.Sequential(conv, nn.Identity(), conv, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2 * 4 * 4, 5))
    table = summary(model, (2, 8, 8))
    assert table.parameters == 38 + 165 == sum(row.parameters for row in table.rows)
    assert [row.receptive_field for row in table.rows] == [((3,), (3,)), ((5,), (5,)), ((6,), (6,)), None, None]
    assert table.macs == 2 * 2 * 2 * 9 * 64 + 160
    assert table.output_shape == (1, 5)
    assert str(table).splitlines()[-1].endswith("receptive field – px")


def test_summary_of_a_wrong_shape():
    with pytest.raises(ValueError, match=r"UNet works on 2 spatial axes, .* got \(8, 8\)"):
        summary(UNet(1, 1, base_channels=1, depth=1), (8, 8))
    with pytest.raises(ValueError, match="Conv2d expects 3 channels, got 2: 1×2×4×4"):
        summary(nn.Sequential(nn.Conv2d(3, 1, 1)), (2, 4, 4))


# receptive fields


def check_fields(model, n):
    """Where the field lies inside the image, it is what was found; at the borders taps fall on padding, which depends on nothing."""
    seen, table = dependencies(model, n), rows(summary(model, (1, n)))
    assert set(table) <= set(seen)
    for name, row in table.items():
        wanted = np.array([row.reaches[0](p) for p in range(len(seen[name]))])
        inside = (wanted[:, 0] >= 0) & (wanted[:, 1] < n)
        assert inside.sum() >= row.reaches[0].period
        np.testing.assert_array_equal(seen[name][inside], wanted[inside], err_msg=name)


@pytest.mark.parametrize(
    ("options", "n"),
    [
        ({"depth": 4, "padding": "valid"}, 252),
        ({"depth": 2, "padding": "same"}, 96),
        ({"depth": 2, "padding": "same", "up": "nearest"}, 96),
        ({"depth": 2, "padding": "valid", "up": "bilinear"}, 100),
    ],
)
def test_unet_sees_exactly_what_the_summary_says(options, n):
    check_fields(averaging(UNet(1, 1, base_channels=1, rank=1, **options)), n)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(1, 1, 3, stride=2, padding=1),
        nn.Conv1d(1, 1, 2, stride=3, padding="same", dilation=2),
        nn.MaxPool1d(3, stride=2, padding=1),
        nn.AvgPool1d(2, padding="same"),
        nn.ConvTranspose1d(1, 1, 3, stride=2, padding=1, output_padding=1),
        nn.ConvTranspose1d(1, 1, 3, stride=2, padding="same"),
        nn.ConvTranspose1d(1, 1, 4, stride=3, dilation=2),
        nn.ConvTranspose1d(1, 1, 2, stride=2, padding="valid"),
        nn.Upsample(scale_factor=3, mode="nearest"),
        nn.Upsample(scale_factor=2, mode="linear"),
        nn.Upsample(scale_factor=3, mode="linear"),
    ],
    ids=repr,
)
def test_each_layer_after_a_stride(layer):
    check_fields(averaging(nn.Sequential(nn.Conv1d(1, 1, 4, stride=2), layer, nn.Conv1d(1, 1, 2))), 60)


def test_what_has_no_field():
    assert PIXEL.transposed_window(kernel=1, stride=2, dilation=1, front=0) is None  # every other pixel is only the bias
    assert union([PIXEL, PIXEL.window(2, 2, 1, 0)]) is None  # an image and its half size


def test_axes_differ():
    table = summary(nn.Sequential(nn.Conv2d(1, 1, (1, 5)), nn.MaxPool2d((2, 1))), (1, 8, 8))
    assert table.receptive_field == ((2,), (5,))
    assert str(table).endswith("receptive field 2×5 px")


# feature maps and dead layers


def test_feature_maps():
    model = UNet(1, 2, base_channels=2, depth=2, norm="batch", dropout=0.5)
    x = np.random.default_rng(0).normal(size=(1, 1, 16, 16)).astype(np.float32)
    before = {name: value.data.copy() for name, value in model.state_dict().items()}
    maps = feature_maps(model, x)
    assert model.training
    assert all((value.data == before[name]).all() for name, value in model.state_dict().items())
    assert maps["encoder.1.conv2"].shape == (1, 4, 8, 8)
    assert maps["pool (2)"].shape == (1, 4, 4, 4)
    np.testing.assert_array_equal(maps["head"], model.eval()(Tensor(x)).data)
    assert not any(module._forward_hooks for module in model.modules())


class LectureDecoder(nn.Module):
    """The lecture's decoder step, with its slip: the convolution is fed the input, not the concatenation."""

    def __init__(self, fixed):
        super().__init__()
        self.fixed = fixed
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.conv = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, skip, inputs):
        up = self.up(inputs)
        c = F.cat([skip, up], dim=1)
        return self.conv(c if self.fixed else inputs)


@pytest.mark.parametrize(("fixed", "dead"), [(True, []), (False, ["up.weight", "up.bias"])])
def test_the_dead_branch_of_the_lecture_is_found(fixed, dead):
    model = LectureDecoder(fixed)
    rng = np.random.default_rng(0)
    skip, inputs = (Tensor(rng.normal(size=shape).astype(np.float32)) for shape in ((1, 2, 8, 8), (1, 4, 4, 4)))
    assert unused_parameters(model) == ["up.weight", "up.bias", "conv.weight", "conv.bias"]  # before any backward
    model(skip, inputs).sum().backward()
    assert unused_parameters(model) == dead


def test_frozen_parameters_are_not_unused():
    model = nn.Sequential(nn.Conv1d(1, 1, 1).requires_grad_(False), nn.Conv1d(1, 1, 1))
    model(Tensor(np.ones((1, 1, 3), np.float32))).sum().backward()
    assert unused_parameters(model) == []
