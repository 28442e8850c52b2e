"""Errors of float32 convolutions against float64; the results kept here are renewed. Arguments are those of `minunet bench accuracy`."""

import sys
from pathlib import Path

from minunet.cli import main

main(["bench", "accuracy", "--out", str(Path(__file__).parent / "results"), *sys.argv[1:]])
