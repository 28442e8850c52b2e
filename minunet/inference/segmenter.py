"""A trained segmentation model with what it needs to read an image: the standardisation, the classes and their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minunet import checkpoint
from minunet.arrays import to_device
from minunet.autograd import no_grad
from minunet.data import Standardize
from minunet.inference.symmetries import average_symmetries
from minunet.inference.tiles import predict_tiles
from minunet.models import UNet
from minunet.nn import Module
from minunet.tensor import Tensor

Array = np.ndarray[Any, Any]


class Segmenter:
    """Images of any size → probabilities → classes.

        segmenter = Segmenter.load("minunet-isbi2012/best.safetensors")
        probabilities = segmenter(image, tta=True)      # (C, H, W) → (classes, H, W)
        mask = segmenter.classes(probabilities)         # (H, W)

    model: gives logits, one channel for two classes or a channel for each. multiple: what its input size must be divisible by.
    """

    def __init__(
        self, model: Module, standardize: Standardize, *, channels: int, class_names: list[str], multiple: int, device: str = "cpu"
    ) -> None:
        self.model, self.standardize, self.channels = model.to(device), standardize, channels
        self.class_names, self.multiple, self.device = class_names, multiple, device
        self.config: dict[str, Any] = {}

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> Segmenter:
        """From a checkpoint of `minunet train`, or the folder that holds best.safetensors."""
        saved = checkpoint.load_trained(path, "segmentation")
        config = saved.config
        model = UNet(**config["model"])
        saved.restore(model=model, rng=False)
        segmenter = cls(
            model,
            Standardize.from_dict(config["standardize"]),
            channels=config["model"]["in_channels"],
            class_names=config["class_names"],
            multiple=2 ** config["model"]["depth"],
            device=device,
        )
        segmenter.config = config
        return segmenter

    def __call__(self, image: Array, *, tta: bool = False, tile: int = 512) -> Array:
        """Probabilities (classes, H, W) of an image (C, H, W) as it was read. tta: averaged over flips and quarter turns."""
        if len(image) != self.channels:
            wanted = "gray images (1 channel)" if self.channels == 1 else f"images of {self.channels} channels"
            raise ValueError(f"this model was trained on {wanted}, the image has {len(image)} channels. Convert it first.")
        ready = self.standardize(image)
        return average_symmetries(lambda view: self._tiled(view, tile), ready) if tta else self._tiled(ready, tile)

    def classes(self, probabilities: Array, threshold: float = 0.5) -> Array:
        """(classes, H, W) → (H, W): the most probable class; of two classes, the second where it reaches the threshold."""
        if len(probabilities) == 2:
            return (probabilities[1] >= threshold).astype(np.int64)
        return probabilities.argmax(axis=0)

    def _tiled(self, image: Array, tile: int) -> Array:
        """An image that fits into one tile is computed as in training, zeros beyond its edge; only between tiles is there a margin."""
        margin = 32 if max(image.shape[1:]) > tile else 0
        self.model.eval()
        with no_grad():
            return predict_tiles(self._probabilities, image, tile=tile, margin=margin, multiple=self.multiple)

    def _probabilities(self, images: Array) -> Array:
        logits = to_device(self.model(Tensor(to_device(images, self.device))).data, "cpu")
        return to_probabilities(logits)


def to_probabilities(logits: Array) -> Array:
    """(N, 1, …) → (N, 2, …) by the sigmoid, (N, K, …) → (N, K, …) by the softmax."""
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)  # softmax(0, z) = (1 − σ(z), σ(z))
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
