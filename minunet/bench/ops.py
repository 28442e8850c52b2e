"""Every operation of a UNet, at the sizes it has there: ours against PyTorch's, forward and each gradient.

A row is described once, by the layer's constructor, for minunet.nn and torch.nn have the same: `lambda nn: nn.Conv2d(64, 64, 3)`.
Work is counted by formula: `flops` are those of the definition, however a kernel computes it; `bytes` is the least traffic, each
array read or written once. Both are the same for all contestants.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import cycle
from typing import Any

import numpy as np

from minunet import Tensor, losses, manual_seed, nn, no_grad, optim, recording, use
from minunet import functional as F
from minunet.arrays import array_module, channels_first, channels_last, device_of, to_device
from minunet.autograd import Function
from minunet.bench.measure import QUICK, Contestant, Effort, compare, medians, take_turns
from minunet.models import UNet
from minunet.shapes import sizes_text

Shape = tuple[int, ...]
Maker = Callable[[Any], Any]

FORMATS = ("torch", "torch channels-last")
REF_LIMIT = 2.0  # seconds: beyond, the definition is not timed
NETS = ((4, 16, 128), (2, 32, 256), (1, 64, 256))  # (images, channels at the top, size): the UNets whose layers are timed
QUICK_NETS = ((1, 16, 32),)


@dataclass(frozen=True)
class Work:
    """images: of the bytes, those of images, which may have 16 bits; None for all."""

    flops: float
    bytes: float
    images: float | None = None

    def stored_in(self, width: int) -> Work:
        """The same with images of `width` bytes a number."""
        images = self.bytes if self.images is None else self.images
        return Work(self.flops, self.bytes - images * (1 - width / 4), images * width / 4)


@dataclass(frozen=True)
class Op:
    """One operation at one size.

    ours, theirs: from minunet.nn or from torch to a function of the inputs; theirs=None: the same constructor on torch.nn.
    work: 'forward' and the gradients to measure: 'grad_x' and 'grad_w' apart, or all in one as 'backward'.
    image: the inputs come from outside, channels first, and not from a layer before.
    """

    operation: str
    shape: str
    inputs: tuple[Shape, ...]
    work: dict[str, Work]
    ours: Maker
    theirs: Maker | None = None
    image: bool = False

    @property
    def is_convolution(self) -> bool:
        return "grad_w" in self.work

    def their_function(self, torch: Any) -> Any:
        return self.ours(torch.nn) if self.theirs is None else self.theirs(torch)


# ---- the table ----


def table(quick: bool = False) -> Iterator[Op]:
    """All rows; quick: one small network's."""
    for images, base, size in QUICK_NETS if quick else NETS:
        yield from unet_convolutions(images, base, size)
        yield from on_logits(images, size)
    shapes = [(4, 16, 128), (2, 32, 256), (1, 64, 256), (1, 256, 64), (1, 1024, 16)] if not quick else [(1, 16, 32)]
    for images, channels, size in shapes:
        yield from on_activations((images, channels, size, size))
    yield from _volumes((16, 32)[: 1 if quick else 2], 16 if quick else 64)


def unet_convolutions(images: int, base: int, size: int, depth: int = 4) -> Iterator[Op]:
    """Every convolution of one UNet, each shape once."""
    for channels in (1, 3):
        yield conv((images, channels, size, size), base, 3, padding=1)
    for level in range(depth + 1):
        c, s = base << level, size >> level
        if level:
            yield conv((images, c // 2, s, s), c, 3, padding=1)
        yield conv((images, c, s, s), c, 3, padding=1)
        if level == 0:
            plain = conv((images, c, s, s), c, 3, padding=1, name="conv 3×3 + ReLU")
            yield with_relu(plain, lambda nn, c=c, **relu: nn.Conv2d(c, c, 3, padding=1, **relu))
        if level < depth:
            yield conv((images, 2 * c, s, s), c, 3, padding=1, name="conv 3×3 of cat")
    for level in range(depth, 0, -1):
        c, s = base << level, size >> level
        yield conv_transpose((images, c, s, s), c // 2, 2, stride=2)
    yield conv_transpose((images, 2 * base, size // 2, size // 2), base, 3, stride=2, padding=1, output_padding=1)
    yield conv((images, 2 * base, size, size), base, 2, padding="same")
    yield conv((images, base, size, size), 2, 1)


def _volumes(channels: tuple[int, ...], size: int) -> Iterator[Op]:
    yield conv((1, 1, *(size,) * 3), channels[0], 3, padding=1)
    for level in range(3):
        c, s = channels[0] << level, size >> level
        yield conv((1, c, *(s,) * 3), c, 3, padding=1)
        if level == 0:
            yield conv((1, 2 * c, *(s,) * 3), c, 3, padding=1, name="conv 3×3×3 of cat")
    for c in channels:
        yield conv((1, c, *(size // 2,) * 3), c, 5, padding=2)
        yield conv_transpose((1, 2 * c, *(size // 2,) * 3), c, 2, stride=2)
    yield from on_activations((1, channels[0], *(size,) * 3))


def conv(x: Shape, outputs: int, k: int, *, name: str = "", padding: int | str = 0) -> Op:
    """A convolution that keeps the size. In each of the three sums every output meets every tap of every input channel once."""
    rank = len(x) - 2
    taps, pixels = k**rank, x[0] * math.prod(x[2:])
    images, weights = pixels * x[1] + pixels * outputs, outputs * x[1] * taps
    work = Work(2 * pixels * outputs * x[1] * taps, 4 * (images + weights), 4 * images)
    return Op(
        name or f"conv {sizes_text((k,) * rank)}",
        f"{_shape_text(x)}, {x[1]} → {outputs}",
        (x,),
        {"forward": work, "grad_x": work, "grad_w": work},
        lambda nn: getattr(nn, f"Conv{rank}d")(x[1], outputs, k, padding=padding),
        image=x[1] in (1, 3),
    )


def with_relu(op: Op, layer: Any) -> Op:
    """Ours computes the ReLU as the layer writes its result; PyTorch has a layer for it, which may overwrite its input."""
    return replace(
        op,
        ours=lambda nn: layer(nn, activation="relu"),
        theirs=lambda torch: torch.nn.Sequential(layer(torch.nn), torch.nn.ReLU(inplace=True)),
    )


def conv_transpose(x: Shape, outputs: int, k: int, **options: int) -> Op:
    """Doubles the size: every input meets every tap of every output channel."""
    rank = len(x) - 2
    pixels, taps = x[0] * math.prod(x[2:]), k**rank
    images, weights = pixels * x[1] + 2**rank * pixels * outputs, outputs * x[1] * taps
    work = Work(2 * pixels * outputs * x[1] * taps, 4 * (images + weights), 4 * images)
    return Op(
        f"up-conv {sizes_text((k,) * rank)}/2",
        f"{_shape_text(x)}, {x[1]} → {outputs}",
        (x,),
        {"forward": work, "grad_x": work, "grad_w": work},
        lambda nn: getattr(nn, f"ConvTranspose{rank}d")(x[1], outputs, k, **options),
    )


def on_activations(x: Shape) -> Iterator[Op]:
    """What works on maps of many channels. Counted are additions, products, comparisons, roots, exponentials: one each, for an element."""
    rank, channels, n = len(x) - 2, x[1], math.prod(x)
    small, big = n / 2**rank, n * 2**rank
    groups = math.gcd(8, channels)

    def op(operation: str, forward: Work, backward: Work, ours: Maker) -> Op:
        return Op(operation, f"{_shape_text(x)}, {channels}", (x,), {"forward": forward, "backward": backward}, ours)

    def numbers(flops: float, floats: float) -> Work:
        return Work(flops, 4 * floats)

    yield op(
        "max pool" + (" 3D" if rank == 3 else ""),
        numbers((2**rank - 1) * small, n + small),
        numbers(0, small + n),
        lambda nn: getattr(nn, f"MaxPool{rank}d")(2),
    )
    if n <= 1 << 22:  # their output is four or eight times as large
        linear, terms = ("bilinear", 7) if rank == 2 else ("trilinear", 15)
        yield op("nearest up", numbers(0, n + big), numbers(big, n + big), lambda nn: nn.Upsample(scale_factor=2, mode="nearest"))
        yield op(
            f"{linear} up",
            numbers(terms * big, n + big),
            numbers(terms * big, n + big),
            lambda nn: nn.Upsample(scale_factor=2, mode=linear),
        )
    yield op("ReLU", numbers(n, 2 * n), numbers(n, 3 * n), lambda nn: nn.ReLU())
    norms: dict[str, Any] = {
        "batch norm": lambda nn, **relu: getattr(nn, f"BatchNorm{rank}d")(channels, **relu),
        "instance norm": lambda nn, **relu: getattr(nn, f"InstanceNorm{rank}d")(channels, affine=True, **relu),
        "group norm": lambda nn, **relu: nn.GroupNorm(groups, channels, **relu),
    }
    for name, norm in norms.items():
        yield op(name, numbers(6 * n, 2 * n), numbers(9 * n, 3 * n), norm)
        yield with_relu(op(f"{name} + ReLU", numbers(7 * n, 2 * n), numbers(10 * n, 3 * n), norm), norm)
    mask = Work(2 * n, 9 * n, 8 * n)
    yield op("dropout", mask, mask, lambda nn: nn.Dropout(0.5))
    yield Op(
        "concatenate",
        f"{_shape_text(x)}, {channels}",
        (x, x),
        {"forward": numbers(0, 4 * n)},  # its gradient is two views of ∂y, no work
        lambda _: lambda a, b: F.cat([a, b], dim=1),
        lambda torch: lambda a, b: torch.cat([a, b], dim=1),
    )


def on_logits(images: int, size: int) -> Iterator[Op]:
    """The losses, for two classes, and for one logit a pixel where the name says so."""
    target = np.random.default_rng(1).integers(0, 2, (images, size, size))
    pixels = target.size

    def op(operation: str, channels: int, flops: tuple[float, float], ours: Any, theirs: Maker) -> Op:
        x = (images, channels, size, size)
        logits, numbers = 4 * channels * pixels, target.nbytes
        work = {
            "forward": Work(flops[0] * channels * pixels, logits + numbers, logits),
            "backward": Work(flops[1] * channels * pixels, 2 * logits + numbers, 2 * logits),
        }
        truth = cache(partial(to_device, target))  # where the logits are
        return Op(operation, f"{_shape_text(x)}, {channels}", (x,), work, lambda _: lambda z: ours(z, truth(z.device)), theirs)

    def cross_entropy(torch: Any) -> Any:
        truth = cache(torch.from_numpy(target).to)
        return lambda z: torch.nn.functional.cross_entropy(z, truth(z.device))

    def binary_cross_entropy(torch: Any) -> Any:
        truth = cache(torch.from_numpy(target.astype(np.float32)).to)
        return lambda z: torch.nn.functional.binary_cross_entropy_with_logits(z[:, 0], truth(z.device))

    def dice(torch: Any) -> Any:
        truth = cache(torch.from_numpy(target.astype(np.float32)).to)

        def loss(z: Any) -> Any:
            g = truth(z.device)
            p = torch.softmax(z, 1)[:, 1]
            over = ((2 * (p * g).sum((1, 2)) + 1) / (p.sum((1, 2)) + g.sum((1, 2)) + 1)).mean()
            return 1 - over

        return loss

    yield op("cross-entropy", 2, (5, 3), losses.cross_entropy, cross_entropy)
    yield op("binary cross-entropy", 1, (6, 4), losses.cross_entropy, binary_cross_entropy)
    yield op("Dice", 2, (8, 5), losses.dice_loss, dice)


def _shape_text(x: Shape) -> str:
    """(2, 64, 256, 256) → '2×256²'."""
    rank = len(x) - 2
    return f"{x[0]}×{x[2]}{' ²³'[rank - 1].strip()}"


# ---- measuring ----


class _Before(Function):
    """Stands for the network before: hands on `array`, takes its gradient and keeps nothing of it."""

    def forward(ctx, seed: Any, *, array: Any) -> Any:
        return array

    def backward(ctx, gy: Any) -> Any:
        return array_module(gy).zeros(1, np.float32)


def rows(torch: Any, effort: Effort, peaks: dict[str, float], only: str = "") -> Iterator[dict[str, Any]]:
    """Measures the table. torch: the module, or None to measure ours alone. only: rows whose operation or shape holds this text."""
    for op in table(quick=effort is QUICK):
        if only in f"{op.operation} {op.shape}":
            for direction, work in op.work.items():
                yield measured(op, direction, work, torch, effort, peaks)
    for base in (4,) if effort is QUICK else (16, 64):
        if only in f"Adam UNet, base {base}":
            yield _adam(base, torch, effort, peaks)


def measured(op: Op, direction: str, work: Work, torch: Any, effort: Effort, peaks: dict[str, float]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape, np.float32) for shape in op.inputs]
    manual_seed(0)
    contestants = {"cpu": our_contestant(op, direction, [inputs])}
    if torch is not None:
        torch.manual_seed(0)
        tensors = [[torch.from_numpy(a) for a in inputs]]
        contestants |= {name: torch_contestant(op, direction, tensors, torch, last=name != "torch") for name in FORMATS}
    times = take_turns(contestants, effort)
    reference = _definition(op, direction, inputs)
    extra = {} if reference is None else {"ref": [reference]}
    return row({"operation": op.operation, "shape": op.shape, "direction": direction}, work, times, extra, peaks)


def row(
    labels: dict[str, str],
    work: Work,
    times: dict[str, list[float]],
    extra: dict[str, list[float]],
    peaks: dict[str, float],
    ours: str = "cpu",
    rivals: tuple[str, ...] = FORMATS,
) -> dict[str, Any]:
    """One row of results. share: the time that the machine's limits allow, by arithmetic or by traffic, divided by ours.

    rivals: those of whom the fastest counts.
    """
    seconds = float(np.median(times[ours]))
    limit = max(work.flops / peaks["gflops"], work.bytes / peaks["gbytes"]) / 1e9
    return {
        **labels,
        "flops": work.flops,
        "bytes": work.bytes,
        "seconds": medians(times | extra),
        **compare(times, ours, list(rivals)),
        "gflops": work.flops / seconds / 1e9,
        "gbytes": work.bytes / seconds / 1e9,
        "share": limit / seconds,
    }


def our_contestant(op: Op, direction: str, sets: list[list[Any]]) -> Contestant:
    """sets: equal arrays for the inputs, on the processor or the GPU; successive calls take the next, the first after the last.

    The inputs lie in memory as a layer before leaves them, channels last.
    """
    function = op.ours(nn)
    parameters = []
    if isinstance(function, nn.Module):
        parameters = list(function.to(device_of(sets[0][0])).parameters())
    inputs = [arrays if op.image else [channels_first(channels_last(a)) for a in arrays] for arrays in sets]
    if direction == "forward":

        def forward(arrays: Any) -> Any:
            with no_grad():
                return function(*map(Tensor, arrays))

        return Contestant(forward, cycle(inputs).__next__)
    for p in parameters:
        p.requires_grad = direction != "grad_x"
    turns = cycle(range(len(inputs)))
    gradients: list[Any] = [None] * len(inputs)  # of the outputs: drawn once, then copied

    def prepare() -> Any:
        turn = next(turns)
        seed = Tensor(array_module(inputs[turn][0]).zeros(1, np.float32), requires_grad=direction != "grad_w")
        y = function(*(_Before.apply(seed, array=a) for a in inputs[turn]))
        if gradients[turn] is None:
            gradients[turn] = gradients[0].copy(order="K") if turn else _output_gradient(y.data)
        return y, gradients[turn]

    def backward(prepared: Any) -> None:
        y, gy = prepared
        y.backward(gy)
        for p in parameters:
            p.grad = None

    return Contestant(backward, prepare)


def _output_gradient(y: Any) -> Any:
    """Random, in the memory order of y."""
    gy = array_module(y).empty_like(y)
    gy[...] = to_device(np.random.default_rng(2).standard_normal(y.shape, np.float32), device_of(y))
    return gy


def torch_contestant(op: Op, direction: str, sets: list[list[Any]], torch: Any, last: bool) -> Contestant:
    """sets: as above, of tensors, whose dtype the weights get. last: PyTorch's own channels-last memory format, for all of them."""
    order = {4: torch.channels_last, 5: torch.channels_last_3d}.get(sets[0][0].ndim) if last else torch.contiguous_format
    function = op.their_function(torch)
    parameters = []
    if isinstance(function, torch.nn.Module):
        function = function.to(sets[0][0].device, sets[0][0].dtype, memory_format=order)
        parameters = list(function.parameters())
    inputs = [[t.detach().contiguous(memory_format=order) for t in tensors] for tensors in sets]
    if direction == "forward":

        def forward(tensors: Any) -> Any:
            with torch.no_grad():
                return function(*tensors)

        return Contestant(forward, cycle(inputs).__next__)
    for p in parameters:
        p.requires_grad_(direction != "grad_x")
    for tensor in (t for tensors in inputs for t in tensors):
        tensor.requires_grad_(direction != "grad_w")
    turns = cycle(range(len(inputs)))
    gradients: list[Any] = [None] * len(inputs)  # of the outputs: drawn once, then copied

    def drawn(y: Any) -> Any:
        gy = torch.from_numpy(np.random.default_rng(2).standard_normal(tuple(y.shape), np.float32)).to(y.device, y.dtype)
        return gy.contiguous(memory_format=order) if y.ndim == inputs[0][0].ndim else gy

    def prepare() -> Any:
        turn = next(turns)
        y = function(*inputs[turn])
        if gradients[turn] is None:
            gradients[turn] = gradients[0].clone() if turn else drawn(y)
        wanted = ([] if direction == "grad_w" else inputs[turn]) + ([] if direction == "grad_x" else parameters)
        return y, wanted, gradients[turn]

    return Contestant(lambda prepared: torch.autograd.grad(*prepared), prepare)


def _definition(op: Op, direction: str, inputs: list[Any]) -> float | None:
    """Seconds of one call of the definition, `ref`; None where it takes too long, or where there is but one set of lines."""
    with use("ref"), recording() as kernels:
        contestant = our_contestant(op, direction, [inputs])
        prepared = contestant.prepare()
        start = time.perf_counter()
        contestant.run(prepared)
        seconds = time.perf_counter() - start
    return seconds if kernels and seconds < REF_LIMIT else None


def _adam(base: int, torch: Any, effort: Effort, peaks: dict[str, float]) -> dict[str, Any]:
    """One step over all weights of a UNet, as many arrays as it has. PyTorch's fused step is measured beside its ordinary one."""
    contestants = {"cpu": our_adam(base)}
    if torch is not None:
        contestants |= {"torch": torch_adam(base, torch, None), "torch fused": torch_adam(base, torch, True)}
    return row(*adam_work(base), take_turns(contestants, effort), {}, peaks)


def adam_work(base: int) -> tuple[dict[str, str], Work]:
    """The labels of the row, and what a step does."""
    count = sum(p.size for p in UNet(1, 2, base_channels=base).parameters())
    return {"operation": "Adam", "shape": f"UNet, base {base}", "direction": "step"}, Work(12 * count, 7 * 4 * count)


def our_adam(base: int, device: str = "cpu", sets: int = 1) -> Contestant:
    """sets: networks whose turn it is one after the other."""
    optimizers = []
    for _ in range(sets):
        parameters = list(UNet(1, 2, base_channels=base).to(device).parameters())
        for p in parameters:
            p.grad = _output_gradient(p.data)
        optimizers.append(optim.Adam(parameters))
    return Contestant(lambda optimizer: optimizer.step(), cycle(optimizers).__next__)


def torch_adam(base: int, torch: Any, fused: bool | None, device: str = "cpu", sets: int = 1) -> Contestant:
    optimizers = []
    for _ in range(sets):
        parameters = [torch.nn.Parameter(torch.from_numpy(p.data.copy()).to(device)) for p in UNet(1, 2, base_channels=base).parameters()]
        for p in parameters:
            p.grad = torch.from_numpy(np.random.default_rng(2).standard_normal(tuple(p.shape), np.float32)).to(device)
        optimizers.append(torch.optim.Adam(parameters, fused=fused))
    return Contestant(lambda optimizer: optimizer.step(), cycle(optimizers).__next__)
