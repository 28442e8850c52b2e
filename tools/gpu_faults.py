"""Writes the table of docs/gpu.md: each fault of tests/host_gpu/faults.py is run, and what is told stands beside it.
A test holds them equal.

python -m tools.gpu_faults

In the page the table stands between  <!-- faults -->  and  <!-- end -->.
"""

import re
from pathlib import Path

from tests.host_gpu.faults import FAULTS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "gpu.md"
_TABLE = re.compile(r"(<!-- faults -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def filled(page: str) -> str:
    """The page with its table as the faults are told."""
    lines = [f"| {fault.name} | {fault.sentence()} |" for fault in FAULTS]
    table = "\n".join(["", "| Planted | Told |", "|---|---|", *lines, "", ""])
    return _TABLE.sub(lambda match: match[1] + table + match[3], page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
