"""Timing that means something on a machine with neighbours: contestants take turns in one process, and what counts is their ratio.

    A B C   A B C   A B C   …        a slow moment of the machine meets all of them

Each is warmed up first. A ratio is taken in each round and told as the median of the rounds with its quartiles.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from minunet.files import replacing

WARM_UP = 0.05  # seconds, after a first call that may compile
MOST_CALLS = 20  # of a short operation, for one sample


@dataclass(frozen=True)
class Effort:
    """rounds: samples of each contestant. seconds: how long a sample of a short operation lasts, by calling it several times."""

    rounds: int
    seconds: float


FULL, QUICK = Effort(9, 0.005), Effort(3, 0.0)


@dataclass(frozen=True)
class Contestant:
    """run(prepared) is timed; prepare(), not timed, makes what it uses up, such as the graph that a backward consumes."""

    run: Callable[[Any], Any]
    prepare: Callable[[], Any] = lambda: None


Clock = Callable[[Callable[[], None]], float]  # seconds that a function takes


def wall(run: Callable[[], None]) -> float:
    """The clock on the wall."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def take_turns(contestants: dict[str, Contestant], effort: Effort, clock: Clock = wall) -> dict[str, list[float]]:
    """Seconds for one call, a sample for each round, of every contestant."""
    calls = {name: _warm_up(contestant, effort, clock) for name, contestant in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(effort.rounds):
        for name, contestant in contestants.items():
            _sample(contestant, 1, clock)  # not counted: in use a step follows one of its own kind, which left its threads awake
            times[name].append(_sample(contestant, calls[name], clock))
    return times


def _sample(contestant: Contestant, calls: int, clock: Clock) -> float:
    prepared = [contestant.prepare() for _ in range(calls)]

    def run() -> None:
        while prepared:
            contestant.run(prepared.pop())

    return clock(run) / calls


def _warm_up(contestant: Contestant, effort: Effort, clock: Clock) -> int:
    """How many calls make a sample."""
    _sample(contestant, 1, clock)
    start = time.perf_counter()
    seconds = [_sample(contestant, 1, clock)]
    while time.perf_counter() - start < WARM_UP and effort.seconds:
        seconds.append(_sample(contestant, 1, clock))
    return min(max(math.ceil(effort.seconds / max(min(seconds), 1e-9)), 1), MOST_CALLS)


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: float(np.median(samples)) for name, samples in times.items()}


def compare(times: dict[str, list[float]], ours: str, others: list[str]) -> dict[str, Any]:
    """The paired ratio (the other's time ÷ ours, above 1 where ours is faster) to whichever of the others is fastest here.

    low and high are the quartiles of the rounds.
    """
    present = [name for name in others if name in times]
    if not present:
        return {}
    best = min(present, key=medians(times).__getitem__)
    low, median, high = np.quantile([b / a for a, b in zip(times[ours], times[best], strict=True)], (0.25, 0.5, 0.75))
    return {"against": best, "ratio": {"median": float(median), "low": float(low), "high": float(high)}}


def relative_error(value: Any, exact: Any) -> float:
    """‖value − exact‖ / ‖exact‖, over all numbers of an array or of a list of arrays."""
    pairs = list(zip(value, exact, strict=True)) if isinstance(value, list) else [(value, exact)]
    difference = sum(float(np.sum((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)) for a, b in pairs)
    return math.sqrt(difference / sum(float(np.sum(np.asarray(b, np.float64) ** 2)) for _, b in pairs))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    versions: dict[str, str | None] = {}
    for package in ("numpy", "numba", "torch", "keras", "jax"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {"processor": _processor(), "cores": cores(), "system": platform.system(), "python": platform.python_version(), **versions}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(count: int) -> str:
    """'1 thread', '2 threads'."""
    return f"{count} thread" + "s" * (count > 1)


def _processor() -> str:
    """'AMD EPYC, family 26 model 2': virtual machines often hide the rest."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    found = {key.strip(): value.strip() for key, _, value in lines}
    name = found.get("model name", platform.machine())
    return f"{name}, family {found['cpu family']} model {found['model']}" if {"cpu family", "model"} <= found.keys() else name


def rounded(value: Any) -> Any:
    """Four digits are more than a measurement has."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def write(path: Path, what: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """A file of results: when, where and what, then a line for each row."""
    head = {"date": date.today().isoformat(), "machine": machine(), **what}
    lines = ",\n".join("    " + json.dumps(rounded(row), ensure_ascii=False) for row in rows)
    text = json.dumps(rounded(head), indent=2, ensure_ascii=False).removesuffix("\n}") + f',\n  "rows": [\n{lines}\n  ]\n}}\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:  # who is stopped while writing leaves what was there
        beside.write_text(text, encoding="utf-8")
