"""Every operation of a UNet, ours beside PyTorch's; the results kept here are renewed. Arguments are those of `minunet bench ops`."""

import sys
from pathlib import Path

from minunet.cli import main

main(["bench", "ops", "--out", str(Path(__file__).parent / "results"), *sys.argv[1:]])
