"""UNet, as the 2015 paper draws it and as it is mostly built today.

    572²  64 64 ─────────────── crop, concatenate ───────────────▶ 128 64 64 ▷ head 388²
            ▼ 2×2 max pooling                                    ▲ 2×2 up-convolution
          128 128 ───────────── crop, concatenate ─────────▶ 256 128 128
              ▼                                             ▲
              …                                             …
                    ▼                               ▲
                      1024 1024  (the bottleneck)

Ronneberger, Fischer & Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015, figure 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minunet import functional as F
from minunet import nn
from minunet.models.blocks import LAYERS, DoubleConv, UpConv, check_image, check_pad, pad_to, two_halves
from minunet.shapes import ntuple, sizes_text
from minunet.tensor import Tensor


class UNet(nn.Module):
    """(N, in_channels, H, W) → logits (N, out_channels, H, W); with rank=3 (N, C, D, H, W), with rank=1 (N, C, L).

    base_channels: channels of the first level; each of `depth` poolings doubles them and halves the image.
    padding: "same" keeps the size, which must be divisible by 2^depth. "valid" is the 2015 original: no padding, so each convolution
    trims a border and skips are cropped; 572 → 388, every output pixel sees only real pixels.
    norm: None (the original), "batch", "instance" or "group" after each 3×3 convolution. up: see `UpConv`.
    dropout: the probability of dropping an element at the end of the contracting path, after its last level and the bottleneck.

    Weights start as He's normal distribution, biases as 0. UNet(1, 1) has 31,030,593 parameters.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        base_channels: int = 64,
        depth: int = 4,
        rank: int = 2,
        padding: str = "same",
        norm: str | None = None,
        up: str = "transposed",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_options(in_channels, out_channels, base_channels, depth, rank, padding, norm, up)
        self.in_channels, self.out_channels, self.base_channels = in_channels, out_channels, base_channels
        self.depth, self.rank, self.padding = depth, rank, padding
        options: dict[str, Any] = {"rank": rank, "padding": padding, "norm": norm}
        channels = [base_channels * 2**level for level in range(depth + 1)]  # 64 128 256 512 1024

        self.encoder = nn.ModuleList(DoubleConv(a, b, **options) for a, b in zip([in_channels, *channels], channels[:-1], strict=False))
        self.pool = LAYERS[rank].MaxPool(2)
        self.bottleneck = DoubleConv(channels[-2], channels[-1], **options)
        self.dropout = nn.Dropout(dropout)
        self.ups = nn.ModuleList(UpConv(c, rank=rank, up=up) for c in reversed(channels[1:]))
        self.decoder = nn.ModuleList(DoubleConv(2 * c, c, **options) for c in reversed(channels[:-1]))
        self.head = LAYERS[rank].Conv(base_channels, out_channels, 1)
        self.apply(_he)

    def forward(self, x: Tensor, pad: str | None = None) -> Tensor:
        """pad: "reflect", "replicate" or "constant" (zeros) pads an image of any size to one that fits and crops the logits, so that they
        have the size of the input; None raises ValueError for a size that does not fit. With padding="valid" the image is extended by
        the whole border that the convolutions trim: "reflect" is then the paper's mirror extrapolation."""
        size = self._check_input(x, pad)
        if pad is not None:
            x = pad_to(x, self.input_size(x.shape[2:]), pad)
        skips = []
        for level, convs in enumerate(self.encoder):  # the contracting path
            left, right = two_halves(x, self.base_channels * 2**level) if self.padding == "same" else (None, None)
            x = convs(x, out=left)  # (N, C, H, W) → (N, 64·2^level, H, W)
            if level == self.depth - 1:
                x = self.dropout(x)
            skips.append((x, right))
            x = self.pool(x)  # (N, 64·2^level, H/2, W/2)
        x = self.dropout(self.bottleneck(x))  # (N, 1024, H/16, W/16)
        for up, convs in zip(self.ups, self.decoder, strict=True):  # the expanding path
            skip, right = skips.pop()
            x = up(x, out=right)  # half the channels, twice the size
            skip = F.center_crop(skip, x.shape[2:])
            x = convs(F.cat([skip, x], dim=1))  # the skip first, as in the paper; where both lie in one buffer, nothing is copied
        logits = self.head(x)  # (N, out_channels, H, W)
        return logits if pad is None else F.center_crop(logits, size)

    # ---- sizes: out = in − margin, where out is a multiple of 2^depth, plus 4 if the convolutions are valid ----

    @property
    def margin(self) -> int:
        """How many pixels the output is smaller than the input along each axis: 0, or 184 for valid convolutions at depth 4."""
        return 12 * 2**self.depth - 8 if self.padding == "valid" else 0

    def output_size(self, input_size: int | Sequence[int]) -> tuple[int, ...]:
        """The size of the logits for an input of (H, W): (572, 572) → (388, 388) in the original. Raises ValueError for a misfit."""
        sizes = ntuple(input_size, self.rank, "input_size", minimum=1)
        if sizes != tuple(self._nearest(n) for n in sizes):
            raise ValueError(self._misfit(sizes))
        return tuple(n - self.margin for n in sizes)

    def input_size(self, output_size: int | Sequence[int]) -> tuple[int, ...]:
        """The smallest input whose logits cover (H, W): (388, 388) → (572, 572) in the original."""
        return tuple(self._nearest(n + self.margin) for n in ntuple(output_size, self.rank, "output_size", minimum=1))

    def _nearest(self, n: int) -> int:
        """The smallest input size that fits and is at least n."""
        out, step = max(n - self.margin, 1), 2**self.depth
        remainder = 4 if self.padding == "valid" else 0
        return out + (remainder - out) % step + self.margin

    def _misfit(self, sizes: tuple[int, ...]) -> str:
        above = tuple(self._nearest(n) for n in sizes)
        came, axes, step = sizes_text(sizes), LAYERS[self.rank].axes, 2**self.depth
        if self.padding == "same":
            needs = f"UNet of depth {self.depth} needs {axes} divisible by {step}"
        else:
            needs = f"UNet of depth {self.depth} with valid convolutions needs {axes} of {step}·m − 4 pixels, {self._nearest(1)} or more"
        below = tuple(max(n if n == a else a - step, self._nearest(1)) for n, a in zip(sizes, above, strict=True))
        cut = f"Crop to {sizes_text(below)}, pad" if all(b <= n for b, n in zip(below, sizes, strict=True)) and self.margin else "Pad"
        return f"{needs}; got {came}. {cut} to {sizes_text(above)} or pass pad='reflect'."

    def _check_input(self, x: Tensor, pad: str | None) -> tuple[int, ...]:
        """The spatial sizes of an input that this network takes."""
        check_image("UNet", x, self.rank, self.in_channels)
        check_pad(pad)
        if pad is None:
            self.output_size(x.shape[2:])
        return x.shape[2:]


def _he(module: Any) -> None:
    """He's normal initialisation of a convolution's weight, 0 for its bias."""
    if any(isinstance(module, kind) for layers in LAYERS.values() for kind in (layers.Conv, layers.ConvTranspose)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_options(
    in_channels: int, out_channels: int, base_channels: int, depth: int, rank: int, padding: str, norm: str | None, up: str
) -> None:
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("base_channels", base_channels), ("depth", depth)):
        if value < 1:
            raise ValueError(f"UNet: {name} must be at least 1, got {value}.")
    for name, choice, choices in (
        ("rank", rank, (1, 2, 3)),
        ("padding", padding, ("same", "valid")),
        ("norm", norm, (None, "batch", "instance", "group")),
        ("up", up, ("transposed", "nearest", "bilinear")),
    ):
        if choice not in choices:
            raise ValueError(f"UNet: {name} is one of {', '.join(map(repr, choices))}; got {choice!r}.")
