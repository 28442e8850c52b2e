"""A convolution is a small window of weights that slides over the image. Here it is written as loops, then compared.

y[n,o,p] = b[o] + Σ_c Σ_k x[n,c,p+k]·w[o,c,k]        p: output pixel, k: kernel tap, both (row, column)
"""

import numpy as np

import minunet as mu
from minunet import functional as F


def convolution(x, w, b):
    """x (N, C, H, W), w (O, C, kh, kw), b (O) → (N, O, H − kh + 1, W − kw + 1)."""
    n, _, height, width = x.shape
    o, _, kh, kw = w.shape
    y = np.zeros((n, o, height - kh + 1, width - kw + 1))
    for image in range(n):
        for out in range(o):
            for row in range(y.shape[2]):
                for column in range(y.shape[3]):
                    window = x[image, :, row : row + kh, column : column + kw]  # (C, kh, kw)
                    y[image, out, row, column] = b[out] + (window * w[out]).sum()
    return y


# an image of a bright square, and two filters that answer to its upright and its level edges
image = np.zeros((1, 1, 8, 8))
image[0, 0, 2:6, 2:6] = 1
upright = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
weight = np.stack([upright, upright.T])[:, None].astype(float)  # (2, 1, 3, 3)
bias = np.zeros(2)

by_hand = convolution(image, weight, bias)
engine = F.conv2d(mu.tensor(image), mu.tensor(weight), mu.tensor(bias))
print("the square's upright edges: bright on the right is +, on the left −\n", engine.data[0, 0].astype(int))
assert np.allclose(engine.data, by_hand)

# many channels, any stride and padding: the same sum
rng = np.random.default_rng(0)
x, w, b = rng.standard_normal((2, 3, 9, 7)), rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
assert np.allclose(F.conv2d(mu.tensor(x), mu.tensor(w), mu.tensor(b)).data, convolution(x, w, b))
padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
strided = F.conv2d(mu.tensor(x), mu.tensor(w), mu.tensor(b), stride=2, padding=1)
assert np.allclose(strided.data, convolution(padded, w, b)[:, :, ::2, ::2])
print("\nloops and engine agree; which code ran?", *mu.which(F.conv2d, mu.tensor(x), mu.tensor(w)), sep="\n  ")
