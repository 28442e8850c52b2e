"""The operation table: every public function with its samples, counterparts and bad inputs."""

from minunet.testing.opcases import activation, conv, dropout, fourier, light, losses, norm, pad, pool, radon, softmax, upsample
from minunet.testing.opcases.table import BadInput, OpCase, Sample

_ROWS = (activation, conv, dropout, fourier, light, losses, norm, pad, pool, radon, softmax, upsample)
CASES: list[OpCase] = [case for module in _ROWS for case in module.CASES]

__all__ = ["CASES", "BadInput", "OpCase", "Sample"]
