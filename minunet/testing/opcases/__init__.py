"""The operation table: every public function with its samples, counterparts and bad inputs."""

from minunet.testing.opcases import conv, light
from minunet.testing.opcases.table import BadInput, OpCase, Sample

CASES: list[OpCase] = [*light.CASES, *conv.CASES]

__all__ = ["CASES", "BadInput", "OpCase", "Sample"]
