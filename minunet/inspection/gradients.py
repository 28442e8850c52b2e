"""Looking at gradients after a backward."""

from __future__ import annotations

from minunet.nn import Module


def unused_parameters(model: Module) -> list[str]:
    """Names of parameters that got no gradient: call it after `loss.backward()`. In a sound network the list is empty.

    A name in it belongs to a layer whose output nobody uses. The lecture's decoder is the example: it concatenates the skip with the
    up-sampled features and then feeds `inputs`, not the concatenation, to the convolution. The network runs and learns, but the
    up-convolutions are dead code.
    """
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
