"""The network of Noise2Noise: an image in, an image out.

    n ──────────────────────────── concatenate ──────────────────────────▶ 96+n  64  32  m
      48 48 ▼ 2×2 max pooling                            2×2 nearest ▲
             48 ─────────────── concatenate ──────────▶ 144  96 96
              ▼                                              ▲
              …  (five poolings)                             …
               48 ▼                              ▲
                   48 (the bottleneck) ──────────

It is narrow and deep: 48 channels on the way down, 96 on the way up, five levels. The skips start behind the poolings and at the image
itself, so the last level sees every input pixel beside what was made of it. No normalisation and no dropout: an output pixel is a value,
not a class, and its scale matters.

Lehtinen, Munkberg, Hasselgren, Laine, Karras, Aittala & Aila, Noise2Noise: Learning Image Restoration without Clean Data, ICML 2018,
arXiv:1803.04189, table 2.
"""

from __future__ import annotations

import os
from typing import Any

from minunet import checkpoint, nn
from minunet import functional as F
from minunet.models.blocks import LAYERS, check_image, check_pad, pad_to
from minunet.nn import Module
from minunet.shapes import sizes_text
from minunet.tensor import Tensor

SLOPE = 0.1  # of the leaky ReLU, for negative values
DEPTH = 5  # poolings
MULTIPLE = 2**DEPTH  # what the sizes of an image must be divisible by


class Noise2NoiseUNet(Module):
    """(N, in_channels, H, W) → (N, out_channels, H, W); with rank=3 (N, C, D, H, W), with rank=1 (N, C, L).

    All convolutions are 3×3 and keep the size; leaky ReLU of slope 0.1 behind each but the last, which is linear. Images are meant to
    lie in [−0.5, 0.5]. Height and width must be divisible by 32.

    Weights start as He's normal distribution for that slope, biases as 0. Noise2NoiseUNet(3, 3) has 991,203 parameters.
    """

    def __init__(self, in_channels: int, out_channels: int, *, rank: int = 2) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if value < 1:
                raise ValueError(f"Noise2NoiseUNet: {name} must be at least 1, got {value}.")
        if rank not in LAYERS:
            raise ValueError(f"Noise2NoiseUNet: rank is one of {', '.join(map(str, LAYERS))}; got {rank!r}.")
        self.in_channels, self.out_channels, self.rank = in_channels, out_channels, rank
        layers = LAYERS[rank]

        def conv(a: int, b: int) -> Any:
            return layers.Conv(a, b, 3, padding="same")

        self.first = conv(in_channels, 48)
        self.encoder = nn.ModuleList(conv(48, 48) for _ in range(DEPTH))
        self.bottleneck = conv(48, 48)
        self.pool = layers.MaxPool(2)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        incoming = [48 + 48, *[96 + 48] * (DEPTH - 2), 96 + in_channels]  # up-sampled and skip, from the bottom to the top
        widths = [(96, 96)] * (DEPTH - 1) + [(64, 32)]
        self.decoder = nn.ModuleList(nn.ModuleList([conv(a, b), conv(b, c)]) for a, (b, c) in zip(incoming, widths, strict=True))
        self.head = conv(32, out_channels)
        self.apply(_he)
        nn.init.kaiming_normal_(self.head.weight, nonlinearity="linear")  # no activation follows

    def forward(self, x: Tensor, pad: str | None = None) -> Tensor:
        """pad: "reflect", "replicate" or "constant" (zeros) pads an image of any size to one that fits, and crops the result to the size
        that came; None raises ValueError for a size that does not fit."""
        check_image("Noise2NoiseUNet", x, self.rank, self.in_channels)
        check_pad(pad)
        size = x.shape[2:]
        fitting = tuple(-(-n // MULTIPLE) * MULTIPLE for n in size)
        if pad is not None:
            x = pad_to(x, fitting, pad)
        elif size != fitting:
            raise ValueError(
                f"Noise2NoiseUNet needs {LAYERS[self.rank].axes} divisible by {MULTIPLE}; got {sizes_text(size)}. "
                f"Pad to {sizes_text(fitting)} or pass pad='reflect'."
            )
        skips = [x]
        x = F.leaky_relu(self.first(x), SLOPE)  # (N, n, H, W) → (N, 48, H, W)
        for conv in self.encoder:
            x = self.pool(F.leaky_relu(conv(x), SLOPE))  # (N, 48, H, W) → (N, 48, H/2, W/2)
            skips.append(x)
        x = F.leaky_relu(self.bottleneck(skips.pop()), SLOPE)  # the fifth pooling has no skip
        for pair in self.decoder:
            x = F.cat([self.upsample(x), skips.pop()], dim=1)  # twice the size; the image itself is the last skip
            for conv in pair:
                x = F.leaky_relu(conv(x), SLOPE)
        pixels = self.head(x)  # (N, m, H, W)
        return pixels if pad is None else F.center_crop(pixels, size)


class SharedNoise2NoiseUNet(Module):
    """A variant that lives in PyTorch weight files of others: RGB (N, 3, H, W) in [0, 1] → (N, 3, H, W). 700,611 parameters.

    It differs from `Noise2NoiseUNet` in this: the four levels of the encoder share one convolution's weights, and three levels of the
    decoder share one block's; ReLU stands in place of leaky ReLU, but for a leaky one behind the last convolution; 3×3 transposed
    convolutions double the size; and the image is not shifted to [−0.5, 0.5]. Parameter names are those of the files.
    """

    def __init__(self) -> None:
        super().__init__()

        def conv(a: int, b: int) -> list[Module]:
            return [nn.Conv2d(a, b, 3, padding=1, activation="relu"), nn.Identity()]  # stands where the files count ReLU

        def up(a: int, b: int) -> Module:
            return nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=1)

        self._block1 = nn.Sequential(*conv(3, 48), *conv(48, 48), nn.MaxPool2d(2))
        self._block2 = nn.Sequential(*conv(48, 48), nn.MaxPool2d(2))
        self._block3 = nn.Sequential(*conv(48, 48), up(48, 48))
        self._block4 = nn.Sequential(*conv(96, 96), *conv(96, 96), up(96, 96))
        self._block5 = nn.Sequential(*conv(144, 96), *conv(96, 96), up(96, 96))
        self._block6 = nn.Sequential(*conv(99, 64), *conv(64, 32), nn.Conv2d(32, 3, 3, padding=1), nn.LeakyReLU(SLOPE))

    def forward(self, x: Tensor) -> Tensor:
        check_image("SharedNoise2NoiseUNet", x, 2, 3)
        if any(n % MULTIPLE for n in x.shape[2:]):
            raise ValueError(f"SharedNoise2NoiseUNet needs height and width divisible by {MULTIPLE}; got {sizes_text(x.shape[2:])}.")
        skips = [x, self._block1(x)]  # (N, 48, H/2, W/2)
        for _ in range(DEPTH - 1):
            skips.append(self._block2(skips[-1]))
        x = self._block3(skips.pop())
        for block in (self._block4, self._block5, self._block5, self._block5):
            x = block(F.cat([x, skips.pop()], dim=1))
        return self._block6(F.cat([x, skips.pop()], dim=1))


def load_noise2noise(path: str | os.PathLike[str]) -> Noise2NoiseUNet | SharedNoise2NoiseUNet:
    """A network with the weights of an .npz or safetensors file; their names say which of the two it is, their shapes how many channels.

    Every weight must be there under its name, and none may be left over. Raises CheckpointError for weights of another network.
    """
    weights = checkpoint.load_weights(path)
    network: Noise2NoiseUNet | SharedNoise2NoiseUNet
    if "_block1.0.weight" in weights:
        network = SharedNoise2NoiseUNet()
    elif {"first.weight", "head.weight"} <= weights.keys():
        first, head = weights["first.weight"], weights["head.weight"]
        network = Noise2NoiseUNet(first.shape[1], head.shape[0], rank=first.ndim - 2)
    else:
        shown = ", ".join(sorted(weights)[:3])
        raise checkpoint.CheckpointError(
            f"{os.fspath(path)} holds no network of Noise2Noise: expected weights named first.weight … head.weight or _block1.0.weight …, "
            f"got {shown} …."
        )
    try:
        network.load_state_dict(weights)
    except ValueError as problem:
        raise checkpoint.CheckpointError(f"{os.fspath(path)}: {problem}") from None
    return network


def _he(module: Any) -> None:
    """He's normal initialisation of a convolution's weight for the leaky ReLU behind it, 0 for its bias."""
    if any(isinstance(module, layers.Conv) for layers in LAYERS.values()):
        nn.init.kaiming_normal_(module.weight, a=SLOPE, nonlinearity="leaky_relu")
        nn.init.zeros_(module.bias)
