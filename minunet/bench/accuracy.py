"""How far float32 convolutions are from float64: ours, which may multiply less than the definition says, and PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minunet import Tensor, manual_seed, nn, use
from minunet.bench.measure import relative_error
from minunet.bench.ops import Op, conv, conv_transpose
from minunet.bench.rivals import load

DIRECTIONS = ("forward", "grad_x", "grad_w")


def table(quick: bool = False) -> Iterator[Op]:
    """3×3 convolutions of 16 to 1024 channels, then the others of a UNet and those of a V-Net."""
    if quick:
        yield conv((1, 16, 16, 16), 16, 3, padding=1)
        return
    for channels, images, size in ((16, 4, 128), (32, 2, 256), (64, 1, 256), (128, 1, 128), (256, 1, 64), (512, 1, 32), (1024, 1, 16)):
        yield conv((images, channels, size, size), channels, 3, padding=1)
    yield conv((1, 1, 256, 256), 64, 3, padding=1)
    yield conv((1, 128, 256, 256), 64, 3, padding=1, name="conv 3×3 of cat")
    yield conv((1, 1024, 32, 32), 512, 3, padding=1, name="conv 3×3 of cat")
    yield conv_transpose((1, 128, 128, 128), 64, 2, stride=2)
    yield conv((1, 64, 256, 256), 2, 1)
    for channels, size in ((16, 64), (32, 32), (64, 16)):
        yield conv((1, channels, *(size,) * 3), channels, 3, padding=1)
    for channels, size in ((16, 32), (32, 32), (64, 16)):  # V-Net's
        yield conv((1, channels, *(size,) * 3), channels, 5, padding=2)


def rows(torch: Any, quick: bool, only: str = "") -> Iterator[dict[str, Any]]:
    """error: ‖y − exact‖/‖exact‖ in float32. ratio: ours ÷ PyTorch's, below 1 where ours is nearer."""
    for op in table(quick):
        if only not in f"{op.operation} {op.shape}":
            continue
        (shape,) = op.inputs
        x = np.random.default_rng(0).standard_normal(shape, np.float32)  # numbers that both have: their rounding is nobody's error
        exact = _ours(op, x, np.float64, "ref")
        found = {"ours": _ours(op, x, np.float32, "auto")}
        if torch is not None:
            found["torch"] = _torch(op, x, torch)
        for i, direction in enumerate(DIRECTIONS):
            error = {name: relative_error(values[i], exact[i]) for name, values in found.items()}
            ratio = {"ratio": error["ours"] / error["torch"]} if "torch" in error else {}
            yield {"operation": op.operation, "shape": op.shape, "direction": direction, "error": error, **ratio}


def _layer(op: Op) -> Any:
    """The same weights at each call: He's distribution, which keeps the spread of the activations."""
    manual_seed(0)
    layer = op.ours(nn)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layer


def _ours(op: Op, x: Any, dtype: Any, kernel_set: str) -> list[Any]:
    """[y, ∂x, ∂w] for a random ∂y."""
    layer = _layer(op)
    for p in layer.parameters():
        p.data = p.data.astype(dtype)
    with use(kernel_set):
        tensor = Tensor(x.astype(dtype), requires_grad=True)
        y = layer(tensor)
        y.backward(_output_gradient(y.shape).astype(dtype))
    return [y.data, tensor.grad, layer.weight.grad]


def _torch(op: Op, x: Any, torch: Any) -> list[Any]:
    layer = load(op.their_function(torch), _layer(op), torch)
    tensor = torch.from_numpy(x).requires_grad_()
    y = layer(tensor)
    y.backward(torch.from_numpy(_output_gradient(tuple(y.shape))))
    return [y.detach().numpy(), tensor.grad.numpy(), layer.weight.grad.numpy()]


def _output_gradient(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(1).standard_normal(shape, np.float32)
