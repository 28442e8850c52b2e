"""A whole network trained over the GPU's code, on the processor: what no single operation shows is how they meet."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest

import minunet as mu
from minunet import functional as F
from minunet import models, optim
from minunet.arrays import to_device
from minunet.kernels import Kernels
from minunet.optim.scaling import LossScaler
from minunet.train.precision import as_images, multiplying
from tests import host_gpu

OPERATIONS = sorted(path.parent for path in Path(mu.__file__).parent.rglob("gpu.py"))


def trained(device: str, precision: str = "float32", steps: int = 5, **options: object) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses of some steps, and the weights after them."""
    mu.manual_seed(0)
    rng = np.random.default_rng(0)
    model = models.UNet(1, 2, base_channels=4, depth=2, **options)
    model.to(device)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    x = mu.tensor(as_images(rng.standard_normal((2, 1, 16, 16)), precision), device=device)
    target = mu.tensor(rng.integers(0, 2, (2, 16, 16)), device=device)
    losses, scaler = [], LossScaler() if precision == "fp16" else None
    for _ in range(steps):
        optimizer.zero_grad()
        with multiplying(precision):
            loss = F.cross_entropy(model(x), target)
            (loss if scaler is None else loss * scaler.scale).backward()
        if scaler is None or scaler.unscale(optimizer):
            optimizer.step()
        losses.append(loss.item())
    return losses, {name: to_device(p.data, "cpu") for name, p in model.named_parameters()}


@pytest.mark.parametrize("options", [{}, {"norm": "batch"}, {"up": "bilinear", "norm": "group", "dropout": 0.1}], ids=str)
def test_unet_learns_what_the_definition_learns(options):
    with mu.use("ref"):
        want, exact = trained("cpu", **options)
    with host_gpu.installed(), mu.recording() as choices:
        got, weights = trained("cuda", **options)
    np.testing.assert_allclose(got, want, rtol=1e-4)
    assert got[-1] < got[0]
    for name, value in exact.items():
        assert np.abs(weights[name] - value).max() <= 1e-4, name
    assert {c.served_by for c in choices if c.kernel.startswith("conv.")} == {"gpu"}
    assert "cpu" not in {c.served_by for c in choices}


@pytest.mark.parametrize(("precision", "unit"), [("fp16", 2.0**-11), pytest.param("bf16", 2.0**-8, marks=pytest.mark.slow)])
def test_unet_learns_from_images_of_16_bits_too(precision, unit):
    """Each number is off by `unit` of itself at most; weights, sums and the optimiser's state are float32."""
    options = {"norm": "batch", "dropout": 0.1, "steps": 8}
    want, _ = trained("cpu", **options)
    with host_gpu.installed(), mu.recording() as choices:
        got, weights = trained("cuda", precision, **options)
    np.testing.assert_allclose(got, want, rtol=4 * unit)
    assert got != want
    assert want[0] - got[-1] > 0.9 * (want[0] - want[-1]) > 0  # nearly all that float32 has learned
    assert {c.served_by for c in choices} == {"gpu"}
    assert {w.dtype for w in weights.values()} == {np.dtype("float32")}


@pytest.mark.parametrize("folder", OPERATIONS, ids=lambda folder: folder.name)
def test_gpu_kernels_take_the_same_arguments_as_the_definition(folder):
    package = ".".join(["minunet", *folder.relative_to(Path(mu.__file__).parent).parts])
    operation, gpu, ref = (importlib.import_module(name) for name in (package, f"{package}.gpu", f"{package}.ref"))
    declared = [name for name, value in vars(operation.K).items() if callable(value)]
    assert isinstance(operation.K, Kernels)
    shared = [name for name in declared if hasattr(gpu, name)]
    assert shared
    for name in shared:
        assert list(inspect.signature(getattr(gpu, name)).parameters) == list(inspect.signature(getattr(ref, name)).parameters), name
