"""Whole networks: a training step (forward, cross-entropy, backward, Adam), prediction, the memory of a step, and how right both are."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minunet import Tensor, cuda, losses, manual_seed, no_grad, optim
from minunet.arrays import to_device
from minunet.bench.measure import Contestant, Effort, compare, medians, relative_error, take_turns
from minunet.bench.ops import FORMATS
from minunet.bench.rivals import keras_unet, load, torch_unet
from minunet.inspection import summary
from minunet.models import UNet
from minunet.nn import Module
from minunet.optim.scaling import LossScaler
from minunet.train.precision import as_images, multiplying

CLASSES = 2
GRAPH = "training, one graph"
SIDES = ("ours", *FORMATS)


@dataclass(frozen=True)
class Network:
    """ours() → a minunet network; theirs(torch) → the same in PyTorch under the same names, None where nobody wrote it.

    shape: the input's, (N, C, *spatial). keras: the arguments of `keras_unet`, where Keras is measured too.
    """

    name: str
    shape: tuple[int, ...]
    ours: Callable[[], Module]
    theirs: Callable[[Any], Any] | None = None
    keras: dict[str, Any] | None = field(default=None)

    @property
    def size(self) -> str:
        return "×".join(map(str, self.shape))


def unet(shape: tuple[int, ...], name: str = "UNet", **options: Any) -> Network:
    """A UNet of these options, here and in PyTorch, and in Keras where it is the plain one."""
    options = {"rank": len(shape) - 2, **options}
    plain = {"base_channels", "depth", "rank"}
    return Network(
        f"{name}, base {options['base_channels']}",
        shape,
        lambda: UNet(shape[1], CLASSES, **options),
        lambda torch: torch_unet(torch, shape[1], CLASSES, **options),
        {k: v for k, v in options.items() if k != "rank"} if set(options) <= plain else None,
    )


UNETS = (
    unet((4, 1, 128, 128), base_channels=16),
    unet((2, 1, 256, 256), base_channels=32),
    unet((1, 1, 256, 256), base_channels=64),
    unet((1, 1, 64, 64, 64), "UNet 3D", base_channels=16, depth=3),
    unet((2, 1, 256, 256), "UNet, batch norm", base_channels=32, norm="batch"),
)

MODELS = (  # a further network is one line
    unet((2, 1, 256, 256), "UNet, instance norm", base_channels=32, norm="instance"),
    unet((2, 1, 256, 256), "UNet, group norm", base_channels=32, norm="group"),
    unet((2, 1, 256, 256), "UNet, nearest up", base_channels=32, up="nearest"),
    unet((2, 1, 256, 256), "UNet, bilinear up", base_channels=32, up="bilinear"),
    unet((2, 1, 256, 256), "UNet, depth 3", base_channels=32, depth=3),
    unet((2, 1, 256, 256), "UNet, depth 5", base_channels=32, depth=5),
    unet((2, 3, 256, 256), "UNet, colour", base_channels=32),
    unet((1, 1, 64, 64, 64), "UNet 3D, batch norm", base_channels=16, depth=3, norm="batch"),
)

QUICK_UNETS = (
    unet((1, 1, 32, 32), base_channels=8, depth=2),
    unet((1, 1, 8, 8, 8), "UNet 3D, batch norm", base_channels=8, depth=1, norm="batch"),
)
QUICK_MODELS = (unet((1, 1, 32, 32), "UNet, group norm, nearest up", base_channels=8, depth=2, norm="group", up="nearest"),)


def data(network: Network) -> tuple[Any, Any]:
    """Images of noise and a target of random classes: the arithmetic is the same for all images."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(network.shape, np.float32)
    return x, rng.integers(0, CLASSES, (network.shape[0], *network.shape[2:]))


# ---- time ----


def rows(networks: tuple[Network, ...], torch: Any, effort: Effort, peaks: dict[str, float], only: str = "") -> Iterator[dict[str, Any]]:
    """A row for training and one for prediction of each network. torch: the module, or None to measure ours alone."""
    for network in networks:
        if only not in f"{network.name} {network.size}":
            continue
        macs = summary(network.ours(), network.shape).macs
        sides = {"ours": our_steps(network)}
        if torch is not None and network.theirs is not None:
            sides |= {name: torch_steps(network, torch, name) for name in FORMATS}
        errors = _errors(network, torch)
        for mode, flops in (("training", 6 * macs), ("prediction", 2 * macs)):  # a backward costs two forwards
            times = take_turns({name: side[mode] for name, side in sides.items()}, effort)
            seconds = medians(times)
            gflops = flops / seconds["ours"] / 1e9
            yield {
                "network": network.name,
                "shape": network.size,
                "mode": mode,
                "flops": flops,
                "seconds": seconds,
                **compare(times, "ours", list(FORMATS)),
                "gflops": gflops,
                "share": gflops / peaks["gflops"],
                **(errors if mode == "training" else {}),
            }


def against(network: Network, rival: str, torch: Any, keras: Any, effort: Effort) -> Iterator[dict[str, Any]]:
    """The same against a rival that compiles the network, in turns with ours again."""
    if rival == "torch.compile" and network.theirs is not None:
        other = torch_steps(network, torch, "torch", compiles(torch))
    elif rival == "Keras on JAX" and network.keras is not None:
        other = _keras(network, keras)
    else:
        return
    ours = our_steps(network)
    for mode in ours:
        times = take_turns({"ours": ours[mode], rival: other[mode]}, effort)
        yield {"mode": mode, "seconds": medians(times)[rival], "ratio": compare(times, "ours", [rival])["ratio"]}


Around = Callable[[], AbstractContextManager[Any]]


def our_steps(network: Network, device: str = "cpu", precision: str = "float32") -> dict[str, Contestant]:
    """precision: as in `minunet.train.precision`. In fp16 the loss is scaled. Else, on a GPU, there is training as one CUDA graph too."""
    manual_seed(0)
    model = network.ours().to(device)
    optimizer = optim.Adam(model.parameters())
    images, target = data(network)
    x, target = to_device(as_images(images, precision), device), to_device(target, device)
    scaler = LossScaler() if precision == "fp16" else None

    def train(x: Any, target: Any) -> None:
        model.train()
        optimizer.zero_grad()
        with multiplying(precision):
            loss = losses.cross_entropy(model(Tensor(x)), target)
            (loss if scaler is None else loss * scaler.scale).backward()
        if scaler is None or scaler.unscale(optimizer):
            optimizer.step()

    def predict(_: Any) -> Any:
        model.eval()
        with no_grad(), multiplying(precision):
            return model(Tensor(x)).data

    steps = {"training": Contestant(lambda _: train(x, target))}
    if device == "cuda" and scaler is None:
        graph = cuda.graph(train)
        steps[GRAPH] = Contestant(lambda _: graph(x, target))
    return {**steps, "prediction": Contestant(predict)}


def torch_steps(
    network: Network,
    torch: Any,
    name: str,
    wrap: Callable[[Any], Any] = lambda model: model,
    device: str = "cpu",
    around: Around = nullcontext,
    fused: bool | None = None,
    scaled: bool = False,
) -> dict[str, Contestant]:
    """name: one of FORMATS. wrap: compiles the network. around: what a forward and its loss run within, such as an autocast.

    fused: whether Adam is one kernel; None leaves that to PyTorch. scaled: whether the loss is, as FP16 needs it.
    """
    assert network.theirs is not None
    order = torch.contiguous_format
    if name == "torch channels-last":
        order = torch.channels_last if len(network.shape) == 4 else torch.channels_last_3d
    manual_seed(0)
    model = load(network.theirs(torch), network.ours(), torch).to(device, memory_format=order)
    optimizer = torch.optim.Adam(model.parameters(), fused=fused)
    called, scaler = wrap(model), torch.amp.GradScaler(device, enabled=scaled)
    x, target = (torch.from_numpy(a).to(device) for a in data(network))
    x = x.contiguous(memory_format=order)

    def step(_: Any) -> None:
        model.train()
        optimizer.zero_grad()
        with around():
            loss = torch.nn.functional.cross_entropy(called(x), target)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    def predict(_: Any) -> Any:
        model.eval()
        with torch.no_grad(), around():
            return called(x)

    return {"training": Contestant(step), "prediction": Contestant(predict)}


def compiles(torch: Any) -> Callable[[Any], Any]:
    """torch.compile that knows of no network before: it compiles the same lines eight times, and then runs them as they are, silently."""

    def compiled(model: Any) -> Any:
        torch.compiler.reset()
        return torch.compile(model)

    return compiled


def _keras(network: Network, keras: Any) -> dict[str, Contestant]:
    x, target = data(network)
    x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    model = keras_unet(keras, x.shape[1:], CLASSES, **(network.keras or {}))
    return {
        "training": Contestant(lambda _: model.train_on_batch(x, target)),
        "prediction": Contestant(lambda _: model.predict_on_batch(x)),
    }


# ---- are both right? ----


def _errors(network: Network, torch: Any) -> dict[str, Any]:
    """How far loss and gradient, in float32 and with the same weights, are from PyTorch's in float64. Nothing without PyTorch.

    A ReLU or a maximum that is decided otherwise changes a gradient by more than rounding does, on both sides.
    """
    if torch is None or network.theirs is None:
        return {}
    manual_seed(0)
    ours = network.ours()
    x, target = data(network)
    loss = losses.cross_entropy(ours(Tensor(x)), target)
    loss.backward()
    found = {"ours": (loss.item(), {name: p.grad for name, p in ours.named_parameters()})}
    for name, dtype in (("torch", torch.float32), ("exact", torch.float64)):
        manual_seed(0)
        theirs = load(network.theirs(torch), network.ours(), torch).to(dtype)
        value = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x).to(dtype)), torch.from_numpy(target))
        value.backward()
        found[name] = (value.item(), {n: p.grad.numpy() for n, p in theirs.named_parameters()})
    exact_loss, exact = found.pop("exact")
    return {
        "loss_error": {name: abs(value - exact_loss) / abs(exact_loss) for name, (value, _) in found.items()},
        "gradient_error": {name: relative_error([g[n] for n in exact], list(exact.values())) for name, (_, g) in found.items()},
    }


# ---- memory ----


def memory(network: Network, side: str, torch: Any, steps: int = 3) -> float:
    """MiB at the peak of training in this process, above what weights, data and libraries take before the first step. Linux only.

    The weights' gradients and Adam's moments are part of it. A small network trains first, so that compiling is not.
    """
    make = our_steps if side == "ours" else lambda net: torch_steps(net, torch, side)
    small = unet((1, network.shape[1], *(16,) * (len(network.shape) - 2)), base_channels=4, depth=1)
    make(small)["training"].run(None)
    step = make(network)["training"].run
    gc.collect()
    before = _forget_peak()
    for _ in range(steps):
        step(None)
    return max(_status("VmHWM") - before, 1) / 1024


def _forget_peak() -> int:
    """KiB in use; what was used before no longer counts as the peak, where the system lets us say so."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _status("VmHWM")
    return _status("VmRSS")


def _status(entry: str) -> int:
    return int(Path("/proc/self/status").read_text().partition(f"{entry}:")[2].split()[0])
