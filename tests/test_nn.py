"""Modules and layers: PyTorch's names, state and results."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minunet as mu
from minunet import nn
from minunet.nn import init

from .conftest import require

IMAGE = (2, 4, 9, 8)
LAYERS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1, "dilation": 2}, (2, 4, 9)),
    ("Conv2d", (4, 6, 3), {}, IMAGE),
    ("Conv2d", (4, 6, (3, 2), (2, 1), (1, 0)), {"groups": 2, "bias": False}, IMAGE),
    ("Conv2d", (4, 6, 4), {"padding": "same", "padding_mode": "reflect"}, IMAGE),
    ("Conv2d", (4, 6, 3), {"padding": (2, 1), "padding_mode": "replicate", "stride": 2}, IMAGE),
    ("Conv2d", (4, 6, 3), {"padding": (2, 1), "padding_mode": "circular"}, IMAGE),
    ("Conv2d", (4, 6, 3), {"padding": "valid"}, IMAGE),
    ("Conv3d", (2, 3, 3), {"padding": 1}, (1, 2, 4, 5, 3)),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1}, (2, 4, 9)),
    ("ConvTranspose2d", (4, 6, 2), {"stride": 2}, IMAGE),
    ("ConvTranspose2d", (4, 6, 3, 2, 1, (1, 0), 2, False, 2), {}, IMAGE),
    ("ConvTranspose3d", (2, 3, 2), {"stride": 2}, (1, 2, 3, 2, 3)),
    ("MaxPool1d", (2,), {}, (2, 4, 9)),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, IMAGE),
    ("MaxPool3d", (2,), {}, (1, 2, 4, 5, 3)),
    ("AvgPool1d", (3,), {"stride": 2, "padding": 1, "count_include_pad": False}, (2, 4, 9)),
    ("AvgPool2d", (2,), {"divisor_override": 3}, IMAGE),
    ("AvgPool3d", (2,), {"ceil_mode": True}, (1, 2, 4, 5, 3)),
    ("Upsample", (), {"scale_factor": 2}, IMAGE),
    ("Upsample", (), {"size": (5, 12), "mode": "bilinear", "align_corners": True}, IMAGE),
    ("BatchNorm1d", (4,), {}, (6, 4)),
    ("BatchNorm1d", (4,), {"affine": False}, (2, 4, 9)),
    ("BatchNorm2d", (4,), {"eps": 1e-3, "momentum": 0.3}, IMAGE),
    ("BatchNorm2d", (4,), {"momentum": None}, IMAGE),
    ("BatchNorm2d", (4,), {"track_running_stats": False}, IMAGE),
    ("BatchNorm3d", (2,), {}, (2, 2, 4, 5, 3)),
    ("InstanceNorm1d", (4,), {}, (2, 4, 9)),
    ("InstanceNorm2d", (4,), {"affine": True}, IMAGE),
    ("InstanceNorm2d", (4,), {"track_running_stats": True}, IMAGE),
    ("InstanceNorm3d", (2,), {}, (2, 2, 4, 5, 3)),
    ("GroupNorm", (2, 4), {}, IMAGE),
    ("GroupNorm", (1, 4), {"affine": False, "eps": 1e-3}, IMAGE),
    ("Dropout", (0.0,), {}, IMAGE),
    ("Dropout1d", (0.0,), {}, (2, 4, 9)),
    ("Dropout2d", (1.0,), {}, IMAGE),
    ("Dropout3d", (1.0,), {}, (2, 2, 4, 5, 3)),
    ("ReLU", (), {}, IMAGE),
    ("LeakyReLU", (), {}, IMAGE),
    ("PReLU", (), {}, IMAGE),
    ("PReLU", (4, 0.1), {}, IMAGE),
    ("ELU", (0.7,), {}, IMAGE),
    ("Sigmoid", (), {}, IMAGE),
    ("Tanh", (), {}, IMAGE),
    ("Softmax", (1,), {}, IMAGE),
    ("LogSoftmax", (), {"dim": 1}, IMAGE),
    ("Linear", (8, 3), {}, IMAGE),
    ("Linear", (8, 3, False), {}, (5, 8)),
    ("Flatten", (), {}, IMAGE),
    ("Flatten", (2,), {}, IMAGE),
    ("Identity", (54,), {"unused": True}, IMAGE),
]


def named(case: tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]) -> str:
    name, args, options, shape = case
    return f"{name}({', '.join([*map(str, args), *(f'{k}={v}' for k, v in options.items())])}) on {'x'.join(map(str, shape))}"


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("case", LAYERS, ids=named)
def test_each_layer_has_pytorchs_state_and_results(case: Any) -> None:
    torch = require("torch")
    name, args, options, shape = case
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    described = {key: (value.shape, str(value.dtype)) for key, value in ours.state_dict().items()}
    assert list(described) == list(theirs.state_dict())
    assert described == {key: (tuple(v.shape), str(v.dtype).removeprefix("torch.")) for key, v in theirs.state_dict().items()}

    theirs.load_state_dict({key: torch.tensor(value.data) for key, value in ours.state_dict().items()})  # from us to them
    for mode in (True, True, False):
        values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        x, z = mu.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
        y, w = ours.train(mode)(x), theirs.train(mode)(z)
        np.testing.assert_allclose(y.data, w.detach().numpy(), rtol=1e-5, atol=1e-5)
        gy = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
        ours.zero_grad()
        theirs.zero_grad()
        y.backward(gy)
        w.backward(torch.tensor(gy))
        np.testing.assert_allclose(x.grad, z.grad.numpy(), rtol=1e-4, atol=1e-4)
        for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-4, atol=1e-4, err_msg=key)
    for key, value in theirs.state_dict().items():  # running statistics went the same way
        np.testing.assert_allclose(ours.state_dict()[key].data, value.numpy(), rtol=1e-5, atol=1e-6, err_msg=key)

    again = getattr(torch.nn, name)(*args, **options).eval()  # from them to us
    ours.load_state_dict(again.state_dict())
    np.testing.assert_allclose(ours(mu.tensor(values)).data, again(torch.tensor(values)).detach().numpy(), rtol=1e-5, atol=1e-5)


LOSSES: list[tuple[str, dict[str, Any]]] = [
    ("L1Loss", {}),
    ("MSELoss", {"reduction": "sum"}),
    ("BCELoss", {}),
    ("BCEWithLogitsLoss", {"pos_weight": [1.0, 2.0, 0.5]}),
    ("NLLLoss", {"weight": [1.0, 2.0, 0.5], "ignore_index": 2}),
    ("CrossEntropyLoss", {}),
    ("CrossEntropyLoss", {"weight": [1.0, 2.0, 0.5], "label_smoothing": 0.1, "reduction": "none"}),
]


@pytest.mark.parametrize(("name", "options"), LOSSES, ids=str)
def test_each_loss_equals_pytorch(name: str, options: dict[str, Any]) -> None:
    torch = require("torch")
    rng = np.random.default_rng(0)
    arrays = {key: np.array(value, np.float32) if isinstance(value, list) else value for key, value in options.items()}
    ours = getattr(nn, name)(**arrays)
    theirs = getattr(torch.nn, name)(**{k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in arrays.items()})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    scores = rng.uniform(0.1, 0.9, (5, 3)).astype(np.float32)
    target = rng.integers(0, 3, 5) if name in ("NLLLoss", "CrossEntropyLoss") else rng.uniform(0, 1, (5, 3)).astype(np.float32)
    loss = ours(mu.tensor(scores), mu.tensor(target))
    np.testing.assert_allclose(loss.data, theirs(torch.tensor(scores), torch.tensor(target)).numpy(), rtol=1e-5)


@pytest.mark.parametrize("output_size", [(17, 15), (18, 16), (2, 6, 17, 16)])
def test_transposed_convolution_to_a_wanted_size(output_size: tuple[int, ...]) -> None:
    torch = require("torch")
    ours, theirs = nn.ConvTranspose2d(4, 6, 3, 2, 1), torch.nn.ConvTranspose2d(4, 6, 3, 2, 1)
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal(IMAGE).astype(np.float32)
    expected = theirs(torch.tensor(x), output_size=output_size).detach().numpy()
    np.testing.assert_allclose(ours(mu.tensor(x), output_size=output_size).data, expected, rtol=1e-5, atol=1e-5)


def test_same_padding_with_a_stride_is_keras_and_relu_is_fused() -> None:
    x = mu.tensor(np.random.default_rng(0).standard_normal((1, 2, 7, 6)).astype(np.float32))
    plain = nn.Conv2d(2, 3, 3, stride=2, padding="same")
    fused = nn.Conv2d(2, 3, 3, stride=2, padding="same", activation="relu")
    fused.load_state_dict(plain.state_dict())
    assert plain(x).shape == (1, 3, 4, 3)
    np.testing.assert_allclose(fused(x).data, np.maximum(plain(x).data, 0), atol=1e-6)
    assert nn.ConvTranspose2d(2, 3, 3, stride=2, padding="same", activation="relu")(x).shape == (1, 3, 14, 12)
    assert nn.MaxPool2d(3, 2, "same")(x).shape == (1, 2, 4, 3)


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm]
)
@pytest.mark.parametrize("training", [True, False])
def test_normalisation_takes_relu_along(layer: Any, training: bool) -> None:
    sizes = (2, 4) if layer is nn.GroupNorm else (4,)
    plain, fused = layer(*sizes), layer(*sizes, activation="relu")
    assert list(plain.state_dict()) == list(fused.state_dict())
    assert repr(fused) == repr(plain)[:-1] + ", activation='relu')"
    x = mu.tensor(np.random.default_rng(0).standard_normal((2, 4, 5, 3, 2)[: 2 + getattr(layer, "rank", 2)]).astype(np.float32))
    np.testing.assert_array_equal(fused.train(training)(x).data, np.maximum(plain.train(training)(x).data, 0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "Conv2d: 3 input and 4 output channels must be positive multiples of groups=2"),
        (lambda: nn.Conv2d(1, 4, 0), "kernel_size must be at least 1, got 0"),
        (lambda: nn.Conv2d(1, 4, (3, 3, 3)), r"kernel_size is an int or 2 ints, got \(3, 3, 3\)"),
        (lambda: nn.Conv2d(1, 4, 3, padding="full"), "padding is an int, a tuple, 'same' or 'valid'; got 'full'"),
        (lambda: nn.Conv2d(1, 4, 3, padding_mode="mirror"), "padding_mode is 'zeros', 'reflect'.*got 'mirror'"),
        (lambda: nn.Conv2d(1, 4, 3, activation="elu"), "activation is None or 'relu', got 'elu'"),
        (lambda: nn.ConvTranspose2d(1, 4, 3, padding_mode="reflect"), "padding_mode is 'zeros', got 'reflect'"),
        (lambda: nn.GroupNorm(3, 4), "4 channels cannot be split into 3 equal groups"),
        (lambda: nn.BatchNorm2d(4, activation="elu"), "BatchNorm2d: activation is None or 'relu', got 'elu'"),
        (lambda: nn.GroupNorm(2, 4, activation="elu"), "GroupNorm: activation is None or 'relu', got 'elu'"),
        (lambda: nn.Dropout2d(1.5), "between 0 and 1; got 1.5"),
        (lambda: nn.ReLU(inplace=True), "inplace=True is not supported"),
        (lambda: nn.BatchNorm2d(2)(mu.tensor(np.ones((1, 2, 3), np.float32))), r"BatchNorm2d expects \(N, C, H, W\), got 3 axes"),
        (
            lambda: nn.ConvTranspose2d(1, 1, 3, 2)(mu.tensor(np.ones((1, 1, 4, 4), np.float32)), output_size=(12, 9)),
            "output_size 12×9 is out of reach; an input of 4×4 gives from 9×9 to 10×10",
        ),
        (
            lambda: nn.ConvTranspose2d(1, 1, 3, 2, "same")(mu.tensor(np.ones((1, 1, 4, 4), np.float32)), output_size=(8, 8)),
            "padding='same' fixes the output size",
        ),
    ],
)
def test_bad_arguments_say_what_to_do(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_dropout_is_off_in_eval_and_follows_the_seed() -> None:
    layer, x = nn.Dropout(0.5), mu.tensor(np.ones((4, 100), np.float32))
    mu.manual_seed(7)
    first = layer(x).data
    mu.manual_seed(7)
    np.testing.assert_array_equal(layer(x).data, first)
    assert set(np.unique(first)) == {0, 2}
    np.testing.assert_array_equal(layer.eval()(x).data, x.data)


INITIALISERS: list[tuple[str, dict[str, Any]]] = [
    ("uniform_", {"a": -2.0, "b": 0.5}),
    ("normal_", {"mean": 1.0, "std": 0.3}),
    ("trunc_normal_", {"mean": 0.3, "std": 0.8, "a": -0.5, "b": 1.0}),
    ("kaiming_uniform_", {}),
    ("kaiming_uniform_", {"a": 0.2, "mode": "fan_out"}),
    ("kaiming_normal_", {"nonlinearity": "relu"}),
    ("xavier_uniform_", {"gain": 2.0}),
    ("xavier_normal_", {}),
    ("constant_", {"val": 0.3}),
    ("zeros_", {}),
    ("ones_", {}),
]


@pytest.mark.parametrize(("name", "options"), INITIALISERS, ids=str)
def test_initialisers_draw_from_pytorchs_distributions(name: str, options: dict[str, Any]) -> None:
    torch = require("torch")
    torch.manual_seed(0)
    mu.manual_seed(0)
    ours, theirs = nn.Parameter(np.empty((60, 40, 3, 3), np.float32)), torch.empty(60, 40, 3, 3)
    assert getattr(init, name)(ours, **options) is ours
    getattr(torch.nn.init, name)(theirs, **options)
    quantiles = np.linspace(0.05, 0.95, 9)
    spread = theirs.std().item()
    np.testing.assert_allclose(np.quantile(ours.data, quantiles), np.quantile(theirs.numpy(), quantiles), atol=0.05 * spread + 1e-7)
    assert np.abs(ours.data).max() <= max(1.1 * theirs.abs().max().item(), 0)


def test_gains_equal_pytorch() -> None:
    torch = require("torch")
    for name in ("linear", "conv2d", "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    assert init.calculate_gain("leaky_relu", 0.3) == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", 0.3))
    with pytest.raises(ValueError, match=r"calculate_gain knows .*relu.*got 'gelu'"):
        init.calculate_gain("gelu")


def test_he_normal_is_cut_and_has_the_wanted_deviation() -> None:
    mu.manual_seed(0)
    kernel = init.he_normal_(nn.Parameter(np.empty((64, 32, 3, 3), np.float32))).data
    wanted = np.sqrt(2 / (32 * 9))
    assert kernel.std() == pytest.approx(wanted, rel=0.02)
    assert np.abs(kernel).max() <= 2 * wanted / 0.8796
    assert np.abs(init.kaiming_normal_(nn.Parameter(kernel.copy()), nonlinearity="relu").data).max() > 3.5 * wanted


def test_initialisation_follows_the_seed_and_refuses_what_has_no_fan() -> None:
    mu.manual_seed(5)
    first = nn.Conv2d(3, 4, 3).weight.data
    mu.manual_seed(5)
    np.testing.assert_array_equal(nn.Conv2d(3, 4, 3).weight.data, first)
    with pytest.raises(ValueError, match="need a kernel of at least 2 axes, got 3"):
        init.he_normal_(nn.Parameter(np.empty(3, np.float32)))
    with pytest.raises(ValueError, match="practically nothing"):
        init.trunc_normal_(nn.Parameter(np.empty(3, np.float32)), a=7, b=8)


class Twin(nn.Module):
    """A small network with a shared layer, a buffer and nested children."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Identity())
        self.again = self.first
        self.scale = nn.Parameter(np.ones(1, np.float32))
        self.register_buffer("offset", np.zeros(1, np.float32))
        self.register_buffer("nothing", None)

    def forward(self, x: mu.Tensor) -> mu.Tensor:
        return self.again(x) * self.scale + self.offset


def test_registration_lists_each_object_once_and_state_dict_every_name() -> None:
    model = Twin()
    assert [name for name, _ in model.named_parameters()] == ["scale", "first.0.weight", "first.0.bias"]
    assert [name for name, _ in model.named_buffers()] == ["offset"]
    assert [name for name, _ in model.named_modules()] == ["", "first", "first.0", "first.1"]
    assert [name for name, _ in model.named_children()] == ["first"]
    assert list(model.state_dict()) == ["scale", "offset", "first.0.weight", "first.0.bias", "again.0.weight", "again.0.bias"]
    assert all(not value.requires_grad for value in model.state_dict().values())
    assert np.shares_memory(model.state_dict()["scale"].data, model.scale.data)


def test_names_and_order_equal_pytorch() -> None:
    torch = require("torch")

    class Theirs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.Identity())
            self.again = self.first
            self.scale = torch.nn.Parameter(torch.ones(1))
            self.register_buffer("offset", torch.zeros(1))
            self.register_buffer("nothing", None)

    ours, theirs = Twin(), Theirs()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for listing in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        assert [n for n, _ in getattr(ours, listing)()] == [n for n, _ in getattr(theirs, listing)()]


def test_assigning_the_wrong_thing_says_what_to_do() -> None:
    model = Twin()
    with pytest.raises(TypeError, match=r"Twin\.scale holds a Parameter: assign another or None, got ndarray.*\.scale\.data"):
        model.scale = np.zeros(1)
    with pytest.raises(TypeError, match=r"Twin\.offset holds a Tensor"):
        model.offset = 3.0
    model.scale = None
    assert "scale" not in model.state_dict()
    del model.again
    assert list(model.state_dict()) == ["offset", "first.0.weight", "first.0.bias"]


def test_load_state_dict_checks_everything_before_it_changes_anything() -> None:
    model = Twin()
    before = {name: value.data.copy() for name, value in model.state_dict().items()}
    bad = {**before, "scale": np.full(1, 7.0), "offset": np.zeros(3), "extra": np.zeros(1)}
    del bad["first.0.bias"]
    message = (
        r"do not fit this Twin of 6 arrays: 1 missing: first\.0\.bias; 1 unexpected: extra; "
        r"1 of another shape: offset \(3 came, 1 expected\)\. Build"
    )
    with pytest.raises(ValueError, match=message):
        model.load_state_dict(bad)
    with pytest.raises(ValueError, match="1 of another shape"):
        model.load_state_dict(bad, strict=False)
    assert all(np.array_equal(value.data, before[name]) for name, value in model.state_dict().items())
    del bad["offset"]
    keys = model.load_state_dict(bad, strict=False)
    assert keys == (["offset", "first.0.bias"], ["extra"])
    assert model.scale.item() == 7


def test_load_state_dict_keeps_the_parameters_and_takes_pytorch_tensors() -> None:
    torch = require("torch")
    theirs = torch.nn.Conv2d(2, 3, 3)
    ours = nn.Conv2d(2, 3, 3)
    weight, memory = ours.weight, ours.weight.data
    ours.load_state_dict(theirs.state_dict())
    assert ours.weight is weight
    assert ours.weight.data is memory
    np.testing.assert_array_equal(ours.weight.data, theirs.weight.detach().numpy())


def test_modes_gradients_and_freezing_reach_all_modules() -> None:
    model = Twin()
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    assert all(m.training for m in model.train().modules())
    model(mu.tensor(np.ones((1, 1, 4, 4), np.float32))).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    assert not any(p.requires_grad for p in model.requires_grad_(False).parameters())
    seen: list[str] = []
    model.apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Conv2d", "Identity", "Sequential", "Twin"]


def test_conversion_keeps_identity_and_integer_buffers() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    parameters = list(model.parameters())
    assert model.to("cpu").astype(np.float64) is model
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert {name: str(v.dtype) for name, v in model.state_dict().items() if v.dtype != np.float64} == {"1.num_batches_tracked": "int64"}


def test_forward_hooks_see_and_replace_and_go_away() -> None:
    layer, calls = nn.Linear(2, 3), []
    x = mu.tensor(np.ones((1, 2), np.float32))
    plain = layer(x).data
    with layer.register_forward_hook(lambda module, inputs, output: calls.append((module, inputs, output.shape))):
        layer(x)
    handle = layer.register_forward_hook(lambda module, inputs, output: output * 2.0)
    np.testing.assert_array_equal(layer(x).data, 2 * plain)
    handle.remove()
    handle.remove()
    np.testing.assert_array_equal(layer(x).data, plain)
    assert calls == [(layer, (x,), (1, 3))]


def test_repr_is_pytorchs_tree() -> None:
    torch = require("torch")

    def build(n: object) -> object:
        inner = n.Sequential(n.ConvTranspose2d(4, 2, 2, stride=2), n.Linear(3, 4, bias=False))
        return n.Sequential(n.Conv2d(1, 4, 3, padding=1, groups=1, bias=False), inner, n.Dropout(0.2))

    assert repr(build(nn)) == repr(build(torch.nn)).replace("Dropout(p=0.2, inplace=False)", "Dropout(p=0.2)")


def test_containers() -> None:
    a, b, c = nn.Linear(1, 1), nn.Linear(1, 1), nn.Identity()
    chain = nn.Sequential(a, b).append(c)
    assert len(chain) == 3
    assert chain[-1] is c
    assert list(chain[:2].state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    named = nn.Sequential({"down": a, "up": b})
    assert list(named.state_dict()) == ["down.weight", "down.bias", "up.weight", "up.bias"]
    listed = nn.ModuleList([a, b])
    assert [m is w for m, w in zip(listed, (a, b), strict=True)] == [True, True]
    assert list(listed[1:].state_dict()) == ["0.weight", "0.bias"]
    table = nn.ModuleDict({"x": a})
    table["y"] = b
    assert list(table) == ["x", "y"]
    assert table["y"] is b
    assert "z" not in table
    twice = nn.Sequential(a, a)
    x = mu.tensor([[2.0]])
    np.testing.assert_array_equal(twice(x).data, a(a(x)).data)
    for bad in ("", "a.b", "keys"):
        with pytest.raises(KeyError, match="cannot name a module"):
            table[bad] = a
    with pytest.raises(TypeError, match="holds modules; got int under '0'"):
        nn.Sequential(3)


def test_a_deep_copy_is_independent() -> None:
    model = Twin()
    other = copy.deepcopy(model)
    assert other.first is other.again
    other.scale.data[...] = 5
    assert model.scale.item() == 1
    assert isinstance(other.scale, nn.Parameter)
