"""Networks. All take (in_channels, out_channels, *, …, rank) and return logits, or pixels where they restore images."""

from minunet.models.noise2noise import Noise2NoiseUNet, SharedNoise2NoiseUNet, load_noise2noise
from minunet.models.unet import UNet

__all__ = ["Noise2NoiseUNet", "SharedNoise2NoiseUNet", "UNet", "load_noise2noise"]
