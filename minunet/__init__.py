"""minunet: a deep-learning engine small enough to read in an evening and fast enough to train UNet."""

from collections.abc import Callable
from typing import Any

from minunet import functional
from minunet.autograd import debug, no_grad
from minunet.kernels import Choice, recording, use
from minunet.rng import manual_seed
from minunet.tensor import Tensor, tensor

__version__ = "0.1.0"
__all__ = ["Tensor", "__version__", "debug", "functional", "manual_seed", "no_grad", "tensor", "use", "which"]


def which(function: Callable[..., Any], *tensors: Tensor) -> list[Choice]:
    """Runs `function(*tensors)` and tells which kernel set served each heavy operation in it, and why."""
    with no_grad(), recording() as choices:
        function(*tensors)
    return choices
