"""Proofs: `gradcheck`, and the table of operations that the tests and `minunet check` walk."""

from minunet.testing.gradcheck import GradientError, gradcheck

__all__ = ["GradientError", "gradcheck"]
