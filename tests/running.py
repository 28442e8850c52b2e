"""Runs one call of the operation table here and in PyTorch, and compares arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import minunet as mu
from minunet import Tensor
from minunet.arrays import to_device
from minunet.kernels import recording
from minunet.testing.opcases import OpCase, Sample
from tests import host_gpu

Layout = Callable[[Any], Any]  # of an array on the processor or on the GPU

kernels_alone: str | None = None  # pytest's options --cpu-kernels, --gpu-kernels and --real-gpu
device = "cpu"  # where tensors are made


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


def fresh(array: Any) -> Any:
    return array.copy()


def tensors_of(sample: Sample, dtype: Any, layout: Layout = fresh, images: tuple[int, ...] | None = None) -> list[Tensor | None]:
    """The inputs as tensors; floating-point ones in `dtype`, fresh memory, and requiring a gradient unless constant.

    images: those that have `dtype`, the others are float32; None for all.
    """

    def convert(i: int, value: Any) -> Tensor | None:
        if value is None:
            return None
        if not is_float(value):
            return Tensor(to_device(value.copy(), device))
        own = dtype if images is None or i in images else np.float32
        return Tensor(layout(to_device(value.astype(own), device)), requires_grad=i not in sample.constant)

    return [convert(i, value) for i, value in enumerate(sample.inputs)]


def options_of(sample: Sample, dtype: Any) -> dict[str, Any]:
    """The options; an array among them becomes a tensor."""
    convert = lambda v: Tensor(to_device(v.astype(dtype) if is_float(v) else v, device)) if isinstance(v, np.ndarray) else v  # noqa: E731
    return {name: convert(value) for name, value in sample.options.items()}


def call(case: OpCase, sample: Sample, tensors: list[Tensor | None], dtype: Any) -> list[Tensor]:
    """The outputs as a list of tensors. The random stream starts anew."""
    mu.manual_seed(1)
    result = case.function(*tensors, **options_of(sample, dtype))
    return list(result) if isinstance(result, tuple) else [result]


def upstream(shape: tuple[int, ...], dtype: Any = np.float64) -> Any:
    """A random output gradient: never ones, which would hide a backward that ignores it."""
    return to_device(np.random.default_rng(7).standard_normal(shape).astype(dtype), device)


def run(case: OpCase, sample: Sample, dtype: Any = np.float64, layout: Layout = fresh, gy_layout: Layout = fresh) -> Run:
    """Forward, and backward with a random output gradient where an input requires one."""
    tensors = tensors_of(sample, dtype, layout)
    outputs = call(case, sample, tensors, dtype)
    if outputs[0].requires_grad:
        outputs[0].backward(gy_layout(upstream(outputs[0].shape, outputs[0].dtype)))
    grads = [None if t is None or t.grad is None else to_device(t.grad, "cpu") for t in tensors]
    return Run([to_device(y.data, "cpu") for y in outputs], grads)


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
    """The kernel sets worth running for a sample: 'ref', 'auto' where that chooses something else, and 'gpu'.

    A light operation has one code for all: 'auto' alone, and the same on the GPU's arrays.
    """
    if kernels_alone == "gpu":
        return ("gpu",)
    with recording() as choices:
        run(case, samples_of(case)[index])
    if kernels_alone == "cpu":
        return ("auto",) if any(choice.served_by == "cpu" for choice in choices) else ()
    if not choices:
        return ("auto", "gpu")
    return ("ref", "auto", "gpu") if any(choice.served_by != "ref" for choice in choices) else ("ref", "gpu")


@contextmanager
def on(kernel_set: str) -> Iterator[None]:
    """Within the block the set computes. 'gpu': tensors are made there, on none without --real-gpu; what has no kernel runs as 'ref'."""
    global device
    if kernel_set != "gpu":
        with mu.use(kernel_set):
            yield
        return
    before, device = device, "cuda"
    try:
        with host_gpu.installed():
            yield
    finally:
        device = before


def assert_close(got: Any, want: Any, tolerance: float, what: str) -> None:
    """Equal shapes, and elements equal to `tolerance` relative to the largest (at least 1); infinities and NaNs in the same places."""
    got, want = (np.asarray(to_device(a, "cpu")) for a in (got, want))
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
