"""`minunet bench gpu`: operations and training steps of UNets on this machine's GPU, beside PyTorch on the same card in the same precision.

Both sides compute on the card's default stream, so one pair of CUDA events times either. What a call reads is not what the call before
left in the card's cache: its arrays rotate among sets that are together several times as large as the cache.
"""

from __future__ import annotations

import gc
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from typing import Any

import numpy as np

from minunet import cuda, manual_seed
from minunet.arrays import cupy_module, to_device
from minunet.bench import networks, ops, session
from minunet.bench.measure import FULL, QUICK, Clock, Contestant, Effort, compare, medians, take_turns
from minunet.bench.ops import FORMATS, Op
from minunet.inspection import summary
from minunet.train.precision import STORED, as_images, multiplying

Row = dict[str, Any]
Around = Callable[[], AbstractContextManager[Any]]

TIMES_CACHE = 4  # the sets of arrays together, as a multiple of the cache
COPIED = 1 << 30  # bytes, for the bandwidth
MATRIX = 8192  # rows of a square matrix, for the rate of products
RUNS = 15  # of each limit

BASES = (64, 32, 16)
IMAGES, SIZE = 8, 512
NETWORKS = tuple(networks.unet((IMAGES, 1, SIZE, SIZE), base_channels=base) for base in BASES)


@dataclass(frozen=True)
class Precision:
    """name: as in `minunet.train.precision`."""

    name: str

    @property
    def tf32(self) -> bool:
        """Whether float32 factors may be rounded to TF32. Nothing but convolutions differs then."""
        return self.name == "tf32"

    @property
    def half(self) -> str | None:
        """The dtype of 16 bits that images have here. An operation of PyTorch gets all its arrays in it, a network casts by itself."""
        stored = STORED[self.name]
        return None if stored == "float32" else stored

    @property
    def formats(self) -> tuple[str, ...]:
        """PyTorch's memory orders. cuDNN has nothing for strict float32 with channels last that would finish a step of the large network
        and its search for the fastest algorithms within minutes."""
        return FORMATS[:1] if self.name == "float32" else FORMATS

    @property
    def first_generation(self) -> int:
        return cuda.first_generation(STORED[self.name], "tf32" if self.tf32 else "float32")


PRECISIONS = {name: Precision(name) for name in ("float32", "tf32", "bf16", "fp16")}


@dataclass(frozen=True)
class Card:
    """What is measured on. told: its name, and the versions of all that drives it. cache: bytes. clock: times what runs on it.

    place: where PyTorch's tensors lie. free: gives back memory that nobody uses any more.
    """

    told: dict[str, Any]
    cache: int
    clock: Clock
    place: str = "cuda"
    free: Callable[[], None] = lambda: None

    @property
    def file(self) -> str:
        return f"gpu-{in_file_names(self.told['card'])}"


def in_file_names(card: str) -> str:
    """'NVIDIA H100 80GB HBM3' → 'nvidia-h100-80gb-hbm3'."""
    return re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")


def card(torch: Any) -> Card:
    """This machine's; RuntimeError, in a sentence, where something is missing. torch: the module, or None."""
    cupy = cupy_module()
    if torch is None or not torch.cuda.is_available():
        came = "PyTorch is not installed" if torch is None else f"PyTorch {torch.__version__} finds no GPU"
        raise RuntimeError(f"minunet bench gpu measures beside PyTorch on CUDA, and {came}: install it from https://pytorch.org.")
    runtime = cupy.cuda.runtime
    about = runtime.getDeviceProperties(cupy.cuda.Device().id)
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
    return Card(told, about["l2CacheSize"], _events(cupy), free=partial(_free, cupy, torch))


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
    """The card's own clock: from when it has nothing to do until it is done with the last of a function's launches.

    What was launched before would hide the way to the card, longer for one side than for the other: it ends first.
    """

    def clock(run: Callable[[], None]) -> float:
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        cupy.cuda.Device().synchronize()
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(start, end)) / 1000

    return clock


def _free(cupy: Any, torch: Any) -> None:
    """Empties both libraries' pools: what one keeps there the other cannot have."""
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    torch.cuda.empty_cache()


# ---- what is measured ----


def table(quick: bool = False) -> Iterator[Op]:
    """Every operation of the networks at the sizes that it has there."""
    for base in (16,) if quick else BASES:
        images, size = (1, 32) if quick else (IMAGES, SIZE)
        yield from ops.unet_convolutions(images, base, size)
        for channels, side in ((base, size), (base << 4, size >> 4)):  # at the top of the network and at its bottom
            yield from ops.on_activations((images, channels, side, side))
    yield from ops.on_logits(images, size)


def measure(card: Card, torch: Any, quick: bool, only: str) -> Iterator[tuple[Row, list[Row]]]:
    """(run, rows), all there is so far, whenever a row has been measured.

    run: the card with its limits. rows: for each operation and direction, and each network and mode, in each precision.
    """
    effort = QUICK if quick else FULL
    rows: list[Row] = []
    limits: dict[str, Any] = {}
    capability = round(10 * float(card.told["compute_capability"]))
    able = {name: precision for name, precision in PRECISIONS.items() if precision.first_generation <= capability}
    for name, precision in able.items():
        with _torch_settings(torch, precision):
            limits[name] = peaks(card, torch, precision, quick)
            found = [
                operations(card, torch, precision, effort, limits[name], only),
                steps(card, torch, precision, networks.QUICK_UNETS[:1] if quick else NETWORKS, effort, limits[name], only),
            ]
            for row in chain(*found):
                rows.append({"precision": name, **row})
                yield {**card.told, "cudnn_benchmark": True, "peaks": limits}, rows
    if not rows:
        raise ValueError(f"no row of the benchmark gpu holds the text {only!r}: leave --only out to see them all.")


def title(row: Row) -> str:
    """What a row is about, in which precision."""
    return f"{session.title(row)}, {row['precision']}"


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
    if precision.half is None:
        return nullcontext
    return partial(torch.autocast, card.place, dtype=getattr(torch, precision.half))


def peaks(card: Card, torch: Any, precision: Precision, quick: bool) -> dict[str, float]:
    """gbytes: a second, read and written, by a copy far larger than the cache. gflops: of the product of two large random matrices.

    The best of several runs: a limit is what is reached once.
    """
    generator = torch.Generator(card.place).manual_seed(0)
    count, side = (1 << 20, 256) if quick else (COPIED // 4, MATRIX)
    source = torch.randn(count, device=card.place, generator=generator)
    target = torch.empty_like(source)
    a, b = (torch.randn(side, side, device=card.place, generator=generator) for _ in range(2))
    if precision.half:
        a, b = (m.to(getattr(torch, precision.half)) for m in (a, b))
    best = {}
    for name, run in (("copy", lambda: target.copy_(source)), ("product", lambda: a @ b)):
        run()
        best[name] = min(card.clock(run) for _ in range(3 if quick else RUNS))
    return {"gbytes": 2 * 4 * count / best["copy"] / 1e9, "gflops": 2 * side**3 / best["product"] / 1e9}


def sets_for(card: Card, bytes_moved: float) -> int:
    """How many sets of arrays of this size it takes for the last to have driven the first out of the cache."""
    return math.ceil(TIMES_CACHE * card.cache / max(bytes_moved, 1)) or 1


def _timed(card: Card, effort: Effort, sides: Callable[[], dict[str, Contestant]]) -> dict[str, list[float]]:
    """Seconds of contestants that are made here, where the card holds nothing else, and gone afterwards."""
    card.free()
    return take_turns(sides(), effort, card.clock)


def operations(card: Card, torch: Any, precision: Precision, effort: Effort, limits: dict[str, float], only: str = "") -> Iterator[Row]:
    """The rows of the table, and of Adam's step over all parameters of each network. What is as in float32 is measured there alone."""
    for op in table(quick=effort is QUICK):
        if only in f"{op.operation} {op.shape}" and (op.is_convolution or not precision.tf32):
            for direction, work in op.work.items():
                work = work.stored_in(_width(precision))
                labels = {"operation": op.operation, "shape": op.shape, "direction": direction}
                times = _timed(card, effort, partial(_sides, op, direction, card, torch, precision))
                yield ops.row(labels, work, times, {}, limits, ours="ours")
    for base in () if precision.tf32 or precision.half else (4,) if effort is QUICK else BASES:
        if only in f"Adam UNet, base {base}":
            times = _timed(card, effort, partial(_adams, base, card, torch))
            yield ops.row(*ops.adam_work(base), times, {}, limits, ours="ours", rivals=("torch", "torch fused"))


def _sides(op: Op, direction: str, card: Card, torch: Any, precision: Precision) -> dict[str, Contestant]:
    """Ours and PyTorch's in its two memory orders, each with sets of arrays of its own, which have the dtype from the start.

    A cast that is timed is ours, of a convolution's weights: they are float32, and PyTorch's are not.
    """
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape, np.float32) for shape in op.inputs]
    dtype, moved = getattr(torch, precision.half or "float32"), op.work[direction].stored_in(_width(precision)).bytes
    manual_seed(0)
    torch.manual_seed(0)
    sets = range(sets_for(card, moved))
    ours = [[to_device(as_images(a, precision.name), "cuda") for a in inputs] for _ in sets]
    sides = {"ours": _within(partial(multiplying, precision.name), ops.our_contestant(op, direction, ours))}
    for name in precision.formats:
        tensors = [[torch.from_numpy(a).to(card.place, dtype, copy=True) for a in inputs] for _ in sets]
        sides[name] = ops.torch_contestant(op, direction, tensors, torch, name != "torch")
    return sides


def _width(precision: Precision) -> int:
    """Bytes of a number of an image."""
    return 2 if precision.half else 4


def _adams(base: int, card: Card, torch: Any) -> dict[str, Contestant]:
    """Ours and PyTorch's two, each with sets of weights, gradients and state of its own."""
    sets = sets_for(card, ops.adam_work(base)[1].bytes)
    return {
        "ours": ops.our_adam(base, "cuda", sets),
        "torch": ops.torch_adam(base, torch, None, card.place, sets),
        "torch fused": ops.torch_adam(base, torch, True, card.place, sets),
    }


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
    """Rows for training, training as one CUDA graph, and prediction of each network.

    Against PyTorch as it is, and compiled where that succeeds. Its training is the same in the first two.
    """
    for network in chosen:
        if only in f"{network.name} {network.size}":
            card.free()
            yield from _steps(card, torch, precision, network, effort, limits)


def _steps(
    card: Card, torch: Any, precision: Precision, network: networks.Network, effort: Effort, limits: dict[str, float]
) -> Iterator[Row]:
    """Of one network. PyTorch's Adam is the fused one: ours is one launch too."""
    theirs = partial(
        networks.torch_steps,
        network,
        torch,
        device=card.place,
        around=_autocast(card, torch, precision),
        fused=True,
        scaled=precision.name == "fp16",
    )
    macs = summary(network.ours(), network.shape).macs
    sides = {"ours": networks.our_steps(network, "cuda", precision.name), **{name: theirs(name) for name in precision.formats}}
    failed = {}
    try:
        compiled = theirs(precision.formats[-1], networks.compiles(torch))
        for contestant in compiled.values():
            contestant.run(contestant.prepare())
        sides["torch.compile"] = compiled
    except Exception as problem:  # a compiler takes nothing with it
        failed = {"rivals": {"torch.compile": {"failed": type(problem).__name__}}}
    for mode in sides["ours"]:
        flops = (2 if mode == "prediction" else 6) * macs  # a backward costs two forwards
        times = take_turns({name: side.get(mode) or side["training"] for name, side in sides.items()}, effort, card.clock)
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
