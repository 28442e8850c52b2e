"""Networks. All take (in_channels, out_channels, *, …, rank) and return logits."""

from minunet.models.unet import UNet

__all__ = ["UNet"]
