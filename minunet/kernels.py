"""Which code computes: `ref` (the definition), `cpu` (Numba) or `gpu` (CUDA).

A heavy operation is a folder with `ref.py` and, where they exist, `cpu.py` and `gpu.py`. It declares its kernels once,

    K = Kernels(__name__, "forward", "grad_x")

and calls `K.forward(x, …)`. The arrays decide: NumPy arrays go to `cpu`, CuPy arrays to `gpu`, and to `ref` where the
faster set does not have the kernel. `use("ref")` forces one set, and then a missing kernel is an error. `which` tells what ran and why.

Numba compiles a kernel when it is first called on a machine and keeps the result on disk. The logger "minunet" tells of it, at INFO.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from minunet.arrays import array_module, arrays_among, is_float

_SETS = ("ref", "cpu", "gpu", "auto")
_DTYPES = {"cpu": {"f": "float32", "d": "float64"}}  # NumPy's letter and name
_DTYPES["gpu"] = _DTYPES["cpu"] | {"e": "float16", "E": "bfloat16"}

RESTING_THREADS = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"}  # see `_let_threads_rest`

_log = logging.getLogger("minunet")

_forced: ContextVar[str] = ContextVar("kernel_set", default="auto")
_record: ContextVar[list[Choice] | None] = ContextVar("kernel_record", default=None)


@dataclass(frozen=True)
class Choice:
    """One kernel call: which kernel, which set served it, and why."""

    kernel: str
    served_by: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kernel}: {self.served_by} ({self.reason})"


class Kernels:
    """The kernels of one operation folder, each an attribute that dispatches by the arrays it is given."""

    def __init__(self, package: str, *names: str) -> None:
        self._package = package
        for name in names:
            setattr(self, name, self._dispatcher(name))

    def __getattr__(self, name: str) -> Callable[..., Any]:  # reached only for undeclared names
        raise AttributeError(f"{self._package} declares no kernel {name!r}.")

    def _dispatcher(self, name: str) -> Callable[..., Any]:
        label = f"{self._package.rsplit('.', 1)[-1]}.{name}"

        def call(*args: Any, **options: Any) -> Any:
            chosen, reason = self._choose(name, label, args)
            record = _record.get()
            if record is not None:
                record.append(Choice(label, chosen, reason))
            return getattr(_kernel_module(self._package, chosen), name)(*args, **options)

        return call

    def _choose(self, name: str, label: str, args: tuple[Any, ...]) -> tuple[str, str]:
        arrays = arrays_among([a[0] if type(a) is list and a else a for a in args])  # a list holds arrays of one kind
        fast = "gpu" if array_module(*arrays) is not np else "cpu"
        forced = _forced.get()
        if forced != "auto":
            if not hasattr(_kernel_module(self._package, forced), name):
                raise NotImplementedError(f"{label} has no {forced!r} kernel. Use mu.use('auto') or mu.use('ref').")
            if forced not in ("ref", fast):
                place = "on the GPU" if forced == "gpu" else "on the processor"
                raise TypeError(f"{label}: use({forced!r}) needs arrays {place}. Move them with .to(device), or use 'auto' or 'ref'.")
            return forced, f"asked for by use({forced!r})"
        for a in arrays:
            if a.dtype.char not in _DTYPES[fast] and is_float(a):
                return "ref", f"the {fast} kernels take {', '.join(_DTYPES[fast].values())}, not {a.dtype}"
        if fast == "cpu" and not _has_numba():
            return "ref", "Numba is not installed"
        if not hasattr(_kernel_module(self._package, fast), name):
            return "ref", f"there is no {fast} kernel"
        return fast, "NumPy arrays" if fast == "cpu" else "CuPy arrays"


@cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


@cache
def _kernel_module(package: str, kernel_set: str) -> ModuleType | None:
    module = f"{package}.{kernel_set}"
    if importlib.util.find_spec(module) is None:
        return None
    if kernel_set != "cpu":
        return importlib.import_module(module)
    _let_threads_rest()
    _listen_to_numba()
    write_in_turn()
    try:
        return importlib.import_module(module)
    except RuntimeError as problem:
        if "no locator available" not in str(problem):
            raise
        raise RuntimeError(
            f"Numba finds no folder where it may keep compiled kernels: {Path(__file__).parent} and the user's cache cannot be "
            "written. Set NUMBA_CACHE_DIR to a folder that can."
        ) from None


def _let_threads_rest() -> None:
    """How long an idle thread of GNU OpenMP waits for work before it sleeps; read once, when Numba first starts its threads.

    One that sleeps takes 60 µs to wake, and a training step has a hundred parallel loops. One that waits for long takes the core from
    whoever else wants it, and beside a busy process each loop then loses milliseconds. So: wait for a tenth of a millisecond.
    """
    for name, value in RESTING_THREADS.items():
        os.environ.setdefault(name, value)


class _Compilation:
    """Hears from Numba when it compiles; of a kernel that comes from the disk it hears nothing."""

    def __init__(self) -> None:
        self.announced, self.kernels, self.seconds = False, 0, 0.0
        self.at_first: Callable[[], None] | None = None  # see `when_compiling`
        self._outer: list[Any] = []  # the kernel under way, and the functions compiled within it
        self._began = 0.0

    def notify(self, event: Any) -> None:
        if event.is_start:
            self._outer.append(event.data["dispatcher"])
            if len(self._outer) == 1:
                self._began = time.perf_counter()
                if not self._is_ours():
                    return
                if not self.announced:
                    self.announced = True
                    _log.info("Compiling kernels for this processor (once; kept in %s) …", _cache_root(self._outer[0]))
                call, self.at_first = self.at_first, None
                if call is not None:
                    call()
        else:
            if len(self._outer) == 1 and self._is_ours():
                self.kernels += 1
                self.seconds += time.perf_counter() - self._began
            self._outer.pop()

    def _is_ours(self) -> bool:
        return self._outer[0].py_func.__module__.startswith("minunet.")


_compilation = _Compilation()


@cache
def _listen_to_numba() -> None:
    from numba.core import event  # noqa: PLC0415  keeps `import minunet` light

    event.Listener.register(_Compilation)
    event.register("numba:compile", _compilation)


@contextmanager
def when_compiling(call: Callable[[], None] | None) -> Iterator[None]:
    """Within the block, `call` is called when Numba begins to compile the first of our kernels, if it compiles one."""
    if _has_numba():
        _listen_to_numba()
    _compilation.at_first = call
    try:
        yield
    finally:
        _compilation.at_first = None


@cache
def write_in_turn() -> bool:
    """Lets one process at a time write into a folder of Numba's cache.

    Numba numbers the files there and keeps a list of what is in which. Two processes that compile at the same time would take one number
    for two kernels, and a later process could run the one in place of the other. Where there is no `fcntl` (Windows), all is as it was,
    and the answer is False.
    """
    if not _has_numba() or importlib.util.find_spec("fcntl") is None:
        return False
    import fcntl  # noqa: PLC0415

    from numba.core.caching import IndexDataCacheFile  # noqa: PLC0415  keeps `import minunet` light

    save = IndexDataCacheFile.save

    def save_in_turn(self: Any, key: Any, data: Any) -> None:
        with open(Path(self._cache_path, "writing.lock"), "w", encoding="utf-8") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # until the file is closed
            save(self, key, data)

    IndexDataCacheFile.save = save_in_turn
    return True


def _cache_root(dispatcher: Any) -> Path:
    """The folder above those where Numba keeps the kernels of each module."""
    folder, package = Path(dispatcher.stats.cache_path), Path(__file__).parent
    return package if package in folder.parents else folder.parent


def log_compiled() -> None:
    """Logs how long it took, if kernels were compiled since the last call."""
    if _compilation.kernels:
        _log.info("Compiled %d kernels in %.0f s.", _compilation.kernels, _compilation.seconds)
        _compilation.kernels, _compilation.seconds = 0, 0.0


@contextmanager
def use(kernel_set: str) -> Iterator[None]:
    """Within the block every heavy operation runs on `kernel_set`: 'ref', 'cpu', 'gpu', or 'auto' (by the arrays)."""
    if kernel_set not in _SETS:
        raise ValueError(f"kernel set is one of {', '.join(_SETS)}; got {kernel_set!r}.")
    token = _forced.set(kernel_set)
    try:
        yield
    finally:
        _forced.reset(token)


@contextmanager
def recording() -> Iterator[list[Choice]]:
    """Collects the `Choice` of every kernel call within the block."""
    choices: list[Choice] = []
    token = _record.set(choices)
    try:
        yield choices
    finally:
        _record.reset(token)
