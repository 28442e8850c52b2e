"""What every test stands on: sealed global state, settings of Hypothesis, optional references and real data.

A reference (PyTorch, Keras on JAX …) or data set that is missing skips a test on a user's machine and fails it in CI.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

os.environ.setdefault("KERAS_BACKEND", "jax")  # read when keras is imported
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import minunet as mu
from minunet import arrays, autograd, cuda, kernels
from tests import host_gpu, running

CI = os.environ.get("CI") == "true"
DATA = Path(os.environ.get("MINUNET_DATA", Path(__file__).parents[2] / "shared" / "data"))

_slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("dev", deadline=None, max_examples=50, suppress_health_check=_slow)
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, database=None)
settings.load_profile("ci" if CI else "dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    for kernel_set in ("cpu", "gpu"):
        told = f"walk the operation table with the {kernel_set} kernels alone, where there are any"
        parser.addoption(f"--{kernel_set}-kernels", dest="kernels", action="store_const", const=kernel_set, help=told)
    parser.addoption("--real-gpu", action="store_true", help="as --gpu-kernels, on a GPU and with CuPy instead of the stand-ins for both")


def pytest_configure(config: pytest.Config) -> None:
    host_gpu.real = config.getoption("real_gpu")
    running.kernels_alone = "gpu" if host_gpu.real else config.getoption("kernels")
    if host_gpu.real:
        try:
            arrays.cupy_module()
        except RuntimeError as problem:
            raise pytest.UsageError(f"--real-gpu: {problem}") from None


def pytest_report_header(config: pytest.Config) -> str | None:
    """Which card the tests run on, where one was asked for."""
    return f"GPU: {arrays.cupy_module().cuda.runtime.getDeviceProperties(0)['name'].decode()}" if host_gpu.real else None


def missing(what: str) -> None:
    """Skips the test with the reason; in CI, where nothing may be missing, fails it."""
    if CI:
        pytest.fail(f"{what}; in CI it must be there.", pytrace=False)
    pytest.skip(what)


def require(module: str) -> ModuleType:
    """A reference implementation, 'torch' or 'keras' for example, with its import warnings silenced."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = importlib.import_module(module)
    except ImportError as problem:
        missing(f"reference {module} cannot be imported ({problem}); pip install 'minunet[test]'")
    if module.partition(".")[0] == "torch":
        sys.modules["torch"].set_num_threads(2)
    return loaded


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """real_data('isbi2012') → the folder of a real data set below MINUNET_DATA."""

    def find(name: str) -> Path:
        folder = DATA / name
        if not folder.exists():
            missing(f"no data set {name!r} in {DATA} (set MINUNET_DATA)")
        return folder

    return find


class Said:
    """What a run of the command left: exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def minunet(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """minunet('train', …) runs the command."""
    from minunet import cli

    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setenv("TERM", "dumb")

    def run(*arguments: object) -> Said:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(a) for a in arguments])
        return Said(ended.value.code or 0, *capfd.readouterr())

    return run


def assert_refused(said: Said, pattern: str) -> None:
    """Exit code 2, one sentence on stderr, no traceback."""
    assert said.code == 2, said.out + said.err
    assert re.search(pattern, said.err), said.err
    assert said.err.startswith("minunet: ")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err


@pytest.fixture(autouse=True)
def sealed() -> Iterator[None]:
    """Each test starts from seed 0; one that leaves a mode switched on, or changes the process, fails."""
    yield from seal()


def seal() -> Iterator[None]:
    """The body of `sealed`: what is found changed at the end is put right and told."""
    mu.manual_seed(0)
    kernels.log_compiled()  # what tests before this one compiled is not told in it
    folder, errors, threads = os.getcwd(), np.geterr(), _numba_threads()
    interrupt = signal.getsignal(signal.SIGINT)
    modes = {
        "use()": (kernels._forced, "auto"),
        "which()": (kernels._record, None),
        "no_grad()": (autograd._grad_enabled, True),
        "debug()": (autograd._debugging, False),
        "precision()": (cuda._precision, "float32"),
    }
    yield
    leaked = [name for name, (mode, normal) in modes.items() if mode.get() != normal]
    for mode, normal in modes.values():
        mode.set(normal)
    if os.getcwd() != folder:
        os.chdir(folder)
        leaked.append("the working directory")
    if signal.getsignal(signal.SIGINT) != interrupt:
        signal.signal(signal.SIGINT, interrupt)
        leaked.append("the handler of Ctrl-C")
    if np.geterr() != errors:
        np.seterr(**errors)
        leaked.append("numpy.seterr")
    if threads and _numba_threads() != threads:
        sys.modules["numba"].set_num_threads(threads)
        leaked.append("numba.set_num_threads")
    assert not leaked, f"the test leaves changed: {', '.join(leaked)}."


def _numba_threads() -> int | None:
    return sys.modules["numba"].get_num_threads() if "numba.np.ufunc.parallel" in sys.modules else None
