"""Every promised function takes PyTorch's arguments: the same names, order and defaults."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest

from minunet import functional as F
from tests.conftest import require
from tests.test_opcases import PROMISED

_CONV = "input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1"
_CONV_TRANSPOSE = "input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1"
_AVG_POOL = "input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True"
_MAX_POOL = "input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False"

# PyTorch's functions that are written in C++, or dispatch, and cannot be inspected: as its documentation gives them
DOCUMENTED = {
    **{f"conv{rank}d": _CONV for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": _CONV_TRANSPOSE for rank in (1, 2, 3)},
    **{f"max_pool{rank}d": _MAX_POOL for rank in (1, 2, 3)},
    "avg_pool1d": _AVG_POOL,
    **{f"avg_pool{rank}d": f"{_AVG_POOL}, divisor_override=None" for rank in (2, 3)},
    "linear": "input, weight, bias=None",
    "prelu": "input, weight",
    "cat": "tensors, dim=0",
}

# what the design leaves out, with the reason
ABSENT = {
    "softmax": {"_stacklevel": "PyTorch's own bookkeeping"},
    "log_softmax": {"_stacklevel": "PyTorch's own bookkeeping"},
}


def torch_signature(name: str) -> inspect.Signature:
    if name in DOCUMENTED:
        made = SimpleNamespace()
        exec(f"def f({DOCUMENTED[name]}): ...", vars(made))
        return inspect.signature(made.f)
    return inspect.signature(getattr(require("torch.nn.functional"), name))


@pytest.mark.parametrize("name", PROMISED)
def test_arguments_are_pytorchs(name):
    ours = inspect.signature(getattr(F, name)).parameters
    theirs = torch_signature(name).parameters
    absent = ABSENT.get(name, {})
    assert not set(absent) & set(ours), f"{name} has {set(absent) & set(ours)} after all"
    common = [p for p in theirs if p not in absent]
    assert [p for p in ours if p in theirs] == common, f"{name} takes {list(ours)}, PyTorch's takes {common}"
    assert {p: ours[p].default for p in common} == {p: theirs[p].default for p in common}
    extra = [p for p in ours.values() if p.name not in theirs]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in extra), f"{name}: {extra} must be optional keywords"
