"""CUDA sources as shared libraries for the processor, made by g++ and kept on disk under the hash of all that goes in."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
COMPILER = os.environ.get("CXX", "g++")
FLAGS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-fno-strict-aliasing", "-ffp-contract=off", "-U_FORTIFY_SOURCE")
# an index out of an array in shared memory or in a thread's own, arithmetic without a meaning, and an address that is no multiple of what
# is read there, end the launch
CHECKS = ("-fsanitize=bounds-strict,alignment,signed-integer-overflow,integer-divide-by-zero", "-fsanitize-undefined-trap-on-error")
GLOBAL = ("-O2",)  # for the library whose functions the others find by name

_DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([\w ]+?)\s+(\w+)\[\];")
_SYSTEM = re.compile(r"^#include <[^\n]*$", re.MULTILINE)
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)')
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def kernels(source: str) -> dict[str, list[str]]:
    """The kernels of a source, and the names of their parameters, for messages."""
    bare = _COMMENT.sub(" ", source)
    return {name: [p.split()[-1].lstrip("*&") for p in text.split(",") if p.strip()] for name, text in _KERNEL.findall(bare)}


def translated(source: str) -> str:
    """C++ that g++ takes: the source in an unnamed namespace, and for each kernel a function that calls it."""
    body = _DYNAMIC.sub(r"\1* const \2 = reinterpret_cast<\1*>(host_dynamic_shared);", source)
    body = _SYSTEM.sub("", body)  # CUDA's own headers: device.h stands for them
    ends = [f"void run_{name}(void** values) {{ host::call({name}, values); }}" for name in kernels(source)]
    ends += [f"int about_{name}(HostParameter* out) {{ return host::about({name}, out); }}" for name in kernels(source)]
    shared = "char* host_fixed_shared(size_t* bytes) { *bytes = __stop_host_shared - __start_host_shared; return __start_host_shared; }"
    return "\n".join(['#include "device.h"', "namespace {", body, "}", 'extern "C" {', *ends, shared, "}", ""])


class CompileError(AssertionError):
    """g++ does not take the source."""


def build(code: str, *options: str) -> ctypes.CDLL:
    """The code compiled and loaded."""
    _need_compiler()
    return _load(code, (*FLAGS, *options))


@cache
def runtime() -> ctypes.CDLL:
    """runtime.cpp; kernels find its functions by name."""
    library = build((HERE / "runtime.cpp").read_text(encoding="utf-8"), *GLOBAL)
    library.host_reserve.restype = ctypes.c_void_p
    return library


def _need_compiler() -> None:
    from tests.conftest import missing  # which imports this package

    if sys.platform != "linux" or shutil.which(COMPILER) is None:
        missing(f"the GPU's code runs on the processor only on Linux, and with {COMPILER}")


@cache
def _load(code: str, options: tuple[str, ...]) -> ctypes.CDLL:
    parts = [code, (HERE / "device.h").read_text(encoding="utf-8"), _version(), *options]
    path = _folder() / (hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32] + ".so")
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as room:  # another process may be compiling the same
            source, result = Path(room, "source.cpp"), Path(room, "result.so")
            source.write_text(code, encoding="utf-8")
            ran = subprocess.run([COMPILER, *options, f"-I{HERE}", "-o", result, source], capture_output=True, text=True, check=False)
            if ran.returncode:
                raise CompileError(f"{COMPILER} does not compile the CUDA source:\n{ran.stderr[:4000]}")
            result.replace(path)
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL if options[-len(GLOBAL) :] == GLOBAL else ctypes.RTLD_LOCAL)


@cache
def _version() -> str:
    return subprocess.run([COMPILER, "--version"], capture_output=True, text=True, check=True).stdout


@cache
def _folder() -> Path:
    folder = Path(tempfile.gettempdir(), f"minunet-host-gpu-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to someone else.")
    return folder
