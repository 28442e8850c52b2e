"""Weights travel both ways by name: the layers and their state_dict keys are PyTorch's."""

import numpy as np

import minunet as mu
from minunet import nn

try:
    import torch
except ImportError:
    raise SystemExit("This example compares with PyTorch, which is not installed. Run: pip install torch") from None

theirs = torch.nn.Sequential(
    torch.nn.Conv2d(1, 8, 3, padding=1),
    torch.nn.BatchNorm2d(8),
    torch.nn.ReLU(),
    torch.nn.ConvTranspose2d(8, 2, 2, stride=2),
).eval()
ours = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1),
    nn.BatchNorm2d(8),
    nn.ReLU(),
    nn.ConvTranspose2d(8, 2, 2, stride=2),
).eval()

ours.load_state_dict(theirs.state_dict())  # strict: a missing, unexpected or misshapen entry is an error
for name, tensor in ours.state_dict().items():
    print(f"{name:22} {tensor.shape}")

x = np.random.default_rng(0).standard_normal((1, 1, 12, 10)).astype(np.float32)
y = ours(mu.tensor(x)).detach().numpy()
with torch.no_grad():
    z = theirs(torch.from_numpy(x)).numpy()
print(f"\noutput {y.shape}, largest difference to PyTorch {abs(y - z).max():.1e}")
assert np.allclose(y, z, atol=1e-5)

back = {name: torch.from_numpy(tensor.numpy().copy()) for name, tensor in ours.state_dict().items()}
theirs.load_state_dict(back)  # and the way back
