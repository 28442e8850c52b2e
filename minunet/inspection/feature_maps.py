"""What each layer answers to an image."""

from __future__ import annotations

from collections import Counter
from typing import Any

from minunet.arrays import Array
from minunet.autograd import no_grad
from minunet.nn import Module
from minunet.tensor import Tensor


def feature_maps(model: Module, x: Any) -> dict[str, Array]:
    """{layer name: its output array} in the order of execution, for x (N, C, *spatial), a tensor or an array.

    The model runs in evaluation mode and keeps the mode it was in. A layer used several times, as UNet's pooling, appears as
    "pool", "pool (2)", ….
    """
    maps: dict[str, Array] = {}
    calls: Counter[str] = Counter()
    handles = []

    def keep(name: str, output: Any) -> None:
        maps[call_name(name, calls)] = (output[0] if isinstance(output, tuple) else output).data

    modes = {module: module.training for module in model.modules()}
    try:
        for name, module in layers_of(model):
            handles.append(module.register_forward_hook(lambda _, __, output, name=name: keep(name, output)))
        with no_grad():
            model.eval()(x if isinstance(x, Tensor) else Tensor(x))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return maps


def layers_of(model: Module) -> list[tuple[str, Module]]:
    """The modules that hold no others, by name."""
    return [(name or type(module).__name__, module) for name, module in model.named_modules() if not any(module.children())]


def call_name(name: str, calls: Counter[str]) -> str:
    """A name for each call of a layer: "pool", "pool (2)", …. `calls` is counted on."""
    calls[name] += 1
    return name if calls[name] == 1 else f"{name} ({calls[name]})"
