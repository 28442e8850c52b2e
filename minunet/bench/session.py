"""What `minunet bench` does. It measures nothing itself: how many threads a library uses, and for which processor it compiles, is settled
when it loads, so each number of threads gets a process of its own. All that is compared is compared within one of them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minunet
from minunet.bench.measure import cores, in_threads
from minunet.kernels import RESTING_THREADS

Row = dict[str, Any]

BENCHMARKS = {
    "ops": "every operation of a UNet, forward and backward",
    "unet": "training and prediction with UNets of several sizes, and the memory of a step",
    "models": "the same for other networks",
    "accuracy": "errors of float32 convolutions against float64",
}

_AVX2 = {  # PyTorch's operators, oneDNN, OpenBLAS and Numba, each by its own name for it
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+64bit,+cmov,+cx8,+fxsr,+mmx,+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+sahf,+avx,+avx2,+fma,+f16c,"
    "+bmi,+bmi2,+lzcnt,+movbe,+xsave,+xsaveopt",
}
LABELS = ("operation", "network", "shape", "direction", "mode")  # of a row, whichever it has
COUNTS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Request:
    """What is asked of the measuring processes.

    threads: how many, one process each. only: rows whose text holds this. avx2: both sides as on a processor without AVX-512.
    rivals: also torch.compile and Keras on JAX.
    """

    benchmark: str
    threads: tuple[int, ...]
    quick: bool = False
    only: str = ""
    avx2: bool = False
    rivals: bool = False

    @property
    def name(self) -> str:
        return self.benchmark + "-avx2" * self.avx2


def check(request: Request) -> None:
    """Everything that can be wrong with a request, in one sentence."""
    if request.benchmark not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {request.benchmark!r}: choose among {', '.join(BENCHMARKS)}, gpu.")
    for count in request.threads:
        if not 1 <= count <= cores():
            raise ValueError(f"--threads {count} cannot be measured: this process may use {cores()} cores, so 1 to {cores()}.")
    if request.avx2 and platform.machine().lower() not in ("x86_64", "amd64"):
        raise ValueError(f"--avx2 is for x86-64 processors, this one is {platform.machine()}: leave it out.")


def has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def measure(request: Request) -> Iterator[tuple[list[Row], list[Row], str]]:
    """(runs, rows, what the newest is): all there is so far, whenever something has been measured.

    runs: threads, settings and peaks of each process. rows: each tells its number of threads.
    """
    check(request)
    runs: list[Row] = []
    rows: list[Row] = []
    for threads in request.threads:
        for message in _worker(request, threads):
            if "run" in message:
                runs.append(message["run"])
            else:
                rows.append({"threads": threads, **message["row"]})
                yield runs, rows, f"{title(rows[-1])}, {in_threads(threads)}"
    if not rows:
        raise ValueError(f"no row of the benchmark {request.benchmark} holds the text {request.only!r}: leave --only out to see them all.")
    if request.benchmark in ("unet", "models"):
        trained = [row for row in rows if row["mode"] == "training"]
        for rival in _rivals() if request.rivals else ():
            for row in trained:
                _add_rival(request, rival, [r for r in rows if _key(r) == _key(row)])
                yield runs, rows, f"{row['network']} {row['shape']} beside {rival}, {in_threads(row['threads'])}"
        if Path("/proc/self/status").exists():
            for row in trained:
                if row["threads"] == request.threads[-1]:
                    rows.append(_memory(request, row))
                    yield runs, rows, f"{title(rows[-1])}, {in_threads(row['threads'])}"


def title(row: Row) -> str:
    """What a row is about."""
    return " ".join(str(row[label]) for label in LABELS if label in row)


def _key(row: Row) -> tuple[Any, ...]:
    return row["threads"], row["network"], row["shape"]


def _rivals() -> Iterator[str]:
    """What is installed of that which compiles networks."""
    if has_torch() and (shutil.which("g++") or shutil.which("clang++")):
        yield "torch.compile"
    if importlib.util.find_spec("keras") and importlib.util.find_spec("jax"):
        yield "Keras on JAX"


def _add_rival(request: Request, rival: str, rows: list[Row]) -> None:
    """Measures in a process of its own, so that a compiler that fails takes nothing with it; then the row says so."""
    threads, name, shape = _key(rows[0])
    try:
        for found in _worker(request, threads, (name, shape, rival)):
            (row,) = (row for row in rows if row["mode"] == found["mode"])
            row.setdefault("rivals", {})[rival] = {"seconds": found["seconds"], "ratio": found["ratio"]}
    except RuntimeError as problem:
        for row in rows:
            row.setdefault("rivals", {}).setdefault(rival, {"failed": str(problem)})


def _memory(request: Request, trained: Row) -> Row:
    """Each side of a network in a fresh process."""
    threads, name, shape = _key(trained)
    mib = {side: m["mib"] for side in trained["seconds"] for m in _worker(request, threads, (name, shape, side))}
    best = min((side for side in mib if side != "ours"), key=mib.__getitem__, default=None)
    ratio = {"against": best, "ratio": mib[best] / mib["ours"]} if best else {}
    return {"threads": threads, "network": name, "shape": shape, "mode": "memory", "mib": mib, **ratio}


def environment_for(threads: int) -> dict[str, str]:
    """Of a process with that many threads, which sleep soon when idle, and this minunet."""
    source = str(Path(minunet.__file__).parents[1])
    path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    return {**RESTING_THREADS, **os.environ, **dict.fromkeys(COUNTS, str(threads)), "PYTHONPATH": path}


def answer_of(script: str, request: dict[str, Any]) -> Any:
    """What `script` writes, as JSON, when it is run with --request and --out, in a process with request["threads"] threads."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        command = [sys.executable, script, "--request", json.dumps(request), "--out", str(answer)]
        subprocess.run(command, env=environment_for(request["threads"]), check=True)
        return json.loads(answer.read_text(encoding="utf-8"))


def _worker(request: Request, threads: int, task: tuple[str, str, str] | None = None) -> Iterator[Row]:
    """What a measuring process says, line by line. task: (network, shape, side or rival), for a process with this one thing to do."""
    asked = {**vars(request), "threads": threads, "task": task}
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", **environment_for(threads), **(_AVX2 if request.avx2 else {})}
    environment.pop("JAX_ENABLE_X64", None)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        command = [sys.executable, "-m", "minunet.bench", json.dumps(asked)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, env=environment, encoding="utf-8") as process:
            try:
                assert process.stdout is not None
                yield from map(json.loads, process.stdout)
                code = process.wait()
            finally:
                process.kill()  # only where we are interrupted is it still running
        if code:
            complaints.seek(0)
            last = [line.strip() for line in complaints if line.strip()][-1:] or ["it said nothing"]
            raise RuntimeError(f"the measuring process for {request.benchmark} ended with code {code}: {last[0]}")
