"""Runs one call of the operation table here and in PyTorch, and compares arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import minunet as mu
from minunet import Tensor
from minunet.kernels import recording
from minunet.testing.opcases import OpCase, Sample

Layout = Callable[[np.ndarray], np.ndarray]

cpu_kernels_alone = False  # pytest's option --cpu-kernels


@dataclass
class Run:
    """What came out: outputs, and a gradient for each input that asked for one (None for the others)."""

    outputs: list[np.ndarray]
    grads: list[np.ndarray | None]


def is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def samples_of(case: OpCase) -> list[Sample]:
    """The row's samples: always the same, whoever asks."""
    return list(case.samples(np.random.default_rng(0)))


def tensors_of(sample: Sample, dtype: Any, layout: Layout = np.array) -> list[Tensor | None]:
    """The inputs as tensors; floating-point ones in `dtype`, fresh memory, and requiring a gradient unless constant."""

    def convert(i: int, value: Any) -> Tensor | None:
        if value is None:
            return None
        if not is_float(value):
            return Tensor(value.copy())
        return Tensor(layout(value.astype(dtype)), requires_grad=i not in sample.constant)

    return [convert(i, value) for i, value in enumerate(sample.inputs)]


def options_of(sample: Sample, dtype: Any) -> dict[str, Any]:
    """The options; an array among them becomes a tensor."""
    convert = lambda v: Tensor(v.astype(dtype) if is_float(v) else v) if isinstance(v, np.ndarray) else v  # noqa: E731
    return {name: convert(value) for name, value in sample.options.items()}


def call(case: OpCase, sample: Sample, tensors: list[Tensor | None], dtype: Any) -> list[Tensor]:
    """The outputs as a list of tensors. The random stream starts anew."""
    mu.manual_seed(1)
    result = case.function(*tensors, **options_of(sample, dtype))
    return list(result) if isinstance(result, tuple) else [result]


def upstream(shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """A random output gradient: never ones, which would hide a backward that ignores it."""
    return np.random.default_rng(7).standard_normal(shape).astype(dtype)


def run(case: OpCase, sample: Sample, dtype: Any = np.float64, layout: Layout = np.array, gy_layout: Layout = np.array) -> Run:
    """Forward, and backward with a random output gradient where an input requires one."""
    tensors = tensors_of(sample, dtype, layout)
    outputs = call(case, sample, tensors, dtype)
    if outputs[0].requires_grad:
        outputs[0].backward(gy_layout(upstream(outputs[0].shape, outputs[0].dtype)))
    return Run([y.data for y in outputs], [None if t is None else t.grad for t in tensors])


def run_torch(torch: Any, case: OpCase, sample: Sample, dtype: Any = np.float64) -> Run:
    """The same in PyTorch."""

    def convert(value: Any, grad: bool) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        array = value.astype(dtype) if is_float(value) else value
        return torch.from_numpy(np.array(array)).requires_grad_(grad and is_float(value))

    tensors = [convert(value, i not in sample.constant) for i, value in enumerate(sample.inputs)]
    result = case.torch(torch)(*tensors, **{name: convert(value, False) for name, value in sample.options.items()})
    outputs = list(result) if isinstance(result, tuple) else [result]
    if outputs[0].requires_grad:
        outputs[0].backward(torch.from_numpy(upstream(tuple(outputs[0].shape), dtype)))
    grads = [None if not hasattr(t, "grad") or t.grad is None else t.grad.numpy() for t in tensors]
    return Run([y.detach().numpy() for y in outputs], grads)


@cache
def kernel_sets(case: OpCase, index: int) -> tuple[str, ...]:
    """The kernel sets worth running for a sample: 'ref', and 'auto' where that chooses something else.

    A light operation has one code for all: 'auto' alone.
    """
    with recording() as choices:
        run(case, samples_of(case)[index])
    if cpu_kernels_alone:
        return ("auto",) if any(choice.served_by == "cpu" for choice in choices) else ()
    if not choices:
        return ("auto",)
    return ("ref", "auto") if any(choice.served_by != "ref" for choice in choices) else ("ref",)


def assert_close(got: Any, want: Any, tolerance: float, what: str) -> None:
    """Equal shapes, and elements equal to `tolerance` relative to the largest (at least 1); infinities and NaNs in the same places."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    if not want.size:
        return
    got, want = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(want)
    assert np.array_equal(got[~finite], want[~finite], equal_nan=True), f"{what}: infinities or NaNs differ"
    if not finite.any():
        return
    scale = max(1.0, float(np.abs(want[finite]).max()))
    error = np.where(finite, np.abs(np.where(finite, got, 0) - np.where(finite, want, 0)), 0)
    worst = np.unravel_index(np.argmax(error), error.shape)
    wrong = int((error > tolerance * scale).sum())
    assert not wrong, (
        f"{what}: {got[worst]!r} at {tuple(map(int, worst))}, expected {want[worst]!r}; relative error {error[worst] / scale:.2g}, "
        f"tolerance {tolerance:.2g}; {wrong} of {error.size} elements are wrong"
    )
