"""minunet: a deep-learning engine small enough to read in an evening and fast enough to train UNet."""

import importlib
from collections.abc import Callable
from typing import Any

from minunet import functional
from minunet.autograd import debug, no_grad
from minunet.kernels import Choice, recording, use
from minunet.rng import manual_seed
from minunet.tensor import Tensor, tensor

__version__ = "0.1.0"
__all__ = ["Tensor", "__version__", "debug", "functional", "manual_seed", "no_grad", "tensor", "use", "which"]

_PARTS = ("checkpoint", "data", "inference", "inspection", "losses", "metrics", "models", "nn", "optim", "testing", "train")


def __getattr__(name: str) -> Any:
    """`mu.nn`, `mu.models` … load when they are first used, so that `import minunet` stays quick."""
    if name in _PARTS:
        return importlib.import_module(f"minunet.{name}")
    raise AttributeError(f"module 'minunet' has no attribute {name!r}")


def which(function: Callable[..., Any], *tensors: Tensor) -> list[Choice]:
    """Runs `function(*tensors)` and tells which kernel set served each heavy operation in it, and why."""
    with no_grad(), recording() as choices:
        function(*tensors)
    return choices
