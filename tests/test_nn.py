"""Modules and layers: PyTorch's names, state and results."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import minunet as mu
from minunet import nn

from .conftest import require

RNG = np.random.default_rng(0)


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
