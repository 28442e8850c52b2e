"""Operations and training steps on this machine's GPU; the results kept here get a file for each card. Arguments: `minunet bench gpu`'s."""

import sys
from pathlib import Path

from minunet.cli import main

main(["bench", "gpu", "--out", str(Path(__file__).parent / "results"), *sys.argv[1:]])
