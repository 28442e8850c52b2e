"""`minunet bench gpu`: operations and training steps of UNets on this machine's GPU, beside PyTorch on the same card in the same precision.

Both sides compute on the card's default stream, so one pair of CUDA events times either. What a call reads is not what the call before
left in the card's cache: inputs rotate among sets that are together several times as large as the cache.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from minunet import cuda, manual_seed
from minunet.arrays import cupy_module, to_device
from minunet.bench import networks, ops
from minunet.bench.measure import FULL, QUICK, Clock, Contestant, Effort, compare, medians, take_turns
from minunet.bench.ops import FORMATS, Op
from minunet.bench.session import LABELS
from minunet.inspection import summary

Row = dict[str, Any]
Around = Callable[[], AbstractContextManager[Any]]

TIMES_CACHE = 4  # the sets of inputs together, as a multiple of the cache
COPIED = 1 << 30  # bytes, for the bandwidth
MATRIX = 8192  # rows of a square matrix, for the rate of products
RUNS = 15  # of each limit

BASES = (64, 32, 16)
IMAGES, SIZE = 8, 512
NETWORKS = tuple(networks.unet((IMAGES, 1, SIZE, SIZE), base_channels=base) for base in BASES)


@dataclass(frozen=True)
class Precision:
    """ours: what minunet computes within. tf32: whether PyTorch may round float32 factors to TF32. autocast: the dtype that it casts to."""

    ours: Around
    tf32: bool = False
    autocast: str | None = None


PRECISIONS = {
    "float32": Precision(nullcontext),
    "tf32": Precision(partial(cuda.precision, "tf32"), tf32=True),
    "bf16": Precision(partial(cuda.precision, "bf16"), autocast="bfloat16"),
    "fp16": Precision(partial(cuda.precision, "fp16"), autocast="float16"),
}


@dataclass(frozen=True)
class Card:
    """What is measured on. told: its name, and the versions of all that drives it. cache: bytes. clock: times what runs on it.

    place: where PyTorch's tensors lie.
    """

    told: dict[str, Any]
    cache: int
    clock: Clock
    place: str = "cuda"

    @property
    def file(self) -> str:
        """'NVIDIA H100 80GB HBM3' → 'gpu-nvidia-h100-80gb-hbm3'."""
        return "gpu-" + re.sub(r"[^a-z0-9]+", "-", self.told["card"].lower()).strip("-")


def card(torch: Any) -> Card:
    """This machine's; RuntimeError, in a sentence, where something is missing. torch: the module, or None."""
    cupy = cupy_module()
    if torch is None or not torch.cuda.is_available():
        came = "PyTorch is not installed" if torch is None else f"PyTorch {torch.__version__} finds no GPU"
        raise RuntimeError(f"minunet bench gpu measures beside PyTorch on CUDA, and {came}: install it from https://pytorch.org.")
    runtime = cupy.cuda.runtime
    about = runtime.getDeviceProperties(0)
    told = {
        "card": about["name"].decode(),
        "compute_capability": f"{about['major']}.{about['minor']}",
        "multiprocessors": about["multiProcessorCount"],
        "memory": about["totalGlobalMem"],
        "cache": about["l2CacheSize"],
        "driver": _driver(),
        "cuda": {"driver": runtime.driverGetVersion(), "cupy": runtime.runtimeGetVersion(), "torch": torch.version.cuda},
        "cupy": cupy.__version__,
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "triton": _version("triton"),
    }
    return Card(told, about["l2CacheSize"], _events(cupy))


def _driver() -> str | None:
    """The driver's version, as its own tool tells it."""
    if shutil.which("nvidia-smi") is None:
        return None
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip().partition("\n")[0] or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _events(cupy: Any) -> Clock:
    """The card's own clock: from when it comes to the first of a function's launches until it is done with the last."""

    def clock(run: Callable[[], None]) -> float:
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(start, end)) / 1000

    return clock


# ---- what is measured ----


def table(quick: bool = False) -> Iterator[Op]:
    """Every operation of the networks at the sizes that it has there."""
    for base in (16,) if quick else BASES:
        images, size = (1, 32) if quick else (IMAGES, SIZE)
        yield from ops.unet_convolutions(images, base, size)
        for channels, side in ((base, size), (base << 4, size >> 4)):  # at the top of the network and at its bottom
            yield from ops.on_activations((images, channels, side, side))
    yield from ops.on_logits(images, size)


def measure(card: Card, torch: Any, quick: bool, only: str, progress: Callable[[str], None]) -> tuple[Row, list[Row]]:
    """(run, rows): the card with its limits, and a row for each operation and direction, and each network and mode, in each precision.

    progress(text) is called with what has just been measured.
    """
    effort = QUICK if quick else FULL
    rows: list[Row] = []
    limits = {}
    capability = round(10 * float(card.told["compute_capability"]))
    able = {name: precision for name, precision in PRECISIONS.items() if cuda.PRECISIONS[name] <= capability}
    for name, precision in able.items():
        with _torch_settings(torch, precision):
            limits[name] = peaks(card, torch, precision, quick)
            found = [
                operations(card, torch, precision, effort, limits[name], only),
                steps(card, torch, precision, networks.QUICK_UNETS[:1] if quick else NETWORKS, effort, limits[name], only),
            ]
            for row in (row for part in found for row in part):
                rows.append({"precision": name, **row})
                progress(" ".join(str(row[label]) for label in LABELS if label in row) + f", {name}")
    if not rows:
        raise ValueError(f"no row of the benchmark gpu holds the text {only!r}: leave --only out to see them all.")
    return {**card.told, "cudnn_benchmark": True, "peaks": limits}, rows


@contextmanager
def _torch_settings(torch: Any, precision: Precision) -> Iterator[None]:
    """Within the block PyTorch computes in a precision, and looks for the fastest algorithm of each convolution."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = precision.tf32, precision.tf32, True
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before


def _autocast(card: Card, torch: Any, precision: Precision) -> Around:
    if precision.autocast is None:
        return nullcontext
    return partial(torch.autocast, card.place, dtype=getattr(torch, precision.autocast))


def peaks(card: Card, torch: Any, precision: Precision, quick: bool) -> dict[str, float]:
    """gbytes: a second, read and written, by a copy far larger than the cache. gflops: of the product of two large random matrices.

    The best of several runs: a limit is what is reached once.
    """
    generator = torch.Generator(card.place).manual_seed(0)
    count, side = (1 << 20, 256) if quick else (COPIED // 4, MATRIX)
    source = torch.randn(count, device=card.place, generator=generator)
    target = torch.empty_like(source)
    a, b = (torch.randn(side, side, device=card.place, generator=generator) for _ in range(2))
    if precision.autocast:
        a, b = (m.to(getattr(torch, precision.autocast)) for m in (a, b))
    best = {}
    for name, run in (("copy", lambda: target.copy_(source)), ("product", lambda: a @ b)):
        run()
        best[name] = min(card.clock(run) for _ in range(3 if quick else RUNS))
    return {"gbytes": 2 * 4 * count / best["copy"] / 1e9, "gflops": 2 * side**3 / best["product"] / 1e9}


def sets_for(card: Card, bytes_read: int) -> int:
    """How many sets of inputs of this size it takes for the last to have driven the first out of the cache."""
    return -(-TIMES_CACHE * card.cache // max(bytes_read, 1)) or 1


def operations(card: Card, torch: Any, precision: Precision, effort: Effort, limits: dict[str, float], only: str = "") -> Iterator[Row]:
    """The rows of the table, and of Adam's step over all parameters of each network."""
    for op in table(quick=effort is QUICK):
        if only in f"{op.operation} {op.shape}":
            for direction, work in op.work.items():
                labels = {"operation": op.operation, "shape": op.shape, "direction": direction}
                contestants = _sides(op, direction, card, torch, precision)
                times = take_turns(contestants, effort, card.clock)
                yield ops.row(labels, work, times, {}, limits, ours="ours")
    for base in (4,) if effort is QUICK else BASES:
        if only in f"Adam UNet, base {base}":
            labels, work = ops.adam_work(base)
            sets = sets_for(card, int(work.bytes))
            contestants = {
                "ours": ops.our_adam(base, "cuda", sets),
                "torch": ops.torch_adam(base, torch, None, card.place, sets),
                "torch fused": ops.torch_adam(base, torch, True, card.place, sets),
            }
            yield ops.row(labels, work, take_turns(contestants, effort, card.clock), {}, limits, ours="ours")


def _sides(op: Op, direction: str, card: Card, torch: Any, precision: Precision) -> dict[str, Contestant]:
    """Ours and PyTorch's in its two memory orders, each with sets of inputs of its own."""
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape, np.float32) for shape in op.inputs]
    sets = range(sets_for(card, sum(a.nbytes for a in inputs)))
    manual_seed(0)
    torch.manual_seed(0)
    ours = ops.our_contestant(op, direction, [[to_device(a, "cuda") for a in inputs] for _ in sets])
    sides = {"ours": _within(precision.ours, ours)}
    for name in FORMATS:
        tensors = [[torch.from_numpy(a).to(card.place, copy=True) for a in inputs] for _ in sets]
        sides[name] = ops.torch_contestant(op, direction, tensors, torch, name != "torch", _autocast(card, torch, precision))
    return sides


def _within(around: Around, contestant: Contestant) -> Contestant:
    """The same in a precision."""

    def prepare() -> Any:
        with around():
            return contestant.prepare()

    def run(prepared: Any) -> Any:
        with around():
            return contestant.run(prepared)

    return Contestant(run, prepare)


def steps(
    card: Card,
    torch: Any,
    precision: Precision,
    chosen: tuple[networks.Network, ...],
    effort: Effort,
    limits: dict[str, float],
    only: str = "",
) -> Iterator[Row]:
    """A row for training and one for prediction of each network; against PyTorch as it is, and compiled where that succeeds."""
    for network in chosen:
        if only not in f"{network.name} {network.size}":
            continue
        around = _autocast(card, torch, precision)
        macs = summary(network.ours(), network.shape).macs
        sides = {"ours": networks.our_steps(network, "cuda", precision.ours)}
        sides |= {name: networks.torch_steps(network, torch, name, device=card.place, around=around) for name in FORMATS}
        failed = {}
        try:
            compiled = networks.torch_steps(network, torch, FORMATS[1], torch.compile, card.place, around)
            for contestant in compiled.values():
                contestant.run(contestant.prepare())
            sides["torch.compile"] = compiled
        except Exception as problem:  # a compiler takes nothing with it
            failed = {"rivals": {"torch.compile": {"failed": type(problem).__name__}}}
        for mode, flops in (("training", 6 * macs), ("prediction", 2 * macs)):  # a backward costs two forwards
            times = take_turns({name: side[mode] for name, side in sides.items()}, effort, card.clock)
            seconds = medians(times)
            yield {
                "network": network.name,
                "shape": network.size,
                "mode": mode,
                "flops": flops,
                "seconds": seconds,
                **compare(times, "ours", [*FORMATS, "torch.compile"]),
                **failed,
                "gflops": flops / seconds["ours"] / 1e9,
                "share": flops / limits["gflops"] / 1e9 / seconds["ours"],
            }
