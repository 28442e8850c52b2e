"""What a user is told where Numba compiles kernels, and where it cannot keep them."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minunet as mu
from minunet import cli, kernels

ROOT = Path(__file__).parents[1]
STEP = """
import logging, sys
import numpy as np
from minunet import nn, optim
from minunet.kernels import log_compiled
if sys.argv[1:]:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
p = nn.Parameter(np.ones(3, np.float32))
p.grad = p.data
optim.SGD([p]).step()
log_compiled()
"""


def step(cache: Path, *arguments: str) -> list[str]:
    """What a process that calls one kernel says."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    ran = subprocess.run([sys.executable, "-c", STEP, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    return (ran.stdout + ran.stderr).splitlines()


def test_compiling_is_logged_once_on_a_machine(tmp_path: Path) -> None:
    first, last = step(tmp_path, "log")
    assert first == f"Compiling kernels for this processor (once; kept in {tmp_path}) …"
    assert last.startswith("Compiled 3 kernels in ")  # the optimiser's, the one that calls it on all threads, and one that finds arrays
    assert step(tmp_path, "log") == []


def test_kernels_that_are_kept_at_the_same_time_are_not_mixed_up(tmp_path: Path) -> None:
    from numba.core.caching import IndexDataCacheFile

    kernels.write_in_turn()

    def keep(writer: int) -> None:  # each has a view of its own, as another process does
        cache = IndexDataCacheFile(str(tmp_path), "kernels", "stamp")
        for i in range(20):
            cache.save((writer, i), f"{writer}, {i}")

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(keep, range(4)))
    kept = IndexDataCacheFile(str(tmp_path), "kernels", "stamp")
    assert [kept.load((writer, i)) for writer in range(4) for i in range(20)] == [f"{w}, {i}" for w in range(4) for i in range(20)]


def test_the_library_says_nothing_by_itself(tmp_path: Path) -> None:
    assert step(tmp_path) == []


def compiled(*modules: str) -> Iterator[SimpleNamespace]:
    """Numba's events where a function of the first module is compiled, and within it those of the others."""
    for is_start, names in ((True, modules), (False, modules[::-1])):
        for name in names:
            function = SimpleNamespace(__module__=name)
            dispatcher = SimpleNamespace(py_func=function, stats=SimpleNamespace(cache_path=str(ROOT / "minunet" / "ops" / "__pycache__")))
            yield SimpleNamespace(is_start=is_start, data={"dispatcher": dispatcher})


def test_kernels_are_counted_without_what_they_call_and_without_those_of_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kernels, "_compilation", kernels._Compilation())
    with caplog.at_level(logging.INFO, "minunet"):
        for modules in (["their.code", "minunet.simd"], ["minunet.ops.conv.cpu", "minunet.simd", "numba.x"], ["minunet.optim.cpu"]):
            for event in compiled(*modules):
                kernels._compilation.notify(event)
        kernels.log_compiled()
        kernels.log_compiled()
    begun, ended = caplog.messages
    assert begun == f"Compiling kernels for this processor (once; kept in {ROOT / 'minunet'}) …"
    assert ended == "Compiled 2 kernels in 0 s."


def test_the_command_shows_on_stderr_what_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("minunet")
    with cli._log_on_stderr():
        logger.info("Compiling")
    logger.info("unseen")
    assert capsys.readouterr() == ("", "Compiling\n")
    assert not logger.handlers


def test_a_machine_where_nothing_can_be_kept_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    load = importlib.import_module

    def refuse(name: str) -> object:
        if name == "minunet.optim.cpu":
            raise RuntimeError("cannot cache function 'f': no locator available for file 'f.py'")
        return load(name)

    monkeypatch.setattr(kernels.importlib, "import_module", refuse)
    with pytest.raises(RuntimeError, match=r"no folder where it may keep compiled kernels: .*Set NUMBA_CACHE_DIR to a folder that can\."):
        kernels._kernel_module.__wrapped__("minunet.optim", "cpu")


def test_the_first_array_of_a_list_chooses_the_kernel_set() -> None:
    call = kernels.Kernels("minunet.optim", "sgd").sgd
    with mu.recording() as choices:
        for dtype in (np.float32, np.float16):
            call([np.ones(2, dtype)], [np.ones(2, dtype)], [[None]], np.array([(1, 0, 0.5, 0, 1, False)], dtype))
    assert [choice.served_by for choice in choices] == ["cpu", "ref"]
