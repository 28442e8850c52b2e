"""A trained denoising network with what it needs to read and write an image: the span of values, the noise it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minunet import checkpoint
from minunet.arrays import to_device
from minunet.autograd import no_grad
from minunet.data import NOISES, Noise, Span
from minunet.data.dataset import Image
from minunet.inference.tiles import predict_tiles
from minunet.models import Noise2NoiseUNet, SharedNoise2NoiseUNet, load_noise2noise
from minunet.models.noise2noise import MULTIPLE
from minunet.nn import Module
from minunet.tensor import Tensor


class Denoiser:
    """Noisy images of any size → clean ones.

        denoiser = Denoiser.load("my-model")
        clean = denoiser(image)                 # (C, H, W) → (C, H, W), values as they were read

    span: the values that the network sees as −0.5 and 0.5. noise: what it was trained to remove, where that was made; its `restored`
    turns the network's output into a picture.
    """

    def __init__(self, model: Module, *, channels: int, span: Span | None = None, noise: Noise | None = None, device: str = "cpu") -> None:
        self.model, self.channels, self.device = model.to(device), channels, device
        self.span, self.noise = span or Span(), noise or Noise()
        self.config: dict[str, Any] = {}

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> Denoiser:
        """From a checkpoint of `minunet denoise train`, or the folder that holds best.safetensors; or from an .npz file of weights that
        `load_noise2noise` knows, for images in [0, 1]."""
        path = Path(path)
        if path.suffix == ".npz":
            network = load_noise2noise(path)
            if isinstance(network, SharedNoise2NoiseUNet):
                return cls(network, channels=3, span=Span(-0.5, 0.5), device=device)  # it sees values as they are
            return cls(network, channels=network.in_channels, device=device)
        saved = checkpoint.load_trained(path, "denoising")
        config = saved.config
        model = Noise2NoiseUNet(**config["model"])
        saved.restore(model=model, rng=False)
        noise, strength = config["settings"]["noise"], config["settings"].get("strength")
        denoiser = cls(
            model,
            channels=model.in_channels,
            span=Span(**config["span"]),
            noise=NOISES[noise](strength) if noise else None,
            device=device,
        )
        denoiser.config = config
        return denoiser

    def __call__(self, image: Image, *, tile: int = 512) -> Image:
        """image: (C, H, W) as it was read; large ones are computed in overlapping tiles."""
        return self.span.outward(self.noise.restored(self.output(self.span.inward(image), tile=tile)))

    def output(self, image: Image, *, tile: int = 512) -> Image:
        """What the network says to an image (C, H, W) in [−0.5, 0.5]."""
        if image.ndim != 3 or len(image) != self.channels:
            wanted = "gray images (1 channel)" if self.channels == 1 else f"images of {self.channels} channels"
            raise ValueError(f"this model was trained on {wanted}, the image has {len(image)} channels. Convert it first.")
        return run_network(self.model, image, tile=tile)


def run_network(model: Module, image: Image, *, tile: int) -> Image:
    """(C, H, W) → (C', H, W), without a graph. One that fits into a tile is computed whole; only between tiles is there a margin."""
    device = next(model.parameters()).device

    def predict(images: Image) -> Image:
        return to_device(model(Tensor(to_device(images, device))).data, "cpu")

    margin = 64 if max(image.shape[1:]) > tile else 0
    model.eval()
    with no_grad():
        return predict_tiles(predict, image, tile=tile, margin=margin, multiple=MULTIPLE)
