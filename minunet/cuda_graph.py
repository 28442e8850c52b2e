"""A CUDA graph: all launches of a step as one.

    step = cuda.graph(train)            # train(images, masks): forward, loss, backward, update; returns the loss as an array
    for images, masks in loader:
        loss = step(images, masks)

The step of a small UNet is hundreds of launches, and Python takes longer to ask for one than the GPU to do it. A graph is the list of
them, kept on the GPU. To get it the function is *captured*: it runs, and what it launches goes into the list and is not done. Then the
list is launched, again and again.

A replay repeats every address and every number that was handed to a kernel. So:

| What | Where it is |
|---|---|
| the function's arguments | copied into arrays that stay where they are |
| arrays made during the capture | in a pool of the graph's own: nobody else gets their memory |
| tables from before, which a cache may drop | kept by the graph: `held` |
| numbers that change from step to step | in the graph's page, written anew before each replay: `varying` |
| tables of addresses | in the page too: a copy from the processor cannot be captured |

What Python decides is decided once, in the capture: a mode, a branch, which kernel runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

from minunet.arrays import cupy_module, device_of, is_array
from minunet.shapes import sizes_text

PAGE = 1 << 20  # bytes: a network of ten thousand parameter arrays needs as much
ALIGNED = 16  # bytes: where a table may begin

Again = Callable[[], np.ndarray[Any, Any]]
_T = TypeVar("_T")

_captured: ContextVar[Graph | None] = ContextVar("cuda_graph", default=None)


class CaptureError(RuntimeError):
    """A function cannot become a CUDA graph; the message says why. Nothing was computed on the GPU; what it did in Python is done."""


def graph(function: Callable[..., Any]) -> Graph:
    """`function` as a CUDA graph: it is called as the function is, and each call is one step.

    function: takes arrays and returns an array, a tuple of them, or None. Arguments may also be NumPy arrays; the function gets them on
    the GPU. The first call runs it as it is, which compiles kernels and makes what is made once, such as an optimiser's state. The second
    captures it. All others only replay. What they return is a copy, and serves until it is dropped.

    The arguments must keep shapes and dtypes: others raise ValueError. The function must set gradients to None itself, and must not
    read a number from the GPU, send one there, or multiply matrices by CuPy: that raises `CaptureError` at the second call. Attributes
    such as `.grad` are set by the capture alone. A class number that a loss does not know makes the loss NaN in place of an error.
    """
    return Graph(function)


class Graph:
    """See `graph`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._inputs: list[Any] | None = None
        self._launches: Any = None  # CuPy's graph
        self._outputs: Any = None
        self._held: list[Any] = []

    def fits(self, *arrays: Any) -> bool:
        """Whether the arguments have the shapes and dtypes of the first call's; before that one all do."""
        return self._inputs is None or [(a.shape, a.dtype) for a in arrays] == [(a.shape, a.dtype) for a in self._inputs]

    def __call__(self, *arrays: Any) -> Any:
        if self._inputs is None:
            inputs = [cupy_module().empty(a.shape, a.dtype) for a in arrays]
            _fill(inputs, arrays)
            result = _checked(self.function(*inputs))
            self._inputs = inputs
            return result
        if not self.fits(*arrays):
            came, own = (", ".join(f"{a.dtype} {sizes_text(a.shape)}" for a in given) for given in (arrays, self._inputs))
            raise ValueError(f"this CUDA graph takes {own}; got {came}. Call the function itself, or make a graph for each shape.")
        _fill(self._inputs, arrays)
        if self._launches is None:
            self._capture()
        else:
            self._page.renew()
        self._page.send()
        self._launches.launch()
        return tuple(a.copy() for a in self._outputs) if isinstance(self._outputs, tuple) else _copy(self._outputs)

    def _capture(self) -> None:
        cupy = cupy_module()
        cupy.get_default_memory_pool().free_all_blocks()  # the graph's own pool will need as much
        self._page, self._held, self._pool = _Page(cupy), [], cupy.cuda.MemoryPool()
        stream = cupy.cuda.Stream(non_blocking=True)  # the default one cannot be captured
        token = _captured.set(self)
        try:
            with cupy.cuda.using_allocator(self._pool.malloc), _nothing_sent(cupy), stream:
                stream.begin_capture()
                self._outputs = _checked(self.function(*self._inputs or ()))
                self._launches = stream.end_capture()
        except BaseException as problem:
            with suppress(Exception):  # it says again what went wrong
                stream.end_capture()
            if not isinstance(problem, Exception):
                raise
            raise CaptureError(
                f"{getattr(self.function, '__name__', 'the function')} cannot become a CUDA graph: {problem} "
                "Leave out what reads a number from the GPU or sends one there, or call the function without a graph."
            ) from problem
        finally:
            _captured.reset(token)


class _Page:
    """Bytes on the GPU that the processor writes: one copy before each replay."""

    def __init__(self, cupy: Any) -> None:
        self._cupy, self._used = cupy, 0
        self._here, self._there = np.zeros(PAGE, np.uint8), cupy.empty(PAGE, np.uint8)
        self._changing: list[tuple[np.ndarray[Any, Any], Again]] = []

    def place(self, values: np.ndarray[Any, Any], again: Again | None) -> Any:
        first = -(-self._used // ALIGNED) * ALIGNED
        self._used = first + values.nbytes
        if self._used > PAGE:
            raise RuntimeError(f"the tables of the step take more than the {PAGE} bytes that a CUDA graph has for them.")
        own = self._here[first : self._used].view(values.dtype).reshape(values.shape)
        own[...] = values
        if again is not None:
            self._changing.append((own, again))
        return self._there[first : self._used].view(values.dtype).reshape(values.shape)

    def renew(self) -> None:
        """In the order of the capture: then they draw the same random numbers as a step without a graph."""
        for own, again in self._changing:
            own[...] = again()

    def send(self) -> None:
        """CUDA takes the bytes out of ordinary memory before it returns, so the next step may write there; nobody waits for the GPU."""
        self._there[: self._used].set(self._here[: self._used], self._cupy.cuda.get_current_stream())


class Later:
    """A number that the GPU computes, to be read when more has been launched: only what was launched before this object is waited for."""

    def __init__(self, array: Any) -> None:
        self._array, self._ready = array, cupy_module().cuda.Event()
        self._ready.record()

    def item(self) -> float | int | bool:
        """The number. A copy on the default stream would come after everything that was launched there, so it has a stream of its own."""
        self._ready.synchronize()
        with cupy_module().cuda.Stream(non_blocking=True):
            return self._array.item()


def capturing() -> bool:
    """Whether a CUDA graph is being captured."""
    return _captured.get() is not None


def on_gpu(values: np.ndarray[Any, Any], again: Again | None = None) -> Any:
    """`values` as an array on the GPU. again: of a graph, computes what replaces them at each replay but the first."""
    own = _captured.get()
    return cupy_module().asarray(values) if own is None else own._page.place(values, again)


def varying(values: np.ndarray[Any, Any], again: Again, like: Any) -> Any:
    """Numbers that are others in each step, on the device of `like`. again: computes those of the next step."""
    return values if device_of(like) == "cpu" else on_gpu(values, again)


def held(kept: _T) -> _T:
    """What a cache keeps, array or tuple: a graph that is being captured keeps it too."""
    own = _captured.get()
    if own is not None:
        own._held.append(kept)
    return kept


@contextmanager
def _nothing_sent(cupy: Any) -> Iterator[None]:
    """Within the block a copy from the processor raises. A graph would repeat it, from memory that holds something else by then."""

    def refuse(size: int) -> Any:
        raise RuntimeError("an array came from the processor.")

    cupy.cuda.set_pinned_memory_allocator(refuse)  # which every such copy passes through
    try:
        yield
    finally:
        cupy.cuda.set_pinned_memory_allocator(cupy.get_default_pinned_memory_pool().malloc)


def _fill(own: list[Any], arrays: tuple[Any, ...]) -> None:
    for to, array in zip(own, arrays, strict=True):
        if device_of(array) == "cuda":
            to[...] = array
        else:
            to.set(np.asarray(array, order="C"), cupy_module().cuda.get_current_stream())


def _checked(result: Any) -> Any:
    parts = result if isinstance(result, tuple) else (result,)
    odd = next((part for part in parts if not (is_array(part) and device_of(part) == "cuda")), None)
    if odd is not None:
        raise TypeError(f"the function of a CUDA graph returns arrays on the GPU; got {type(odd).__name__}. Of a tensor return .data.")
    return result


def _copy(array: Any) -> Any:
    return None if array is None else array.copy()
