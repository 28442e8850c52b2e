"""CUDA kernels: loads a `.cu` file that lies beside an operation, checks every argument, launches.

    CONV = cuda.Source(__file__, "conv.cu")
    CONV.kernel("conv_forward", x.dtype)(blocks_for(y.size, 256), 256, x, w, b, y, geometry, y.size)

CuPy hands a kernel whatever bytes it is given: a float64 array where the kernel reads float32, or two arguments in the wrong order,
are not noticed. So the signature is read from the source, and each argument is held against its parameter:

    const STORED* x             an array on the GPU, of that dtype, C-contiguous; None becomes a null pointer
    … followed by Steps<5> x_steps     then x may have any strides, on 5 axes; the steps are filled in from the array, not passed
    REAL* const* x              a list of such arrays, each without gaps in memory, its axes in any order; None becomes a null pointer
    int n, long long n, float a, …     a Python number, converted to exactly that type; an int that does not fit raises
    bool relu                          True or False
    Window window                      a struct of the source, as a dict of its members; an array member is a tuple

A file is compiled when one of its kernels is first launched, once for each dtype of images. It calls that STORED, and REAL what it
computes in: the same, or float where images have 16 bits (stored.cuh). CuPy keeps the result on disk. A line `#include "cuda.cuh"` is
replaced by that file, so that CuPy sees when it changes. The table of addresses that a list becomes lies on the GPU. It serves as long as
its arrays stay where they are, and is kept until a kernel has gathered 4096 packed values: then all of them go.

Where a file has code for the tensor cores (it includes tensor_cores.cuh), `precision()` says how float32 numbers are multiplied.
`graph()` makes one launch of many: cuda_graph.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from minunet.arrays import as_dtype, axes_in_memory, cupy_module, device_of
from minunet.cuda_graph import CaptureError, Graph, Later, capturing, graph, held, on_gpu, varying

__all__ = [
    "CaptureError",
    "Graph",
    "Kernel",
    "Later",
    "Source",
    "blocks_for",
    "capturing",
    "current_gpu",
    "current_precision",
    "graph",
    "held",
    "on_gpu",
    "precision",
    "varying",
]

Size = int | tuple[int, ...]  # along x, y and z; what is left out is 1

REALS = {"float32": "float", "float64": "double", "float16": "float", "bfloat16": "float"}  # what images of a dtype are computed in
PRECISIONS = ("float32", "tf32")
_DEFINED = {"float16": "FP16", "bfloat16": "BF16", "tf32": "TF32"}
_FIRST = {"float16": 75, "bfloat16": 80, "tf32": 80}  # compute capability, times ten, of the first GPUs that have it
OPTIONS = ("-std=c++17",)

MOST_BLOCKS = (2**31 - 1, 65535, 65535)
MOST_THREADS = 1024  # of a block
MOST_PACKED = 4096  # values that a kernel keeps

_SCALARS = {
    "bool": np.bool_,
    "signed char": np.int8,
    "unsigned char": np.uint8,
    "short": np.int16,
    "unsigned short": np.uint16,
    "int": np.int32,
    "unsigned": np.uint32,
    "unsigned int": np.uint32,
    "long long": np.int64,
    "unsigned long long": np.uint64,
    "float": np.float32,
    "double": np.float64,
}

_INCLUDE = re.compile(r'^#include "([\w.]+)"[^\n]*$', re.MULTILINE)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)')
_STRUCT = re.compile(r"^struct (\w+)\s*\{(.*?)\};", re.MULTILINE | re.DOTALL)
_STEPS = re.compile(r"Steps<(\d)>")


_precision: ContextVar[str] = ContextVar("precision", default="float32")


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Within the block, how convolutions on the GPU multiply float32 arrays.

    | name | each factor is rounded to | relative error of a product, about, at most |
    |---|---|---|
    | `"float32"` | nothing: the ordinary units multiply | 2⁻²⁴ |
    | `"tf32"` | 10 bits behind the point, on the tensor cores | 2⁻¹⁰ |

    Sums and arrays stay float32. What counts is the setting when a kernel is launched: `backward()` outside the block multiplies in
    float32. Other dtypes and grouped convolutions are not touched by it: images of 16 bits go to the tensor cores anyway.
    Raises ValueError for another name. A kernel raises RuntimeError on a GPU older than Ampere, which has no TF32.
    """
    if name not in PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}; got {name!r}.")
    token = _precision.set(name)
    try:
        yield
    finally:
        _precision.reset(token)


def current_precision() -> str:
    """How convolutions multiply float32 arrays just here."""
    return _precision.get()


def blocks_for(n: int, size: int) -> int:
    """How many blocks of `size` cover n threads."""
    return -(-n // size)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel. kind: 'array', 'steps', 'list', 'struct' or 'scalar'. dtype: of the elements, or of the value."""

    name: str
    kind: str
    dtype: np.dtype[Any]
    axes: int | None = None  # of an array whose steps follow it

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Source:
    """A `.cu` file. file: the Python file beside it (`__file__`)."""

    def __init__(self, file: str, name: str) -> None:
        self.path = Path(file).with_name(name)

    def kernel(self, name: str, dtype: Any) -> Kernel:
        """The kernel for the current GPU, compiled for images of `dtype`, and for the precision that is set where it multiplies float32."""
        stored = np.dtype(dtype).name
        precision = _precision.get() if stored == "float32" and has_tensor_cores(self.path) else "float32"
        return _kernel(self.path, name, stored, precision, current_gpu())


class Kernel:
    """One kernel for one element type on one GPU: `kernel(grid, block, *arguments, shared=bytes)` launches it."""

    def __init__(self, name: str, parameters: list[Parameter]) -> None:
        self.name, self.parameters = name, parameters
        self.passed = [p for p in parameters if p.kind != "steps"]
        self.function: Any = None
        self._packed: dict[Any, Any] = {}  # a training step launches with the same numbers again and again

    def __call__(self, grid: Size, block: Size, *arguments: Any, shared: int = 0) -> None:
        """grid: blocks, block: threads of one, each an int or a tuple. A grid of no blocks launches nothing."""
        blocks, threads = self._sizes(grid, "grid"), self._sizes(block, "block")
        if len(arguments) != len(self.passed):
            listed = ", ".join(map(str, self.passed))
            raise TypeError(f"kernel {self.name} takes {len(self.passed)} arguments ({listed}), got {len(arguments)}.")
        values: list[Any] = []
        given = iter(arguments)
        for p in self.parameters:
            if p.kind == "array":
                array = next(given)
                values.append(self._array(p, array))
            elif p.kind == "steps":  # of the array just before
                values.append(self._steps(p, array))
            elif p.kind == "list":
                values.append(self._addresses(p, next(given)))
            else:
                values.append(self._value(p, next(given)))
        if not all(blocks):
            return
        if any(n > most for n, most in zip(blocks, MOST_BLOCKS, strict=True)):
            raise ValueError(f"kernel {self.name}: a grid has at most {MOST_BLOCKS} blocks along x, y, z; got {blocks}.")
        count = threads[0] * threads[1] * threads[2]
        if not 1 <= count <= MOST_THREADS or threads[2] > 64:
            raise ValueError(f"kernel {self.name}: a block has 1 to {MOST_THREADS} threads, at most 64 along z; got {threads}.")
        if shared:  # beside what it has of its own that may be more than a kernel gets without asking
            self.function.max_dynamic_shared_size_bytes = shared
        self.function(blocks, threads, tuple(values), shared_mem=shared)

    def _sizes(self, size: Size, what: str) -> tuple[int, int, int]:
        sizes = size if isinstance(size, tuple) else (size,)
        if not 1 <= len(sizes) <= 3 or min(sizes) < 0:
            raise ValueError(f"kernel {self.name}: {what} is one to three numbers that are not negative, got {size!r}.")
        x, y, z = (*map(int, sizes), 1, 1)[:3]
        return x, y, z

    def _array(self, p: Parameter, array: Any) -> Any:
        if array is None:
            return None
        self._check_elements(p.name, p.dtype, array)
        if p.axes is None and not array.flags.c_contiguous:
            raise ValueError(
                f"kernel {self.name}: argument {p.name!r} must be C-contiguous, got shape {array.shape} with strides {array.strides}."
            )
        if p.axes is not None and array.ndim != p.axes:
            raise ValueError(f"kernel {self.name}: argument {p.name!r} must have {p.axes} axes, got {array.ndim}: {array.shape}.")
        return array

    def _check_elements(self, label: str, dtype: np.dtype[Any], array: Any) -> None:
        if not hasattr(array, "dtype") or device_of(array) != "cuda":
            raise TypeError(f"kernel {self.name}: argument {label!r} must be an array on the GPU, got {type(array).__name__}.")
        if array.dtype != dtype:
            raise TypeError(f"kernel {self.name}: argument {label!r} must hold {dtype}, got {array.dtype}.")

    def _addresses(self, p: Parameter, arrays: Any) -> Any:
        """Where the arrays of a list begin, as an array on the GPU."""
        if not isinstance(arrays, list):
            raise TypeError(f"kernel {self.name}: argument {p.name!r} is a list of arrays, got {type(arrays).__name__}.")
        for i, array in enumerate(arrays):
            if array is not None:
                label = f"{p.name}[{i}]"
                self._check_elements(label, p.dtype, array)
                if axes_in_memory(array) is None:
                    raise ValueError(
                        f"kernel {self.name}: argument {label!r} must lie in memory without gaps, "
                        f"got shape {array.shape} with strides {array.strides}."
                    )
        addresses = tuple(0 if array is None else array.data.ptr for array in arrays)
        if capturing():
            return on_gpu(np.array(addresses, np.uint64))
        return self._kept((p.name, addresses), lambda: on_gpu(np.array(addresses, np.uint64)))

    def _steps(self, p: Parameter, array: Any) -> Any:
        if array is None:
            return np.zeros((), p.dtype)
        return self._kept((p.name, array.strides), lambda: self._pack_steps(p, array))

    def _pack_steps(self, p: Parameter, array: Any) -> np.ndarray[Any, Any]:
        size, steps = array.dtype.itemsize, np.zeros((), p.dtype)
        if any(s % size for s in array.strides):
            raise ValueError(f"kernel {self.name}: {p.name} are to be whole elements of {size} bytes, got the strides {array.strides}.")
        steps["step"] = [s // size for s in array.strides]
        return steps

    def _value(self, p: Parameter, given: Any) -> np.ndarray[Any, Any]:
        """The value as an array of one element: CuPy passes such by value."""
        if p.kind == "scalar":
            return np.array(self._number(p.name, given, p.dtype), p.dtype)
        if not isinstance(given, Mapping) or set(given) != set(p.dtype.names or ()):
            raise TypeError(
                f"kernel {self.name}: argument {p.name!r} is a dict with the keys {', '.join(p.dtype.names or ())}; got {given!r}."
            )
        kinds = tuple(map(type, given.values()))  # True == 1 == 1.0, and not all of them fit
        return self._kept((p.name, *given.items(), kinds), lambda: self._pack_struct(p, given))

    def _pack_struct(self, p: Parameter, given: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        struct = np.zeros((), p.dtype)
        for name, value in given.items():
            member, label = p.dtype[name], f"{p.name}.{name}"
            if not member.shape:
                struct[name] = self._number(label, value, member)
            elif isinstance(value, tuple) and len(value) == member.shape[0]:
                struct[name] = [self._number(label, v, member.base) for v in value]
            else:
                raise TypeError(f"kernel {self.name}: {label!r} is a tuple of {member.shape[0]} numbers, got {value!r}.")
        return struct

    def _kept(self, key: Any, pack: Callable[[], Any]) -> Any:
        try:
            packed = self._packed.get(key)
        except TypeError:  # a list among the values: packing it says what is wrong
            return pack()
        if packed is None:
            if len(self._packed) >= MOST_PACKED:
                self._packed.clear()
            packed = self._packed[key] = pack()
        return packed

    def _number(self, label: str, given: Any, dtype: np.dtype[Any]) -> Any:
        kind = {"b": (bool, np.bool_), "f": (int, float, np.integer, np.floating)}.get(dtype.kind, (int, np.integer))
        if not isinstance(given, kind) or (isinstance(given, bool) and dtype.kind != "b"):
            raise TypeError(f"kernel {self.name}: argument {label!r} must be a number fit for {dtype}, got {given!r}.")
        if dtype.kind in "iu" and not np.iinfo(dtype).min <= given <= np.iinfo(dtype).max:
            raise ValueError(f"kernel {self.name}: argument {label!r} does not fit {dtype}: {given}.")
        return given


@cache
def read(path: Path) -> str:
    """The source with what it includes from beside it or from here. A `#line` keeps the compiler's messages true."""

    def included(match: re.Match[str]) -> str:
        places = [folder / match[1] for folder in (path.parent, Path(__file__).parent)]
        found = next((place for place in places if place.exists()), None)
        if found is None:
            raise FileNotFoundError(f"{path} includes {match[1]}, which is neither beside it nor in {places[1].parent}.")
        line = text.count("\n", 0, match.start()) + 2
        return f'#line 1 "{found.name}"\n{read(found)}\n#line {line} "{path.name}"'

    text = path.read_text(encoding="utf-8")
    return f'#line 1 "{path.name}"\n{_INCLUDE.sub(included, text)}'


@cache
def has_tensor_cores(path: Path) -> bool:
    """Whether a file has code for them."""
    return '"tensor_cores.cuh"' in read(path)


@cache
def signatures(path: Path, stored: str) -> dict[str, list[Parameter]]:
    """The parameters of each kernel of a file, read from its source. stored: the name of STORED's dtype."""
    scalars = {name: np.dtype(kind) for name, kind in _SCALARS.items()}
    scalars |= {"STORED": as_dtype(stored), "REAL": scalars[REALS[stored]]}
    source = _COMMENT.sub(" ", read(path))
    structs = {name: _struct(name, body, scalars) for name, body in _STRUCT.findall(source)}
    found = {name: _parameters(name, text, scalars, structs) for name, text in _KERNEL.findall(source)}
    if not found or len(found) != source.count("__global__"):
        raise ValueError(f'{path.name}: not every kernel begins with `extern "C" __global__ void name(`.')
    return found


def _struct(name: str, body: str, scalars: dict[str, np.dtype[Any]]) -> np.dtype[Any] | None:
    """`int n, kernel[3];` → the dtype with C's layout; None for a struct with anything else in it, which no kernel takes then."""
    members: list[tuple[Any, ...]] = []
    for line in filter(None, map(str.strip, body.split(";"))):
        match = re.fullmatch(r"((?:unsigned |long )*\w+) (\w+(?:\[\d+\])?(?:\s*,\s*\w+(?:\[\d+\])?)*)", line)
        if match is None or match[1] not in scalars:
            return None
        for member in re.split(r"\s*,\s*", match[2]):
            label, _, length = member.rstrip("]").partition("[")
            members.append((label, scalars[match[1]], (int(length),)) if length else (label, scalars[match[1]]))
    return np.dtype(members, align=True)


def _parameters(kernel: str, text: str, scalars: dict[str, np.dtype[Any]], structs: dict[str, np.dtype[Any] | None]) -> list[Parameter]:
    parameters: list[Parameter] = []
    for declaration in filter(None, map(str.strip, text.split(","))):
        words = re.sub(r"\b(const|__restrict__)\b", " ", declaration).replace("*", " * ").split()
        name, kind = words[-1], " ".join(words[:-1])
        element, struct = kind.removesuffix(" *"), structs.get(kind)
        if steps := _STEPS.fullmatch(kind):
            axes = int(steps[1])
            before = parameters.pop() if parameters else None
            if before is None or before.kind != "array" or name != f"{before.name}_steps":
                raise ValueError(f"kernel {kernel}: {declaration!r} must follow the array whose steps it holds and be called NAME_steps.")
            parameters.append(Parameter(before.name, "array", before.dtype, axes))
            parameters.append(Parameter(name, "steps", np.dtype([("step", np.int64, (axes,))])))
        elif element != kind and element in scalars:
            parameters.append(Parameter(name, "array", scalars[element]))
        elif kind.endswith(" * *") and kind[:-4] in scalars:
            parameters.append(Parameter(name, "list", scalars[kind[:-4]]))
        elif kind in scalars:
            parameters.append(Parameter(name, "scalar", scalars[kind]))
        elif struct is not None:
            parameters.append(Parameter(name, "struct", struct))
        else:
            raise ValueError(f"kernel {kernel}: the type of the parameter {declaration!r} is not known to minunet/cuda.py.")
    return parameters


def options(stored: str, precision: str = "float32") -> tuple[str, ...]:
    """What the compiler is told."""
    return (*OPTIONS, f"-DREAL={REALS[stored]}", *(f"-D{_DEFINED[name]}" for name in (stored, precision) if name in _DEFINED))


def first_generation(stored: str, precision: str = "float32") -> int:
    """The compute capability, times ten, of the first GPUs that have both."""
    return max(_FIRST.get(name, 0) for name in (stored, precision))


def current_gpu() -> int:
    """Its number. What is compiled, checked and kept for one GPU is of no use to another."""
    return int(cupy_module().cuda.Device().id)


@cache
def _kernel(path: Path, name: str, stored: str, precision: str, gpu: int) -> Kernel:
    if stored not in REALS:
        raise TypeError(f"{path.name}: kernels are compiled for {', '.join(REALS)}, not for {stored}.")
    known = signatures(path, stored)
    if name not in known:
        raise AttributeError(f"{path.name} has no kernel {name!r}; it has {', '.join(known)}.")
    kernel = Kernel(name, known[name])
    kernel.function = _module(path, stored, precision, gpu).get_function(name)
    return kernel


@cache
def _module(path: Path, stored: str, precision: str, gpu: int) -> Any:
    cupy = cupy_module()
    first, capability = first_generation(stored, precision), int(cupy.cuda.Device().compute_capability)
    if capability < first:
        lacking = precision if precision in _FIRST else stored
        raise RuntimeError(
            f"{lacking} needs a GPU of compute capability {first / 10} or later, this one has {capability / 10}. "
            "Use float32, or images of float16."
        )
    return cupy.RawModule(code=read(path), options=options(stored, precision))


def forget() -> None:
    """Drops what was compiled and read."""
    for kept in (read, has_tensor_cores, signatures, _kernel, _module):
        kept.cache_clear()
