"""Tensor: an array, its gradient, and the operation that made it.

The operators (`+`, `@`, indexing, `sum` …) live with the operations in `minunet.ops`, which hang them onto the class
with `@tensor_method`, so that arrows between files point downwards only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from minunet import arrays

if TYPE_CHECKING:
    from minunet.autograd import Function

_F = TypeVar("_F", bound=Callable[..., Any])


class Tensor:
    """An array that remembers how it was computed.

    data: the NumPy or CuPy array. grad: an array of the same shape and dtype after `backward()`, or None.
    node: the `Function` that computed it, or None for a leaf (a parameter or an input).
    """

    __slots__ = ("__weakref__", "_requires_grad", "data", "grad", "node")
    __array_priority__ = 1000  # numpy_array + tensor asks the tensor

    def __init__(self, data: Any, requires_grad: bool = False, node: Function | None = None) -> None:
        self.data = data if arrays.is_array(data) else np.asarray(data)
        self.grad: Any = None
        self.node = node
        self._requires_grad = False
        self.requires_grad = requires_grad

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and not arrays.is_float(self.data):
            raise TypeError(f"only floating-point tensors can require a gradient, this one is {self.data.dtype}.")
        self._requires_grad = bool(value)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    @property
    def device(self) -> str:
        return arrays.device_of(self.data)

    def backward(self, grad: Any = None) -> None:
        """Adds ∂self/∂leaf · grad to `.grad` of every leaf that requires a gradient, and consumes the graph.

        grad: array or tensor of this tensor's shape; may be left out for a tensor of one element (then it is 1).
        """
        if not self.requires_grad:
            raise RuntimeError(
                "backward() on a tensor that needs no gradient: no input had requires_grad=True, or it was computed in no_grad()."
            )
        xp = arrays.array_module(self.data)
        if grad is None:
            if self.data.size != 1:
                raise RuntimeError(
                    f"backward() without an argument needs a tensor of one element; this one is {self.shape}. "
                    "Reduce it with .sum() or .mean(), or pass a gradient of the same shape."
                )
            grad = xp.ones(self.shape, dtype=self.dtype)
        grad = xp.asarray(grad.data if isinstance(grad, Tensor) else grad, dtype=self.dtype)
        if grad.shape != self.shape:
            raise ValueError(f"backward(): the gradient has shape {grad.shape}, the tensor {self.shape}.")
        if self.node is None:
            self.accumulate(grad, owned=False)
        else:
            self.node.run_backward(grad)

    def accumulate(self, grad: Any, owned: bool) -> None:
        """Adds to `.grad`. owned: nobody else holds `grad`, so it may be kept without a copy."""
        if self.grad is not None:
            self.grad = self.grad + grad
        else:
            self.grad = grad if owned else grad.copy()

    def numpy(self) -> np.ndarray[Any, Any]:
        """The data as a NumPy array. Raises for a tensor that requires a gradient or lives on the GPU."""
        if self.requires_grad:
            raise RuntimeError("numpy() on a tensor that requires a gradient would cut it from the graph unseen: call .detach() first.")
        if self.device != "cpu":
            raise RuntimeError("numpy() on a GPU tensor would copy it unseen: call .to('cpu') first.")
        return self.data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def item(self) -> float | int | bool:
        """The one element as a Python number."""
        return self.data.item()

    def tolist(self) -> Any:
        return self.data.tolist()

    def detach(self) -> Tensor:
        """The same data, cut from the graph."""
        return Tensor(self.data)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a tensor with no axes.")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.data)

    def __repr__(self) -> str:
        origin = f", node={type(self.node).__name__}" if self.node is not None else ""
        wants = ", requires_grad=True" if self.requires_grad and self.node is None else ""
        where = ", device='cuda'" if self.device == "cuda" else ""
        body = np.array2string(arrays.to_device(self.data, "cpu"), separator=", ", prefix="tensor(")
        return f"tensor({body}, dtype={self.dtype}{where}{wants}{origin})"

    if TYPE_CHECKING:  # hung on by minunet.ops; listed here for readers and type checkers

        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def abs(self) -> Tensor: ...
        def exp(self) -> Tensor: ...
        def log(self) -> Tensor: ...
        def sqrt(self) -> Tensor: ...
        def clip(self, minimum: float | None = None, maximum: float | None = None) -> Tensor: ...
        def astype(self, dtype: Any) -> Tensor: ...
        def to(self, device: str) -> Tensor: ...
        def sum(self, dim: Any = None, keepdim: bool = False) -> Tensor: ...
        def mean(self, dim: Any = None, keepdim: bool = False) -> Tensor: ...
        def max(self, dim: Any = None, keepdim: bool = False) -> Tensor: ...
        def min(self, dim: Any = None, keepdim: bool = False) -> Tensor: ...
        def var(self, dim: Any = None, keepdim: bool = False, correction: int = 1) -> Tensor: ...
        def reshape(self, *shape: Any) -> Tensor: ...
        def transpose(self, dim0: int, dim1: int) -> Tensor: ...
        def permute(self, *dims: Any) -> Tensor: ...
        def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor: ...
        def squeeze(self, dim: int) -> Tensor: ...
        def unsqueeze(self, dim: int) -> Tensor: ...
        def broadcast_to(self, shape: tuple[int, ...]) -> Tensor: ...


def tensor_method(*names: str) -> Callable[[_F], _F]:
    """Decorator: makes a function of a tensor also a method of `Tensor`, under the given names."""

    def hang(function: _F) -> _F:
        for name in names:
            setattr(Tensor, name, function)
        return function

    return hang


def tensor(array: Any, requires_grad: bool = False, device: str = "cpu") -> Tensor:
    """A tensor holding a copy of `array`.

    Python floats become float32; a NumPy array keeps its dtype, integers and booleans stay what they are.
    """
    if isinstance(array, Tensor):
        array = array.data
    known = arrays.is_array(array) or isinstance(array, np.generic)
    data = array.copy() if arrays.is_array(array) else np.array(array)
    if data.dtype.kind not in "iub" and not arrays.is_float(data):
        raise TypeError(f"a tensor holds real numbers; got {data.dtype}.")
    if not known and data.dtype == np.float64:
        data = data.astype(np.float32)
    return Tensor(arrays.to_device(data, device), requires_grad)
