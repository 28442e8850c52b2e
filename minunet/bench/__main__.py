"""A measuring process, started by `session.py`: a request as JSON in the arguments, a line of JSON on stdout for all it finds."""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numba

from minunet.bench import accuracy, networks, ops
from minunet.bench.measure import FULL, QUICK
from minunet.bench.peaks import peaks
from minunet.simd import VECTOR_BYTES


def answer(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """{"run": …} first, then a {"row": …} for each row; for a task of its own {"mib": …} or a {"mode": …} for each mode."""
    threads, quick, benchmark, only = request["threads"], request["quick"], request["benchmark"], request["only"]
    torch = _optional("torch")
    if torch is not None:
        torch.set_num_threads(threads)
    unets, models = (networks.QUICK_UNETS, networks.QUICK_MODELS) if quick else (networks.UNETS, networks.MODELS)
    effort = QUICK if quick else FULL
    if request["task"] is not None:
        name, size, side = request["task"]
        network = next(n for n in (*unets, *models) if (n.name, n.size) == (name, size))
        if side in networks.SIDES:
            yield {"mib": networks.memory(network, side, torch)}
        else:
            yield from networks.against(network, side, torch, _optional("keras"), effort)
        return
    limits = peaks(threads, quick)
    yield {"run": {**settings(threads, torch), "peaks": limits}}
    if benchmark == "ops":
        found = ops.rows(torch, effort, limits, only)
    elif benchmark == "accuracy":
        found = accuracy.rows(torch, quick, only)
    else:
        found = networks.rows(unets if benchmark == "unet" else models, torch, effort, limits, only)
    for row in found:
        yield {"row": row}


def settings(threads: int, torch: Any) -> dict[str, Any]:
    """What decides the speed of this process, as the libraries themselves report it."""
    return {
        "threads": threads,
        "numba_threads": numba.get_num_threads(),
        "torch_threads": torch.get_num_threads() if torch else None,
        "vector_bits": 8 * VECTOR_BYTES,
        "torch_capability": torch.backends.cpu.get_cpu_capability() if torch else None,
        "environment": {name: os.environ[name] for name in _TOLD if name in os.environ},
    }


_TOLD = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "NUMBA_CPU_NAME")


def _optional(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def main() -> None:
    request = json.loads(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):  # no more cores than threads, for libraries that count cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: request["threads"]])
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not stand between the lines
    warnings.simplefilter("ignore")
    for message in answer(request):
        print(json.dumps(message), file=lines, flush=True)


if __name__ == "__main__":
    main()
