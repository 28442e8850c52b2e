"""Training and prediction with other networks; the results kept here are renewed. Arguments are those of `minunet bench models`."""

import sys
from pathlib import Path

from minunet.cli import main

main(["bench", "models", "--out", str(Path(__file__).parent / "results"), *sys.argv[1:]])
