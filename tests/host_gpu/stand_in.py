"""The part of CuPy that minunet uses, on the processor: an array type, the functions it knows, RawModule.

An array here is not one of NumPy's, as one of CuPy's is not: the two do not mix in an operation, NumPy does not convert it, and a sum
over all axes is an array without axes, not a number. What CuPy computes lies in memory in the order of its axes, whatever the order of
the arguments is, and so does what it copies from the processor or to it; the few names that keep the order are listed. Names are listed;
one that is missing raises, and a test holds the list against CuPy's own.
"""

from __future__ import annotations

import types
from operator import attrgetter
from typing import Any

import numpy as np

from tests.host_gpu import capture
from tests.host_gpu.capture import captured, capturing, refuse_in_capture
from tests.host_gpu.launch import ALIVE, RawModule

POISON = b"\xff"  # what fresh memory holds: NaN, and −1
CAPABILITY = "90"  # of the GPU that is none
NUMBER = 0  # and which of several it is

_pinned: list[Any] = [lambda size: None]  # allocators of the memory that copies from the processor pass through; the last one counts


def _names(text: str) -> list[str]:
    return text.split()


# functions that mean what NumPy's mean
FUNCTIONS = _names("""
    abs add all allclose any arange argmax argmin argsort array_equal ascontiguousarray bincount bitwise_and bitwise_or bitwise_xor
    broadcast_to ceil clip concatenate copy count_nonzero cumsum divide dot einsum equal exp expand_dims expm1 flip float_power floor
    full full_like greater invert isclose isfinite isinf isnan left_shift less linspace log log1p logical_and logical_not logical_or
    matmul max maximum may_share_memory mean min minimum moveaxis multiply negative nonzero not_equal ones ones_like pad power prod
    ravel real repeat reshape right_shift roll rollaxis round searchsorted shape shares_memory sign sort sqrt square squeeze stack std
    subtract sum swapaxes take take_along_axis tanh tensordot tile transpose tril triu unique unravel_index var where zeros zeros_like
""")
# those whose results lie as their argument does
KEEPING = _names("array astype copy full_like ones_like zeros_like")
# the same objects as NumPy's
VALUES = _names("""
    float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool_ integer floating dtype newaxis inf nan pi iinfo finfo
""")
METHODS = _names("""
    all any argmax argmin astype choose clip copy cumsum diagonal dot fill flatten item max mean min nonzero prod ravel repeat reshape round
    searchsorted sort squeeze std sum swapaxes take tobytes tolist trace transpose var view
""")
PROPERTIES = _names("shape strides dtype ndim size itemsize nbytes flags")


def unwrapped(value: Any) -> Any:
    """The NumPy array behind a stand-in, also within lists and tuples; an array of NumPy's own is refused, as CuPy does."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: an array on the processor met one on the GPU.")
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(unwrapped(v) for v in value)
    return value


def wrapped(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return ndarray(np.asarray(value))
    if isinstance(value, list | tuple):
        return type(value)(wrapped(v) for v in value)
    return value


def _call(name: str, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    out = kwargs.get("out")

    def compute(args: Any, kwargs: Any) -> Any:
        result = function(*(unwrapped(a) for a in args), **{key: unwrapped(value) for key, value in kwargs.items()})
        return result if name in KEEPING else _in_order(result, [args, kwargs])

    if out is None:
        return _results(compute, args, kwargs)
    if capturing():
        captured(compute, args, kwargs)
    else:
        compute(args, kwargs)
    return out[0] if isinstance(out, tuple) else out


def _results(compute: Any, *args: Any) -> Any:
    """compute(*args) on the GPU. In a capture it is computed for its shapes alone: what has memory of its own gets it in a replay."""
    if not capturing():
        return wrapped(compute(*args))
    with np.errstate(all="ignore"):
        result = compute(*args)
    values = result if isinstance(result, tuple | list) else [result]
    given = {id(capture.root(host)) for host in _hosts(args)}
    fresh = [isinstance(v, np.generic) or (isinstance(v, np.ndarray) and id(capture.root(v)) not in given) for v in values]
    if not any(fresh):
        return wrapped(result)
    assert all(fresh), "one result lies in new memory, another in an argument's"
    arrays = [ndarray(_poison(np.array(v)), fresh=True) for v in values]
    captured(compute, *args, into=arrays)
    return type(result)(arrays) if isinstance(result, tuple | list) else arrays[0]


def _in_order(result: Any, args: Any) -> Any:
    """What has memory of its own, in the order of its axes; a view of an argument as it is."""
    if isinstance(result, tuple | list):
        return type(result)(_in_order(r, args) for r in result)
    is_view = not isinstance(result, np.ndarray) or any(capture.root(host) is capture.root(result) for host in _hosts(args))
    return result if is_view else np.asarray(result, order="C")


def _hosts(value: Any) -> list[np.ndarray]:
    """The memory of all arrays in nested containers."""
    if isinstance(value, ndarray):
        return [value._host]
    if isinstance(value, dict):
        value = list(value.values())
    return [host for v in value for host in _hosts(v)] if isinstance(value, list | tuple) else []


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array on the GPU that is none. `_host` is the memory."""

    def __init__(self, host: np.ndarray, fresh: bool = False) -> None:
        self._host = host
        ALIVE[id(self)] = self
        capture.made(self, fresh)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return _call(ufunc.__name__, getattr(ufunc, method), inputs, kwargs)

    def __array_function__(self, function: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        if function.__name__ not in FUNCTIONS:
            raise TypeError(f"numpy.{function.__name__} of an array on the GPU: the stand-in for CuPy does not list it.")
        return _call(function.__name__, function, args, kwargs)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly.")

    def get(self) -> np.ndarray:
        refuse_in_capture("a copy to the processor")
        return self._host.copy(order="C")

    def set(self, array: np.ndarray, stream: Any = None) -> None:
        refuse_in_capture("a copy from the processor")
        assert isinstance(array, np.ndarray)
        assert array.flags.c_contiguous
        assert (array.shape, array.dtype) == (self.shape, self.dtype)
        self._host[...] = array

    @property
    def T(self) -> ndarray:
        return ndarray(self._host.T)

    @property
    def base(self) -> Any:
        return None if self._host.base is None else wrapped(self._host.base)

    @property
    def data(self) -> Any:
        return types.SimpleNamespace(ptr=self._host.ctypes.data, mem=capture.root(self._host))

    def __getitem__(self, index: Any) -> ndarray:
        return _results(lambda array, index: _in_order(array._host[_index(index)], array), self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        if capturing():
            captured(ndarray.__setitem__, self, index, value)
        else:
            self._host[_index(index)] = unwrapped(value)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __index__(self) -> int:
        return self.get().__index__()

    def __repr__(self) -> str:
        return f"on the GPU: {self._host!r}"

    def __reduce__(self) -> Any:
        raise TypeError("an array on the GPU is not pickled here.")


def _method(name: str) -> Any:
    plain, in_place = name in ("tobytes", "item", "tolist"), name in ("fill", "sort")

    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        if plain:
            return getattr(self.get(), name)(*args, **kwargs)
        if in_place and capturing():
            return captured(method, self, *args)
        return _call(name, lambda host, *args, **kwargs: getattr(host, name)(*args, **kwargs), (self, *args), kwargs)

    return method


for _name in METHODS:
    setattr(ndarray, _name, _method(_name))
for _name in PROPERTIES:
    setattr(ndarray, _name, property(lambda self, name=_name: getattr(self._host, name)))


def _index(index: Any) -> Any:
    """An index may hold arrays, and CuPy takes NumPy's there."""
    if any(isinstance(p, np.ndarray | list) for p in (index if isinstance(index, tuple) else (index,))):
        refuse_in_capture("an index from the processor")
    parts = tuple(p._host if isinstance(p, ndarray) else p for p in (index if isinstance(index, tuple) else (index,)))
    return parts if isinstance(index, tuple) else parts[0]


def _function(name: str) -> Any:
    function = attrgetter(name)(np)
    return lambda *args, **kwargs: _call(name, function, args, kwargs)


def _transform(name: str) -> Any:
    function = _function(f"fft.{name}")

    def transform(x: ndarray, **options: Any) -> ndarray:
        if x.size == 0:
            raise ValueError("Invalid number of FFT data points (0) specified.")
        return function(x, **options)

    return transform


def asarray(value: Any, dtype: Any = None) -> ndarray:
    """From the processor to the GPU: with `set`, the one way in."""
    if isinstance(value, ndarray):
        return value if dtype is None or value.dtype == dtype else value.astype(dtype)
    return _sent(np.array(value, dtype=dtype, order="C"))


def array(value: Any, dtype: Any = None, copy: bool = True) -> ndarray:
    if isinstance(value, ndarray):
        return _call("array", np.array, (value,), {"dtype": dtype, "copy": copy or None, "order": "K"})
    return _sent(np.array(value, dtype=dtype, order="A"))


def _sent(host: np.ndarray) -> ndarray:
    _pinned[-1](host.nbytes)
    refuse_in_capture("a copy from the processor")
    return ndarray(host)


def empty(shape: Any, dtype: Any = np.float64) -> ndarray:
    return _poisoned(np.empty(shape, dtype))


def empty_like(like: ndarray, dtype: Any = None, shape: Any = None) -> ndarray:
    return _poisoned(np.empty_like(like._host, dtype=dtype, shape=shape))


def _poisoned(host: np.ndarray) -> ndarray:
    """Fresh memory, full of what is seen when it is used; in a graph it is so anew in each replay."""
    made = ndarray(_poison(host), fresh=True)
    if capturing():
        captured(lambda array: _poison(array._host), made)
    return made


def _poison(host: np.ndarray) -> np.ndarray:
    host[...] = True if host.dtype == np.bool_ else np.frombuffer(POISON * host.itemsize, host.dtype)[0]
    return host


def asnumpy(value: ndarray) -> np.ndarray:
    return value.get()


def as_strided(x: ndarray, shape: Any = None, strides: Any = None) -> ndarray:
    return ndarray(np.lib.stride_tricks.as_strided(x._host, shape, strides))


def module() -> types.ModuleType:
    """What `import cupy` finds while the stand-in is installed."""
    cupy = types.ModuleType("cupy", __doc__)
    for name in FUNCTIONS:
        setattr(cupy, name, _function(name))
    for name in VALUES:
        setattr(cupy, name, getattr(np, name))
    for value in (ndarray, asarray, array, empty, empty_like, asnumpy, RawModule):
        setattr(cupy, value.__name__, value)
    cupy.fft = types.SimpleNamespace(fftn=_transform("fftn"), ifftn=_transform("ifftn"))
    cupy.lib = types.SimpleNamespace(stride_tricks=types.SimpleNamespace(as_strided=as_strided))
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 1)
    cupy.cuda = types.SimpleNamespace(
        runtime=runtime,
        Device=lambda: types.SimpleNamespace(id=NUMBER, compute_capability=CAPABILITY),
        Event=capture.Event,
        Stream=capture.Stream,
        MemoryPool=capture.MemoryPool,
        using_allocator=capture.using_allocator,
        get_current_stream=capture.current_stream,
        set_pinned_memory_allocator=_pinned.append,
    )
    cupy.get_default_memory_pool = capture.MemoryPool
    cupy.get_default_pinned_memory_pool = lambda: types.SimpleNamespace(malloc=_pinned[0])
    return cupy
