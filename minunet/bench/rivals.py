"""The same networks in other frameworks, written as their users write them. In PyTorch with our names, so that weights go over by name."""

from __future__ import annotations

import math
from typing import Any


def torch_unet(
    torch: Any,
    in_channels: int,
    out_channels: int,
    *,
    base_channels: int = 64,
    depth: int = 4,
    rank: int = 2,
    norm: str | None = None,
    up: str = "transposed",
) -> Any:
    """`minunet.models.UNet` as a torch.nn.Module."""
    nn = torch.nn
    Conv, ConvTranspose = getattr(nn, f"Conv{rank}d"), getattr(nn, f"ConvTranspose{rank}d")
    norms = {
        "batch": getattr(nn, f"BatchNorm{rank}d"),
        "instance": lambda channels: getattr(nn, f"InstanceNorm{rank}d")(channels, affine=True),
        "group": lambda channels: nn.GroupNorm(math.gcd(8, channels), channels),
    }

    class DoubleConv(nn.Module):  # type: ignore[name-defined]
        def __init__(self, a: int, b: int) -> None:
            super().__init__()
            self.conv1 = Conv(a, b, 3, padding=1, bias=norm is None)
            self.norm1 = norms[norm](b) if norm else nn.Identity()
            self.conv2 = Conv(b, b, 3, padding=1, bias=norm is None)
            self.norm2 = norms[norm](b) if norm else nn.Identity()

        def forward(self, x: Any) -> Any:
            x = torch.relu_(self.norm1(self.conv1(x)))
            return torch.relu_(self.norm2(self.conv2(x)))

    class UpConv(nn.Module):  # type: ignore[name-defined]
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv = ConvTranspose(channels, channels // 2, 2, stride=2) if up == "transposed" else Conv(channels, channels // 2, 2)

        def forward(self, x: Any) -> Any:
            if up == "transposed":
                return self.conv(x)
            mode = "nearest" if up == "nearest" else {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]
            x = nn.functional.interpolate(x, scale_factor=2, mode=mode)
            return self.conv(nn.functional.pad(x, (0, 1) * rank))

    class UNet(nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            channels = [base_channels << level for level in range(depth + 1)]
            self.encoder = nn.ModuleList(DoubleConv(a, b) for a, b in zip([in_channels, *channels], channels[:-1], strict=False))
            self.pool = getattr(nn, f"MaxPool{rank}d")(2)
            self.bottleneck = DoubleConv(channels[-2], channels[-1])
            self.ups = nn.ModuleList(UpConv(c) for c in reversed(channels[1:]))
            self.decoder = nn.ModuleList(DoubleConv(2 * c, c) for c in reversed(channels[:-1]))
            self.head = Conv(base_channels, out_channels, 1)

        def forward(self, x: Any) -> Any:
            skips = []
            for convs in self.encoder:
                skips.append(convs(x))
                x = self.pool(skips[-1])
            x = self.bottleneck(x)
            for up_conv, convs in zip(self.ups, self.decoder, strict=True):
                x = convs(torch.cat([skips.pop(), up_conv(x)], dim=1))
            return self.head(x)

    return UNet()


def load(theirs: Any, ours: Any, torch: Any) -> Any:
    """Our weights and buffers into a PyTorch network of the same names."""
    theirs.load_state_dict({name: torch.from_numpy(value.data.copy()) for name, value in ours.state_dict().items()})
    return theirs


def keras_unet(keras: Any, input_shape: tuple[int, ...], classes: int, *, base_channels: int = 64, depth: int = 4) -> Any:
    """A UNet without norms, channels last, compiled for training. input_shape: (H, W, C) or (D, H, W, C)."""
    layers, rank = keras.layers, len(input_shape) - 1
    Conv = getattr(layers, f"Conv{rank}D")

    def double(x: Any, channels: int) -> Any:
        for _ in range(2):
            x = Conv(channels, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
        return x

    image = keras.Input(input_shape)
    x, skips = image, []
    for level in range(depth):
        skips.append(double(x, base_channels << level))
        x = getattr(layers, f"MaxPooling{rank}D")(2)(skips[-1])
    x = double(x, base_channels << depth)
    for level in reversed(range(depth)):
        x = getattr(layers, f"Conv{rank}DTranspose")(base_channels << level, 2, strides=2)(x)
        x = double(layers.Concatenate()([skips.pop(), x]), base_channels << level)
    model = keras.Model(image, Conv(classes, 1)(x))
    model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model
