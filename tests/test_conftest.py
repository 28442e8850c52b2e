"""What the tests stand on, tested: leaks are noticed, what is missing skips, and fails in CI."""

from __future__ import annotations

import ast
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minunet import autograd, kernels, rng
from tests import conftest


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
