"""Arrays and where they live: NumPy on the processor, CuPy on the GPU.

This is the one file that knows CuPy exists, and it loads it only when a GPU array is asked for.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or cupy.ndarray: the two share their vocabulary


def cupy_module() -> ModuleType:
    """CuPy, loaded; RuntimeError, in a sentence, where it is missing or finds no GPU."""
    try:
        import cupy  # noqa: PLC0415  loaded only when a GPU is asked for
    except ModuleNotFoundError:
        raise RuntimeError(
            "device 'cuda' needs CuPy, which is not installed: pip install 'minunet[cuda]', or stay on device 'cpu'."
        ) from None
    except ImportError as problem:
        raise RuntimeError(
            f"device 'cuda' needs CuPy, which is installed but cannot be loaded ({problem.__cause__ or problem}): "
            "pip install --force-reinstall 'minunet[cuda]', or stay on device 'cpu'."
        ) from None
    try:
        cupy.cuda.runtime.getDeviceCount()
    except Exception as problem:
        raise RuntimeError(
            f"device 'cuda' needs an NVIDIA GPU and its driver, and CuPy finds none ({problem}): "
            "install or update the NVIDIA driver, or stay on device 'cpu'."
        ) from None
    return cupy


def is_array(value: Any) -> bool:
    """True for a NumPy or CuPy array."""
    return isinstance(value, _array_types())


def arrays_among(values: Iterable[Any]) -> list[Array]:
    """Those for which `is_array` is true."""
    types = _array_types()
    return [value for value in values if isinstance(value, types)]


def _array_types() -> Any:
    cupy = sys.modules.get("cupy")
    return np.ndarray if cupy is None else (np.ndarray, cupy.ndarray)


def _is_cupy(value: Any) -> bool:
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(value, cupy.ndarray)


def array_module(*arrays: Array) -> Any:
    """The module, `numpy` or `cupy`, that owns the arrays. Raises TypeError where they differ."""
    if "cupy" not in sys.modules:
        return np
    on_gpu = {_is_cupy(array) for array in arrays if array is not None}
    if len(on_gpu) > 1:
        raise TypeError("arrays on different devices met in one operation (cpu and cuda). Move them to one device with .to(device) first.")
    return sys.modules["cupy"] if on_gpu == {True} else np


def device_of(array: Array) -> str:
    """'cpu' or 'cuda'."""
    return "cuda" if _is_cupy(array) else "cpu"


def check_device(device: str) -> None:
    """Raises ValueError where there is no such device, and RuntimeError where this machine has none."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device is 'cpu' or 'cuda', got {device!r}.")
    if device == "cuda":
        cupy_module()


def to_device(array: Array, device: str) -> Array:
    """The array on `device`, 'cpu' or 'cuda'; the same object where it is there already. It keeps the order of its axes in memory.

    CuPy would put them into the order of the shape, both ways. So it gets them as they lie.
    """
    if device == device_of(array):
        return array
    check_device(device)
    order = memory_order(array)
    there = array.transpose(order)
    there = cupy_module().asarray(there) if device == "cuda" else there.get()
    return there.transpose(back_from(order))


# ---- the order of elements in memory ----


def memory_order(array: Array) -> tuple[int, ...]:
    """The axes, from the one whose elements are farthest apart in memory to the one whose elements lie side by side.

    `array.transpose(memory_order(array))` is read from its first byte to its last. CuPy's own kernels count their threads in the order
    of the axes, whatever the strides are, and what they make lies in that order.
    """
    return tuple(sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])))


def back_from(order: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that undo `transpose(order)`."""
    return tuple(order.index(axis) for axis in range(len(order)))


# ---- dtypes: float64 for checks, float32, and images of 16 bits ----

HALF = ("float16", "bfloat16")
_LETTERS = "eE"  # theirs in NumPy and ml_dtypes: a name takes long to look at


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """NumPy's dtype, and 'bfloat16', which NumPy leaves to the package ml_dtypes. CuPy computes with it too, from version 14 on."""
    if isinstance(dtype, str) and dtype == "bfloat16":
        try:
            import ml_dtypes  # noqa: PLC0415  loaded only when it is asked for
        except ModuleNotFoundError:
            raise RuntimeError("bfloat16 needs ml_dtypes, which is not installed: pip install 'minunet[cuda]'.") from None
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype)


def is_float(array: Array) -> bool:
    try:
        return array.dtype.kind == "f" or array.dtype.char == "E"  # bfloat16, whose kind is that of any extension
    except AttributeError:  # the `data` of no tensor: NumPy's is a memoryview, PyTorch's dtype has no kind
        raise TypeError(
            "An operation got an array of NumPy, CuPy or PyTorch where it takes a tensor: make one with minunet.tensor(array)."
        ) from None


def is_half(array: Array | None) -> bool:
    """Whether the numbers have 16 bits."""
    return array is not None and array.dtype.char in _LETTERS


def computed_dtype(array: Array) -> np.dtype[Any]:
    """What numbers of this array are computed in, and the dtype of the parameters that it meets: its own, or float32 for 16 bits."""
    return np.dtype("float32") if is_half(array) else array.dtype


def widened(array: Array) -> Array:
    """The same numbers as float32 where they have 16 bits. None stays None."""
    return array.astype("float32") if is_half(array) else array


def rounded(array: Array, like: Array) -> Array:
    """In the dtype of `like`, the nearest numbers; halfway goes to the even one, and what is too large for float16 becomes infinity."""
    with np.errstate(over="ignore"):
        return array.astype(like.dtype, copy=False)


def check_float_dtypes(name: str, arrays: tuple[Array | None, ...], takes_images: bool) -> None:
    """Raises TypeError where floating-point dtypes are mixed: nothing is converted silently.

    takes_images: the first array may have 16 bits. Then the others, its parameters, are float32.
    """
    floats = [a for a in arrays if a is not None and is_float(a)]
    if takes_images and is_half(arrays[0]):
        images, *parameters = floats
        for a in parameters:
            if a.dtype != np.float32:
                raise TypeError(f"{name}: with images of {images.dtype} parameters are float32, got {a.dtype}. Keep them in float32.")
        return
    dtypes = {a.dtype for a in floats}
    if len(dtypes) > 1:
        listed = " and ".join(sorted(str(d) for d in dtypes))
        raise TypeError(f"{name}: inputs mix {listed}. Convert them to one dtype first, with .astype(dtype).")


def sum_to_shape(array: Array, shape: tuple[int, ...]) -> Array:
    """Sums out what broadcasting repeated: the adjoint of `broadcast_to(·, array.shape)`."""
    if array.shape == shape:
        return array
    extra = array.ndim - len(shape)
    repeated = tuple(i + extra for i, n in enumerate(shape) if n == 1 and array.shape[i + extra] != 1)
    return array.sum(axis=tuple(range(extra)) + repeated, keepdims=True).reshape(shape)


def channels_last(array: Array) -> Array:
    """(N, C, *spatial) in any memory order → a C-contiguous (N, *spatial, C), copied only where needed."""
    return array_module(array).ascontiguousarray(_channels_to_end(array))


def channels_first(array: Array) -> Array:
    """(N, *spatial, C) → the (N, C, *spatial) view of the same memory."""
    return array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))


def _channels_to_end(array: Array) -> Array:
    """(N, C, *spatial) → (N, *spatial, C), a view."""
    return array.transpose(0, *range(2, array.ndim), 1)


def as_volume(last: Array) -> Array:
    """(N, *spatial, C) of rank 1, 2 or 3 → (N, D, H, W, C), where absent axes have size 1."""
    return last.reshape(last.shape[0], *(1,) * (5 - last.ndim), *last.shape[1:])


def channels_last_volume(array: Array) -> Array:
    """(N, C, *spatial) of rank 1, 2 or 3 → a C-contiguous (N, D, H, W, C)."""
    return as_volume(channels_last(array))


def axes_in_memory(array: Array) -> tuple[int, ...] | None:
    """The axes longer than 1, from the fastest to the slowest in memory; None where its numbers do not lie there one after the other."""
    return _axes_by_stride(array.shape, array.strides, array.itemsize)


@lru_cache(maxsize=1024)
def _axes_by_stride(shape: tuple[int, ...], strides: tuple[int, ...], width: int) -> tuple[int, ...] | None:
    axes = sorted((axis for axis, n in enumerate(shape) if n > 1 and 0 not in shape), key=lambda axis: strides[axis])
    for axis in axes:
        if strides[axis] != width:
            return None
        width *= shape[axis]
    return tuple(axes)


def deliver(result: Array, out: Array | None) -> Array:
    """The result, or `out` holding it; the result may have been written there already."""
    if out is None:
        return result
    if not array_module(out).may_share_memory(out, result):
        out[...] = result
    return out


def lines(array: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], int]:
    """(…, width) on the processor → its memory as one axis, and the distance from one line of `width` elements to the next.

    A slice of a wider array, whose lines have others' memory between them, is not copied. What has its elements apart is.
    """
    if array.flags.c_contiguous:
        return array.reshape(-1), array.shape[-1] if array.ndim else 1
    rows = array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
    step = rows.strides[0] // rows.itemsize
    if step < 0 or rows.strides[0] % rows.itemsize or (rows.strides[1] != rows.itemsize and rows.shape[1] != 1):
        rows = np.ascontiguousarray(rows)
    if rows.flags.c_contiguous:
        return rows.reshape(-1), rows.shape[1]
    return np.lib.stride_tricks.as_strided(rows, ((rows.shape[0] - 1) * step + rows.shape[1],), (rows.itemsize,)), step


def in_place(array: Array) -> tuple[Array, tuple[int, ...]]:
    """(N, C, *spatial) of rank 1, 2 or 3 → its memory as a flat array, and the steps along N, D, H and W in it, in elements.

    For kernels that find their elements themselves: x[n,c,d,h,w] = flat[n·sₙ + d·s_d + h·s_h + w·s_w + c]. Some of the channels of
    a wider array are read where they lie; only channels that do not lie side by side are copied. NumPy only.
    """
    last = as_volume(_channels_to_end(array))
    size = last.itemsize
    if last.flags.c_contiguous:
        return last.reshape(-1), tuple(s // size for s in last.strides[:-1])
    *steps, between = last.strides
    if last.size == 0 or min(steps) < 0 or any(s % size for s in steps) or (between != size and last.shape[-1] > 1):
        return in_place(channels_first(np.ascontiguousarray(last)))
    span = 1 + sum(s * (n - 1) for s, n in zip((*steps, size), last.shape, strict=True)) // size
    return np.lib.stride_tricks.as_strided(last, (span,), (size,)), tuple(s // size for s in steps)
