"""Streams, CUDA graphs and memory pools of the GPU that is none.

While a stream is captured nothing is done: each launch, and each function of CuPy, goes into a list with the addresses and the numbers it
was handed. `Graph.launch` works through the list. An address is kept as a GPU keeps it, without the array: memory whose arrays are gone
and that no pool of the graph's keeps belongs to others by then, and a replay that touches it is told. So is what cannot be captured:
to wait for the GPU, to copy from the processor or to it, to capture the default stream.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

Step = Callable[[], None]


class Stream:
    """cupy.cuda.Stream; the default one where `non_blocking` is False."""

    def __init__(self, non_blocking: bool = False) -> None:
        self.non_blocking = non_blocking
        self.steps: list[Step] | None = None  # while it is captured

    def __enter__(self) -> Stream:
        _current.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.pop()

    def begin_capture(self) -> None:
        if not self.non_blocking:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported: the default stream cannot be captured.")
        self.steps = []

    def end_capture(self) -> Graph:
        if self.steps is None:
            raise RuntimeError("cudaErrorIllegalState: the stream is not captured.")
        steps, self.steps = self.steps, None
        return Graph(steps)


_current = [Stream()]


def current_stream() -> Stream:
    return _current[-1]


class Event:
    """cupy.cuda.Event"""

    def record(self) -> None:
        refuse_in_capture("an event")

    def synchronize(self) -> None:
        refuse_in_capture("waiting for an event")


class Graph:
    """cupy.cuda.Graph"""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps

    def launch(self) -> None:
        refuse_in_capture("launching a graph")
        for step in self.steps:
            step()


def refuse_in_capture(what: str) -> None:
    if capturing():
        raise RuntimeError(f"{what} is illegal while the stream is capturing.")


class MemoryPool:
    """cupy.cuda.MemoryPool: memory taken from it is never given to others, also where nobody looks at it."""

    def __init__(self) -> None:
        self.memory: dict[int, np.ndarray] = {}
        self.arrays: list[Any] = []  # all that look at it, for tables of addresses

    def malloc(self, size: int) -> Any:
        raise AssertionError("the stand-in takes its memory from NumPy.")

    def free_all_blocks(self) -> None:
        refuse_in_capture("freeing memory")


_allocator: list[MemoryPool] = []


@contextmanager
def using_allocator(malloc: Any) -> Iterator[None]:
    _allocator.append(malloc.__self__)
    try:
        yield
    finally:
        _allocator.pop()


def made(array: Any, fresh: bool) -> None:
    """Told of each new array. fresh: its memory is new too."""
    if _allocator:
        pool, owner = _allocator[-1], root(array._host)
        if fresh:
            pool.memory[id(owner)] = owner
        if id(owner) in pool.memory:
            pool.arrays.append(array)


def root(host: Any) -> Any:
    """The array that owns the memory."""
    while getattr(host, "base", None) is not None:
        host = host.base
    return host


class Address:
    """Where an array lies, and nothing that keeps it alive."""

    def __init__(self, array: Any) -> None:
        host = array._host
        owner = root(host)
        self.kind, self.owner, self.offset = type(array), weakref.ref(owner), host.ctypes.data - owner.ctypes.data
        self.shape, self.dtype, self.strides = host.shape, host.dtype, host.strides

    def array(self) -> Any:
        owner = self.owner()
        if owner is None:
            raise AssertionError(
                f"a graph uses memory that was freed and belongs to others now: {self.dtype} of shape {self.shape}. "
                "Keep the array, or make it during the capture in a pool that the graph keeps."
            )
        return self.kind(np.ndarray(self.shape, self.dtype, owner.ravel(order="K").view(np.uint8), self.offset, self.strides))


def capturing() -> bool:
    return current_stream().steps is not None


def captured(function: Callable[..., Any], *args: Any, into: list[Any] | None = None) -> None:
    """Adds `function(*args)` to the list. into: the arrays that get its results, where it does not write them itself."""
    steps = current_stream().steps
    assert steps is not None
    kept, targets = _each(args, _frozen), _each(into, _frozen)

    def step() -> None:
        result = function(*_each(kept, _thawed))
        if targets is not None:
            for target, value in zip(_each(targets, _thawed), result if isinstance(result, tuple | list) else [result], strict=True):
                target._host[...] = value

    steps.append(step)


def _frozen(value: Any) -> Any:
    """An array on the GPU → its address; what is handed over by value → a copy."""
    return Address(value) if hasattr(value, "_host") else value.copy() if isinstance(value, np.ndarray) else value


def _thawed(value: Any) -> Any:
    return value.array() if isinstance(value, Address) else value


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value, or all within tuples, lists and dicts, changed."""
    if isinstance(value, dict):
        return {key: _each(v, change) for key, v in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_each(v, change) for v in value)
    return change(value)
