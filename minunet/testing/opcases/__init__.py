"""The operation table: every public function with its samples, counterparts and bad inputs."""

from minunet.testing.opcases import conv, light, pad, pool, upsample
from minunet.testing.opcases.table import BadInput, OpCase, Sample

CASES: list[OpCase] = [*light.CASES, *conv.CASES, *pad.CASES, *pool.CASES, *upsample.CASES]

__all__ = ["CASES", "BadInput", "OpCase", "Sample"]
