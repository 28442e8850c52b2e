"""Code lines of each folder, without blank lines, comments and docstrings, so that growth is seen.

Run: python tools/line_count.py
"""

import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

_LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER)


def code_lines(source: str) -> int:
    """Lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and body and ast.get_docstring(node) is not None:
            lines.difference_update(range(body[0].lineno, body[0].end_lineno + 1))
    return len(lines)


def count(root: Path) -> Counter[str]:
    """{folder: code lines} of all tracked kinds of folders below root, minunet by its subfolders."""
    lines: Counter[str] = Counter()
    for top in ("minunet", "tests", "benchmarks", "examples", "tools"):
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).parts[:-1]
            lines["/".join(parts[:3])] += code_lines(path.read_text(encoding="utf-8"))
    return lines


if __name__ == "__main__":
    lines = count(Path(__file__).parents[1])
    for folder, number in lines.items():
        print(f"{number:7,}  {folder}")
    inside = sum(number for folder, number in lines.items() if folder.startswith("minunet"))
    print(f"{inside:7,}  minunet in all, {sum(lines.values()) - inside:,} beside it")
