"""What a loss makes of noisy targets: their mean, their median or their mode. One value, a thousand observations a step, never the truth.

A network that restores images does this for every pixel at once. The value it learns is the one with the smallest expected loss over all
targets that may come for what it sees (Lehtinen et al. 2018, Noise2Noise, section 2).
"""

import numpy as np

import minunet as mu
from minunet import functional as F
from minunet import losses
from minunet.optim import Adam

TRUTH, HIT, STEPS = 0.2, 0.25, 800
rng = np.random.default_rng(0)


def observations(count):
    """A quarter shows the truth; the others are anything in [0, 1], as with a sensor most of whose readings are broken."""
    return np.where(rng.random(count) < HIT, TRUTH, rng.random(count))


def learned(loss):
    """loss: (output, targets, progress from 0 to 1) → tensor. Begins at 0.9."""
    value = mu.tensor(np.array([0.9]), requires_grad=True)
    optimizer = Adam([value], lr=0.02, betas=(0.9, 0.99))
    for step in range(STEPS):
        progress = step / STEPS
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - progress)
        optimizer.zero_grad()
        targets = observations(1000)
        loss(F.broadcast_to(value, targets.shape), targets, progress).backward()
        optimizer.step()
    return value.item()


found = {
    "mean": learned(lambda output, targets, _: losses.squared_error(output, targets)),
    "median": learned(lambda output, targets, _: losses.absolute_error(output, targets)),
    "mode": learned(lambda output, targets, progress: losses.annealed_error(output, targets, gamma=2 * (1 - progress))),
}

many = observations(200_000)
expected = {"mean": many.mean(), "median": np.median(many), "mode": TRUTH}
print("of the observations   learned from them   by")
for (name, value), loss in zip(found.items(), ("L2: (f − y)²", "L1: |f − y|", "L0: (|f − y| + ε)^γ, γ from 2 to 0"), strict=True):
    print(f"{name:8} {expected[name]:12.3f} {value:19.3f}   {loss}")
    assert abs(value - expected[name]) < 0.02
