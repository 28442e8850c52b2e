"""The parts that networks of the UNet family share, for signals (rank 1), images (rank 2) and volumes (rank 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minunet import functional as F
from minunet import memory, nn
from minunet.arrays import array_module, channels_first
from minunet.shapes import sizes_text
from minunet.tensor import Tensor


class Layers(NamedTuple):
    """The layer classes of one rank, and what its axes are called."""

    Conv: Any
    ConvTranspose: Any
    MaxPool: Any
    BatchNorm: Any
    InstanceNorm: Any
    linear: str  # the interpolation that is linear along every axis
    axes: str
    layout: str


LAYERS = {
    1: Layers(nn.Conv1d, nn.ConvTranspose1d, nn.MaxPool1d, nn.BatchNorm1d, nn.InstanceNorm1d, "linear", "length", "(N, C, L)"),
    2: Layers(
        nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.BatchNorm2d, nn.InstanceNorm2d, "bilinear", "height and width", "(N, C, H, W)"
    ),
    3: Layers(
        nn.Conv3d,
        nn.ConvTranspose3d,
        nn.MaxPool3d,
        nn.BatchNorm3d,
        nn.InstanceNorm3d,
        "trilinear",
        "depth, height and width",
        "(N, C, D, H, W)",
    ),
}


def make_norm(norm: str, channels: int, rank: int, *, activation: str | None = None) -> nn.Module:
    """ "batch", "instance" (with scale and shift) or "group" normalisation (8 groups, or as many as divide the channels)."""
    if norm == "batch":
        return LAYERS[rank].BatchNorm(channels, activation=activation)
    if norm == "instance":
        return LAYERS[rank].InstanceNorm(channels, affine=True, activation=activation)
    return nn.GroupNorm(math.gcd(8, channels), channels, activation=activation)


class DoubleConv(nn.Module):
    """Twice: 3×3 convolution, [normalisation,] ReLU.

    (N, in, H, W) → (N, out, H, W) with padding="same", (N, out, H−4, W−4) with "valid".
    The ReLU is part of the layer before it: of the normalisation, or of the convolution where there is none. Where there is one, the
    convolutions have no bias, the normalisation has one.
    """

    norm1: Any
    norm2: Any

    def __init__(self, in_channels: int, out_channels: int, *, rank: int = 2, padding: str = "same", norm: str | None = None) -> None:
        super().__init__()
        Conv, activation = LAYERS[rank].Conv, None if norm else "relu"
        self.conv1 = Conv(in_channels, out_channels, 3, padding=padding, bias=norm is None, activation=activation)
        self.norm1 = make_norm(norm, out_channels, rank, activation="relu") if norm else None
        self.conv2 = Conv(out_channels, out_channels, 3, padding=padding, bias=norm is None, activation=activation)
        self.norm2 = make_norm(norm, out_channels, rank, activation="relu") if norm else None

    def forward(self, x: Tensor, out: Any = None) -> Tensor:
        """out: an array to write the result into, such as one half of a concatenation."""
        if self.norm1 is None:
            return self.conv2(self.conv1(x), out=out)
        return self.norm2(self.conv2(self.norm1(self.conv1(x))), out=out)


class UpConv(nn.Module):
    """Up-convolution: (N, C, H, W) → (N, C/2, 2H, 2W).

    up="transposed": a 2×2 transposed convolution with stride 2; its windows touch but do not overlap, so no checkerboard arises.
    up="nearest" or "bilinear": upsampling, then a 2×2 convolution that halves the channels, as the 2015 paper words it; "same"
    padding, with Keras' meaning: the row of zeros goes to the end. ("bilinear" is linear along every axis, whatever the rank.)
    The three have the same number of parameters.
    """

    def __init__(self, channels: int, *, rank: int = 2, up: str = "transposed") -> None:
        super().__init__()
        layers = LAYERS[rank]
        if up == "transposed":
            self.upsample = None
            self.conv = layers.ConvTranspose(channels, channels // 2, 2, stride=2)
        else:
            self.upsample = nn.Upsample(scale_factor=2, mode="nearest" if up == "nearest" else layers.linear)
            self.conv = layers.Conv(channels, channels // 2, 2, padding="same")

    def forward(self, x: Tensor, out: Any = None) -> Tensor:
        return self.conv(x if self.upsample is None else self.upsample(x), out=out)


def two_halves(x: Tensor, channels: int) -> tuple[Any, Any]:
    """Two arrays (N, channels, *spatial), spatial as in x, that are the halves of one buffer's channels.

    What is written into both is concatenated already: `F.cat` of the two is the buffer.
    """
    xp = array_module(x.data)
    shape = (x.shape[0], *x.shape[2:], 2 * channels)
    both = channels_first(memory.empty(shape, x.dtype) if xp is np else xp.empty(shape, x.dtype))
    return both[:, :channels], both[:, channels:]


def check_image(name: str, x: Tensor, rank: int, channels: int) -> None:
    """Raises ValueError where x is no (N, channels, *spatial) of this rank. name: of the network, for the sentence."""
    if x.ndim != rank + 2:
        raise ValueError(f"{name} of rank {rank} expects {LAYERS[rank].layout}, got {x.ndim} axes: {sizes_text(x.shape) or 'a scalar'}.")
    if x.shape[1] != channels:
        raise ValueError(
            f"{name} was built for images of {channels} channels, got {x.shape[1]} channels: {sizes_text(x.shape)}. "
            f"Convert the images, or build {name}(in_channels={x.shape[1]}, …)."
        )


def check_pad(pad: str | None) -> None:
    """Raises ValueError where `pad` is no way that `pad_to` knows, nor None."""
    if pad not in (None, "reflect", "replicate", "constant"):
        raise ValueError(f"pad is None, 'reflect', 'replicate' or 'constant'; got {pad!r}.")


def pad_to(x: Tensor, sizes: Sequence[int], mode: str) -> Tensor:
    """x (N, C, *spatial) extended on both sides to `sizes`; an odd pixel goes to the end."""
    pads: list[int] = []
    for n, padded in zip(reversed(x.shape[2:]), reversed(sizes), strict=True):
        pads += [(padded - n) // 2, padded - n - (padded - n) // 2]  # the last axis comes first, as in PyTorch
    return F.pad(x, pads, mode=mode) if any(pads) else x
