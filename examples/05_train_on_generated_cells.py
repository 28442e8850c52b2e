"""Training, written out: a data set, a loader, a network, a loss, an optimiser, and the loop. About half a minute."""

import time

import numpy as np

import minunet as mu
from minunet import losses
from minunet.data import Augment, DataLoader, GeneratedCells, Standardize
from minunet.metrics import Confusion, class_map
from minunet.models import UNet
from minunet.optim import AdamW

IMAGES, EPOCHS, SIZE = 32, 10, 96

mu.manual_seed(0)
training, held_out = GeneratedCells(IMAGES, SIZE, seed=0), GeneratedCells(8, SIZE, seed=1)  # another seed makes other cells
standardize = Standardize.fit(training)  # mean 0, spread 1: measured on the training images alone
loader = DataLoader(training, batch_size=4, shuffle=True, augment=Augment(), standardize=standardize)

network = UNet(1, 1, base_channels=8, depth=3, norm="batch")
optimizer = AdamW(network.parameters(), lr=5e-3)

for epoch in range(EPOCHS):
    start, total = time.perf_counter(), 0.0
    network.train()
    for images, masks in loader:  # (N, 1, H, W) and (N, H, W), flipped and turned at random
        optimizer.zero_grad()
        loss = losses.dice_cross_entropy(network(mu.tensor(images)), masks)
        loss.backward()
        optimizer.step()
        total += loss.item() / len(loader)

    network.eval()  # batch norm now uses what it has learnt, not the batch
    confusion = Confusion(2)
    with mu.no_grad():
        for image, mask in held_out:
            logits = network(mu.tensor(standardize(image)[None]))
            confusion.add(class_map(logits.numpy())[0], mask)
    scores = f"IoU {confusion.iou[1]:.3f}, pixel error {confusion.pixel_error:.3f}"
    print(f"epoch {epoch + 1:2}  loss {total:.3f}  held out: {scores}  {time.perf_counter() - start:.1f} s")

assert np.isfinite(total)
