"""The loss scaled up before `backward()`, so that gradients do not vanish in FP16.

    scaler = LossScaler()
    for each batch:
        optimizer.zero_grad()
        (loss * scaler.scale).backward()
        if scaler.unscale(optimizer):  # the gradients are the loss's own again, and finite
            optimizer.step()

FP16 has nothing below 6·10⁻⁸, and most gradients of images are small. Backward is linear: a loss 65536 times as large has gradients 65536
times as large, all of them. If one becomes too large for FP16 it is infinite or NaN, and so are gradients of parameters. Then the step is
left out and the scale halved. After 2000 good steps in a row it is doubled, to try again what fits. BF16 has the range of float32 and
needs none of this.

(Micikevicius et al. 2018, Mixed Precision Training, arXiv:1710.03740, section 3.2; the numbers are those of PyTorch's GradScaler.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minunet.optim import Optimizer

GOOD_STEPS = 2000  # before the scale is doubled


class LossScaler:
    """scale: what to multiply the loss by."""

    def __init__(self, scale: float = 2.0**16) -> None:
        self.scale, self.good_steps = scale, 0

    def unscale(self, optimizer: Optimizer) -> bool:
        """Divides the optimiser's gradients by the scale, and chooses the next one. False: they are not finite, leave the step out.

        Raises FloatingPointError where they are not finite with a scale of 1 or less: then scaling is not what spoils them.
        """
        finite = optimizer.unscale(1 / self.scale)
        if not finite and self.scale <= 1:
            raise FloatingPointError(
                f"the gradients hold NaN or infinity even with the loss scaled by {self.scale:g}. Find the origin with mu.debug(), "
                "or train with images of bfloat16 or float32."
            )
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.scale /= 2
        elif self.good_steps == GOOD_STEPS:
            self.scale, self.good_steps = 2 * self.scale, 0
        return finite

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint."""
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.scale, self.good_steps = state_dict["scale"], state_dict["good_steps"]
