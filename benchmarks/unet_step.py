"""Training and prediction with UNets; the results kept here are renewed. Arguments are those of `minunet bench unet`."""

import sys
from pathlib import Path

from minunet.cli import main

main(["bench", "unet", "--out", str(Path(__file__).parent / "results"), *sys.argv[1:]])
