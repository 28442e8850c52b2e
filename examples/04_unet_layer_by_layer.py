"""What a UNet is made of: its table of layers, what one pixel sees, and what the layers answer to an image."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import minunet as mu
from minunet.data import GeneratedCells
from minunet.inspection import feature_maps, summary
from minunet.models import UNet

matplotlib.use("Agg")
mu.manual_seed(0)

network = UNet(1, 1, base_channels=8, depth=3)
print(summary(network, (1, 128, 128)))

image, mask = GeneratedCells(1, size=128)[0]  # (1, H, W) and (H, W)
maps = feature_maps(network, image[None])  # {layer: (1, C, H', W')}
shown = ["encoder.0.conv2", "encoder.1.conv2", "encoder.2.conv2", "bottleneck.conv2", "decoder.1.conv2", "decoder.2.conv2"]

figure = Figure(figsize=(11, 4.2), layout="constrained")
grid = figure.subplots(2, 4).ravel()
grid[0].imshow(image[0], cmap="gray")
grid[0].set_title("image")
for axes, name in zip(grid[1:], shown, strict=False):
    features = maps[name][0]  # (C, H', W')
    strongest = features[np.argmax(features.std(axis=(1, 2)))]
    axes.imshow(strongest, cmap="viridis")
    axes.set_title(f"{name}\n{features.shape[0]} maps of {features.shape[1]}×{features.shape[2]}", fontsize=9)
grid[7].imshow(maps["head"][0, 0], cmap="gray")
grid[7].set_title("logits (untrained)")
for axes in grid:
    axes.set_axis_off()
figure.savefig("unet_layers.png", dpi=110)
print("\nunet_layers.png shows the liveliest map of some layers. The weights are random: these are textures, not yet features.")
