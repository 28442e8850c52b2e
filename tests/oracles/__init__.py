"""What each operation must compute: naive loops and plain definitions in float64, sharing no code with the package.

Every public function of the modules here is an oracle under its own name, which `OpCase.oracle` gives.
The modules import numpy (and math, itertools) alone; tests/test_oracles.py holds them to it.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any


def _gather() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        for name, function in vars(loaded).items():
            if name.startswith("_") or not inspect.isfunction(function) or function.__module__ != loaded.__name__:
                continue
            if name in found:
                raise ImportError(f"two oracles are called {name!r}: in {found[name].__module__} and {loaded.__name__}.")
            found[name] = function
    return found


ORACLES = _gather()
