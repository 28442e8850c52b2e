"""Addition."""

from typing import Any

from minunet.arrays import rounded, widened


def add(a: Any, b: Any) -> Any:
    return rounded(widened(a) + widened(b), a)
