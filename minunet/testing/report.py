"""The operation table walked for a person: how far each operation is from finite differences, from PyTorch and from Keras.

This is what `minunet check` prints. The tests walk the same table, and more strictly.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from minunet.rng import manual_seed
from minunet.tensor import Tensor
from minunet.testing.gradcheck import GradientError, gradcheck
from minunet.testing.opcases import OpCase, Sample

DIFFERENCES, TORCH, KERAS = 1e-6, 1e-6, 1e-5  # tolerated; all compare float64, but some of Keras computes in float32


@dataclass
class Row:
    """One operation: its worst relative differences, None where there is nothing to compare with."""

    name: str
    samples: int = 0
    differences: float | None = None
    torch: float | None = None
    keras: float | None = None

    @property
    def passes(self) -> bool:
        pairs = ((self.differences, DIFFERENCES), (self.torch, TORCH), (self.keras, KERAS))
        return all(value is None or value <= limit for value, limit in pairs)


def check(case: OpCase, torch: ModuleType | None = None, keras: ModuleType | None = None) -> Row:
    """Walks the samples of one operation. torch, keras: the modules, where installed."""
    row = Row(case.name)
    for sample in case.samples(np.random.default_rng(0)):
        row.samples += 1
        row.differences = _worse(row.differences, _finite_differences(case, sample))
        if torch is not None and case.torch is not None and sample.torch and not case.random:
            row.torch = _worse(row.torch, _against_torch(case, sample, torch))
        if keras is not None and case.keras is not None and sample.keras and not case.random:
            row.keras = _worse(row.keras, _against_keras(case, sample, keras))
    return row


def _worse(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return b if a is None else a
    return float(np.maximum(a, b))  # NaN stays NaN


def _tensors(sample: Sample) -> list[Tensor | None]:
    def convert(i: int, value: Any) -> Tensor | None:
        return None if value is None else Tensor(value.copy(), requires_grad=value.dtype.kind == "f" and i not in sample.constant)

    return [convert(i, value) for i, value in enumerate(sample.inputs)]


def _call(case: OpCase, sample: Sample, *inputs: Tensor | None) -> Tensor:
    manual_seed(1)
    options = {name: Tensor(value) if isinstance(value, np.ndarray) else value for name, value in sample.options.items()}
    result = case.function(*inputs, **options)
    return result[0] if isinstance(result, tuple) else result


def _finite_differences(case: OpCase, sample: Sample) -> float | None:
    inputs = _tensors(sample)
    if not any(t is not None and t.requires_grad for t in inputs):
        return None
    try:
        return gradcheck(lambda *tensors: _call(case, sample, *tensors), inputs, tolerance=np.inf)
    except GradientError:
        return float("nan")


def _against_torch(case: OpCase, sample: Sample, torch: Any) -> float:
    """Values and gradients in float64, with a random output gradient."""
    ours = _tensors(sample)
    y = _call(case, sample, *ours)
    theirs = [None if t is None else torch.from_numpy(t.data.copy()).requires_grad_(t.requires_grad) for t in ours]
    options = {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in sample.options.items()}
    assert case.torch is not None
    result = case.torch(torch)(*theirs, **options)
    z = result[0] if isinstance(result, tuple) else result
    worst = _difference(y.data, z.detach().numpy())
    if y.requires_grad:
        gy = np.random.default_rng(7).standard_normal(y.shape)
        y.backward(gy)
        z.backward(torch.from_numpy(gy.reshape(y.shape)))
        for t, theirs_one in zip(ours, theirs, strict=True):
            if t is not None and theirs_one is not None and t.grad is not None and theirs_one.grad is not None:
                worst = max(worst, _difference(t.grad, theirs_one.grad.numpy()))
    return worst


def _against_keras(case: OpCase, sample: Sample, keras: Any) -> float | None:
    assert case.keras is not None
    theirs = case.keras(keras, sample)
    return None if theirs is None else _difference(_call(case, sample, *_tensors(sample)).data, np.asarray(theirs))


def _difference(ours: Any, theirs: Any) -> float:
    """The largest difference relative to the largest value, or to 1 where all are smaller; NaN and infinities must agree."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    finite = np.isfinite(theirs)
    if ours.shape != theirs.shape or not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    return float(np.abs(ours - theirs)[finite].max() / max(1.0, np.abs(theirs[finite]).max()))
