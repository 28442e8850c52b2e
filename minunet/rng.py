"""The one random stream that initialisation, dropout and shuffling draw from.

Philox is counter-based: its whole state is a key and a counter, small enough for a checkpoint, and the same seed gives
the same numbers on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_generator = np.random.Generator(np.random.Philox(0))


def manual_seed(seed: int) -> None:
    """Starts the stream anew: all random numbers after this call depend on `seed` alone."""
    global _generator
    _generator = np.random.Generator(np.random.Philox(seed))


def generator() -> np.random.Generator:
    """The stream. Draw from it; do not keep it, `manual_seed` replaces it."""
    return _generator


def get_state() -> dict[str, Any]:
    """The state as plain Python numbers and lists, fit for JSON."""
    state: dict[str, Any] = dict(_generator.bit_generator.state)
    inner = {key: np.asarray(value).tolist() for key, value in state["state"].items()}
    return {
        "state": inner,
        "buffer": np.asarray(state["buffer"]).tolist(),
        "buffer_pos": int(state["buffer_pos"]),
        "has_uint32": int(state["has_uint32"]),
        "uinteger": int(state["uinteger"]),
    }


def set_state(state: dict[str, Any]) -> None:
    """Continues the stream where `get_state` was taken."""
    _generator.bit_generator.state = {
        "bit_generator": "Philox",
        "state": {key: np.array(value, dtype=np.uint64) for key, value in state["state"].items()},
        "buffer": np.array(state["buffer"], dtype=np.uint64),
        "buffer_pos": state["buffer_pos"],
        "has_uint32": state["has_uint32"],
        "uinteger": state["uinteger"],
    }
