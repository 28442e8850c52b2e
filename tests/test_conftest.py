"""What the tests stand on, tested: leaks are noticed, what is missing skips, and fails in CI."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minunet import autograd, kernels, rng
from tests import conftest, host_gpu, running


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN if signal.getsignal(signal.SIGINT) != signal.SIG_IGN else signal.SIG_DFL)


LEAKS: dict[str, Callable[[], Any]] = {
    r"use\(\)": lambda: kernels._forced.set("ref"),
    r"which\(\)": lambda: kernels._record.set([]),
    r"no_grad\(\)": lambda: autograd._grad_enabled.set(False),
    r"debug\(\)": lambda: autograd._debugging.set(True),
    "the working directory": lambda: os.chdir("/"),
    r"numpy\.seterr": lambda: np.seterr(all="ignore"),
    "the handler of Ctrl-C": ignore_interrupts,
    r"numba\.set_num_threads": lambda: conftest.require("numba").set_num_threads(1),
}


@pytest.mark.parametrize("what", LEAKS)
def test_a_leak_is_noticed_and_put_right(what):
    if what.startswith("numba"):
        numba = conftest.require("numba")
        if numba.get_num_threads() == 1:
            pytest.skip("one thread here")
    seal = conftest.seal()
    next(seal)
    LEAKS[what]()
    with pytest.raises(AssertionError, match=f"the test leaves changed: {what}"):
        next(seal)
    seal = conftest.seal()
    next(seal)
    assert next(seal, "clean") == "clean"


def test_every_test_starts_from_one_seed():
    seal = conftest.seal()
    next(seal)
    first = rng.generator().random(3)
    next(seal, None)
    again = conftest.seal()
    next(again)
    assert np.array_equal(rng.generator().random(3), first)


def test_a_missing_reference_skips_and_fails_in_ci(monkeypatch):
    monkeypatch.setattr(conftest, "CI", False)
    with pytest.raises(pytest.skip.Exception, match="reference no_such_module cannot be imported"):
        conftest.require("no_such_module")
    monkeypatch.setattr(conftest, "CI", True)
    with pytest.raises(pytest.fail.Exception, match=r"reference no_such_module cannot be imported.*in CI it must be there"):
        conftest.require("no_such_module")


def test_missing_data_skip_and_fail_in_ci(monkeypatch, tmp_path, real_data):
    monkeypatch.setattr(conftest, "DATA", tmp_path)
    monkeypatch.setattr(conftest, "CI", False)
    with pytest.raises(pytest.skip.Exception, match="no data set 'isbi2012' in "):
        real_data("isbi2012")
    monkeypatch.setattr(conftest, "CI", True)
    with pytest.raises(pytest.fail.Exception, match=r"set MINUNET_DATA\); in CI it must be there"):
        real_data("isbi2012")


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("test_*.py")), ids=lambda p: p.stem)
def test_references_are_required_never_just_skipped(path):
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)}
    assert "pytest.importorskip" not in called, "importorskip skips in CI too: use tests.conftest.require"


class Options:
    """pytest's configuration, of which the options are asked."""

    def __init__(self, **given: Any) -> None:
        self.given = {"kernels": None, "real_gpu": False, **given}

    def getoption(self, name: str) -> Any:
        return self.given[name]


@pytest.fixture
def configure(monkeypatch):
    """configure(option=value) sets the tests up as pytest does with that option."""
    monkeypatch.setattr(host_gpu, "real", False)
    monkeypatch.setattr(running, "kernels_alone", None)
    return lambda **given: conftest.pytest_configure(Options(**given))


def test_on_a_real_gpu_nothing_stands_in_for_cupy(configure, monkeypatch):
    monkeypatch.setattr(conftest.arrays, "cupy_module", lambda: None)
    configure(real_gpu=True)
    assert running.kernels_alone == "gpu"
    with host_gpu.installed():
        assert sys.modules.get("cupy") is not host_gpu._module
    configure(kernels="gpu")
    assert running.kernels_alone == "gpu"
    with host_gpu.installed():
        assert sys.modules["cupy"] is host_gpu._module


def test_a_real_gpu_that_is_not_there_ends_the_tests_with_a_sentence():
    command = [sys.executable, "-m", "pytest", "--real-gpu", "tests/test_opcases.py", "-k", "sqrt"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1], check=False)
    assert ran.returncode == pytest.ExitCode.USAGE_ERROR
    assert ran.stdout == ""
    assert ran.stderr.startswith("ERROR: --real-gpu: device 'cuda' ")
    assert len(ran.stderr.strip().splitlines()) == 1
