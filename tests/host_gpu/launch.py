"""Launches: a kernel runs several times on copies of its arguments, and all runs must agree in every bit.

Each run gives threads and blocks their turns in another order, and lays each array against memory that may not be touched: right
before its end in one run, right after its start in another. What lies between the elements of a strided array, and in shared memory
before a kernel writes there, differs from run to run, so that whoever reads it is seen. Copies that go on while a thread computes are
made when they begin in one run, when they are waited for in the others. Then the results are copied back.

A kernel may take a table of addresses. The arrays that begin there are arguments too, so a table must hold addresses of living arrays.
"""

from __future__ import annotations

import ctypes
import re
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import byte_bounds

from tests.host_gpu import translate
from tests.host_gpu.capture import captured, capturing

GUARD = 1 << 26  # bytes before and after an array that may not be touched
PAGE = 1 << 12
SECONDS = 60  # of the processor's time, for one run
MOST_SHARED = 227 * 1024  # bytes: what a block may ask for on sm_90
MOST_BLOCKS = (2**31 - 1, 65535, 65535)


class Run(NamedTuple):
    order: str
    number: int  # the order's, in runtime.cpp
    at_end: bool  # where the untouchable memory lies
    poison: int  # a byte


RUNS = (
    Run("forwards", 0, True, 0xFF),  # NaN, and −1
    Run("backwards", 1, False, 0x7F),  # 3·10³⁸, and 2139062143
    Run("shuffled", 2, True, 0x81),  # −5·10⁻³⁸
)

ALIVE: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()  # every array on the GPU that is none

_lock = threading.Lock()  # the runtime runs one launch at a time


class KernelError(AssertionError):
    """A kernel did what no kernel may."""


class Three(ctypes.Structure):
    _fields_ = [("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint)]

    def __str__(self) -> str:
        return f"({self.x}, {self.y}, {self.z})"


class Report(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("kind", "line", "other_line", "lane")),
        *((name, Three) for name in ("thread", "block", "other_thread")),
        ("address", ctypes.c_size_t),
        *((name, ctypes.c_char * 64) for name in ("file", "other_file")),
    ]


class Parameter(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("bytes", "is_pointer", "is_list", "is_const", "element_bytes")]


@dataclass
class Region:
    """Memory that one or more arguments look at: bytes `low` to `high`, and the copy that a run works on."""

    low: int
    high: int
    views: list[tuple[str, np.ndarray, bool]]  # name, array, whether the kernel may write there
    reserved: int = 0
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.bytes = (self.high - self.low + 15) // PAGE * PAGE + PAGE  # 15: an alignment to 16 may shift it

    @property
    def writable(self) -> bool:
        return any(writable for _, _, writable in self.views)


def _label(name: str, i: int) -> str:
    """Of an array in a list."""
    return f"{name}[{i}]"


class RawModule:
    """cupy.RawModule on the processor."""

    def __init__(self, *, code: str, options: tuple[str, ...] = (), backend: str = "nvrtc") -> None:
        translate.runtime()
        defines = [o for o in options if o.startswith("-D")]
        self.code, self.names = code, translate.kernels(code)
        self.library = translate.build(translate.translated(code), *defines, *translate.CHECKS)
        # only a kernel that reads several elements at once cares how an array is aligned
        self.vectors = re.search(r"\b(float|double|int|uint)[24]\b|reinterpret_cast|wmma", code) is not None

    def get_function(self, name: str) -> Function:
        if name not in self.names:
            raise KernelError(f"the source has no kernel {name!r}; it has {', '.join(self.names)}.")
        return Function(self, name)


class Function:
    """A kernel, called as CuPy's are: function(grid, block, arguments, shared_mem=bytes)."""

    def __init__(self, module: RawModule, name: str) -> None:
        self.name, self.module, self.names = name, module, module.names[name]
        self.max_dynamic_shared_size_bytes = 48 * 1024
        described = (Parameter * (len(self.names) + 1))()
        assert getattr(module.library, f"about_{name}")(described) == len(self.names)
        self.parameters = list(described)[:-1]
        self.lists = {name for name, p in zip(self.names, self.parameters, strict=True) if p.is_list}
        self.run = ctypes.cast(getattr(module.library, f"run_{name}"), ctypes.c_void_p)
        fixed_bytes = ctypes.c_size_t()
        module.library.host_fixed_shared.restype = ctypes.c_void_p
        self.fixed = ctypes.c_void_p(module.library.host_fixed_shared(ctypes.byref(fixed_bytes))), fixed_bytes

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0) -> None:
        if capturing():
            captured(self._run_all, grid, block, args, shared_mem)
        else:
            self._run_all(grid, block, args, shared_mem)

    def _run_all(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], shared_mem: int) -> None:
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        self._check_sizes(grid, block, shared_mem)
        if len(args) != len(self.names):
            raise KernelError(f"kernel {self.name} has {len(self.names)} parameters, got {len(args)} arguments.")
        regions = self._regions(args)
        results = []
        with _lock:
            for run in RUNS:
                results.append(self._run(run, grid, block, args, regions, shared_mem))
        for run, result in zip(RUNS[1:], results[1:], strict=True):
            for name, first, other in zip(self._written(regions), results[0], result, strict=True):
                self._compare(name, first, other, run)
        outputs = [array for region in regions for _, array, writable in region.views if writable]
        for array, result in zip(outputs, results[0], strict=True):
            array[...] = result

    def _check_sizes(self, grid: tuple[int, ...], block: tuple[int, ...], shared: int) -> None:
        count = block[0] * block[1] * block[2]
        if not 1 <= count <= 1024 or block[2] > 64:
            raise KernelError(f"kernel {self.name}: no GPU has blocks of {block} threads.")
        if any(not 1 <= n <= most for n, most in zip(grid, MOST_BLOCKS, strict=True)):
            raise KernelError(f"kernel {self.name}: no GPU has a grid of {grid} blocks.")
        if shared > min(self.max_dynamic_shared_size_bytes, MOST_SHARED):
            raise KernelError(f"kernel {self.name}: {shared} bytes of shared memory were not asked for, or no GPU has them.")

    def _regions(self, args: tuple[Any, ...]) -> list[Region]:
        """The arguments that are arrays; those that lie over one another share a region."""
        found = []
        for name, p, value in zip(self.names, self.parameters, args, strict=True):
            array = getattr(value, "_host", None)
            if p.is_pointer:
                if value is not None and array is None:
                    raise KernelError(
                        f"kernel {self.name}: {name!r} is a pointer, the argument {type(value).__name__} is no array on the GPU."
                    )
                if array is not None and p.is_list:
                    found.append(self._region(name, array, ctypes.sizeof(ctypes.c_void_p), False))
                    found += [self._region(label, a, p.element_bytes, not p.is_const) for label, a in self._listed(name, array)]
                elif array is not None:
                    found.append(self._region(name, array, p.element_bytes, not p.is_const))
            elif not isinstance(value, np.ndarray | np.generic) or value.size != 1 or value.nbytes != p.bytes:
                raise KernelError(f"kernel {self.name}: {name!r} takes {p.bytes} bytes by value, got {value!r}.")
        merged: list[Region] = []
        for region in sorted(found, key=lambda r: r.low):
            if merged and region.low < merged[-1].high:
                last = merged.pop()
                region = Region(last.low, max(last.high, region.high), last.views + region.views)
            merged.append(region)
        return merged

    def _region(self, name: str, array: np.ndarray, element_bytes: int, writable: bool) -> Region:
        if array.itemsize != element_bytes:
            raise KernelError(f"kernel {self.name}: {name!r} points to {element_bytes} bytes, the array holds {array.dtype}.")
        low, high = byte_bounds(array) if array.size else (array.ctypes.data,) * 2
        return Region(low, high, [(name, array, writable)])

    def _listed(self, name: str, table: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """The arrays whose addresses a table holds. Of several that begin at one address the largest: the others are views of it."""
        largest: dict[int, np.ndarray] = {}
        for array in (a._host for a in ALIVE.values()):
            known = largest.get(array.ctypes.data)
            if known is None or known.nbytes < array.nbytes:
                largest[array.ctypes.data] = array
        found = []
        for i, address in enumerate(table.tolist()):
            if address:
                if address not in largest:
                    raise KernelError(f"kernel {self.name}: {name}[{i}] is the address of no array that is alive.")
                found.append((_label(name, i), largest[address]))
        return found

    def _written(self, regions: list[Region]) -> list[str]:
        return [name for region in regions for name, _, writable in region.views if writable]

    def _run(
        self, run: Run, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], regions: list[Region], shared: int
    ) -> list[np.ndarray]:
        library = translate.runtime()
        copies: dict[str, np.ndarray] = {}
        places, snapshots = [], []
        try:
            for region in regions:
                region.reserved = library.host_reserve(ctypes.c_size_t(region.bytes + 2 * GUARD))
                assert region.reserved, "no room in the address space"
                base = ctypes.c_void_p(region.reserved + GUARD)
                library.host_open(base, ctypes.c_size_t(region.bytes), 1)
                memory = np.frombuffer((ctypes.c_ubyte * region.bytes).from_address(base.value), np.uint8)
                memory[:] = run.poison
                start = self._start(run, region)
                for name, array, _ in region.views:
                    offset = start + array.ctypes.data - region.low
                    copies[name] = np.ndarray(array.shape, array.dtype, memory, offset, array.strides)
                places.append((region, memory, start))
            for region, memory, start in places:
                for name, array, _ in region.views:
                    copies[name][...] = self._content(name, array, copies)
                if region.writable:
                    snapshots.append((region, memory, memory.copy(), start))
                else:
                    library.host_open(ctypes.c_void_p(region.reserved + GUARD), ctypes.c_size_t(region.bytes), 0)
            self._launch(run, grid, block, args, copies, regions, shared)
            results = [np.ascontiguousarray(copies[name]).copy() for name in self._written(regions)]
            for region, memory, snapshot, start in snapshots:
                self._check_gaps(region, memory, snapshot, start, copies)
            return results
        finally:
            copies.clear()  # pytest shows the arguments of whoever raised, and these arrays' memory goes
            for region in regions:
                if region.reserved:
                    library.host_release(ctypes.c_void_p(region.reserved), ctypes.c_size_t(region.bytes + 2 * GUARD))
                    region.reserved = 0

    def _content(self, name: str, array: np.ndarray, copies: dict[str, np.ndarray]) -> np.ndarray:
        """What a copy of an argument holds: the same, but of a table of addresses those of the copies."""
        if name not in self.lists:
            return array
        return np.array([copies[_label(name, i)].ctypes.data if address else 0 for i, address in enumerate(array.tolist())], array.dtype)

    def _start(self, run: Run, region: Region) -> int:
        """Where in the open memory the region begins: as near to its end, or to its start, as the alignment allows."""
        aligned = region.low % 16 if self.module.vectors else 0
        if not run.at_end:
            return aligned
        start = region.bytes - (region.high - region.low)
        return start - (start - aligned) % 16 if self.module.vectors else start

    def _launch(
        self,
        run: Run,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        copies: dict[str, np.ndarray],
        regions: list[Region],
        shared: int,
    ) -> None:
        values, kept = (ctypes.c_void_p * len(args))(), []
        for i, (name, p, value) in enumerate(zip(self.names, self.parameters, args, strict=True)):
            if p.is_pointer:
                value = np.array(copies[name].ctypes.data if name in copies else 0, np.uintp)
            value = np.require(value, requirements="C")
            kept.append(value)
            values[i] = value.ctypes.data
        report = Report()
        kind = translate.runtime().host_launch(
            self.run, values, ctypes.byref(Three(*grid)), ctypes.byref(Three(*block)), *self.fixed, ctypes.c_size_t(shared),
            run.poison, run.number, SECONDS, ctypes.byref(report),
        )  # fmt: skip
        if kind:
            raise KernelError(self._sentence(report, regions, copies))

    def _sentence(self, report: Report, regions: list[Region], copies: dict[str, np.ndarray]) -> str:
        where = f"kernel {self.name}, block {report.block}, thread {report.thread}"
        line = f"{report.file.decode()}:{report.line}"
        other = f"thread {report.other_thread} " + (
            f"is at {report.other_file.decode()}:{report.other_line}" if report.other_line else "has ended"
        )
        return {
            1: f"{where} {self._touched(report.address, regions, copies)}.",
            2: f"{where}: an index lies outside its array, an integer overflowed or was divided by zero, or an address is not a multiple "
            "of the size of what is read or written there.",
            3: f"{where}: an integer is divided by zero.",
            4: f"{where}: no end after {SECONDS} seconds.",
            5: f"{where} waits at the barrier {line}, which not all threads of the block reach: {other}.",
            6: f"{where} waits at the barrier {line}, others of its block at another: {other}.",
            7: f"{where} waits at {line} for lanes of its warp that do not come: {other}.",
            8: f"{where} at {line}: the lane is not in its own mask.",
            9: f"{where} at {line}: it reads from lane {report.lane}, which takes no part.",
            10: f"{where} copies or loads 16 bytes at once, and an address is not a multiple of 16.",
        }[report.kind]

    def _touched(self, address: int, regions: list[Region], copies: dict[str, np.ndarray]) -> str:
        for region in regions:
            if region.reserved <= address < region.reserved + region.bytes + 2 * GUARD:
                names = " and ".join(repr(name) for name, _, _ in region.views)
                low, high = byte_bounds(copies[region.views[0][0]]) if len(region.views) == 1 else (region.reserved + GUARD,) * 2
                size = region.views[0][1].itemsize
                if len(region.views) > 1:
                    return f"touches memory outside the arguments {names}"
                if low <= address < high:
                    return f"writes into the argument {names}, which is const"
                far = f"{(low - address + size - 1) // size} elements before the first" if address < low else (
                    f"{(address - high) // size + 1} elements after the last"
                )  # fmt: skip
                return f"touches memory outside the argument {names}, {far}"
        return "uses a null pointer" if address < 1 << 16 else "touches memory that belongs to no argument"

    def _check_gaps(self, region: Region, memory: np.ndarray, snapshot: np.ndarray, start: int, copies: dict[str, np.ndarray]) -> None:
        """Nothing but elements of the arguments that may be written has changed."""
        for name, _, writable in region.views:
            if writable:
                place = copies[name]
                offset = place.ctypes.data - memory.ctypes.data
                np.ndarray(place.shape, place.dtype, snapshot, offset, place.strides)[...] = place
        if not np.array_equal(memory, snapshot):
            at = int(np.flatnonzero(memory != snapshot)[0]) - start
            names = " and ".join(repr(name) for name, _, _ in region.views)
            raise KernelError(f"kernel {self.name} writes between or beside the elements of {names}, {at} bytes from the first.")

    def _compare(self, name: str, first: np.ndarray, other: np.ndarray, run: Run) -> None:
        bits = f"u{first.itemsize}"
        differ = np.flatnonzero(first.reshape(-1).view(bits) != other.reshape(-1).view(bits))
        if len(differ):
            at = tuple(map(int, np.unravel_index(differ[0], first.shape)))
            raise KernelError(
                f"kernel {self.name}: {len(differ)} of {first.size} elements of {name!r} depend on the order of the threads or on memory "
                f"that is not theirs: the one at {at} is {first[at]!s} with threads {RUNS[0].order}, {other[at]!s} {run.order}."
            )
