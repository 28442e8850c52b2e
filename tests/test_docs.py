"""What the documentation shows is true: every Python block is run, and a text block below it is what it prints."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TARGET = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)")


def blocks(page: Path) -> Iterator[tuple[int, str, str]]:
    """(line, language, text) of the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for block in _BLOCK.finditer(text):
        yield text.count("\n", 0, block.start()) + 2, block[1], block[2]


def run_page(page: Path) -> None:
    """Runs the Python blocks of a page in order, in one namespace, and compares what they print with the text block that follows."""
    names: dict[str, object] = {"__name__": "page"}
    found = list(blocks(page))
    for (line, language, code), following in zip(found, [*found[1:], (0, "", "")], strict=True):
        if language != "python":
            continue
        printed = io.StringIO()
        tree = ast.increment_lineno(ast.parse(code), line - 1)
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, str(page), "exec"), names)
        if following[1] == "text":
            assert printed.getvalue().split("\n") == following[2].split("\n"), f"{page.name}:{line} prints something else"


@pytest.mark.parametrize("page", [p for p in PAGES if any(language == "python" for _, language, _ in blocks(p))], ids=lambda p: p.stem)
def test_what_a_page_shows_is_what_it_prints(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_excerpts_are_the_code(page):
    """A block of language `py` is not run. Where it begins with a file's name in a comment, the rest stands in that file."""
    for line, language, text in blocks(page):
        first, _, excerpt = text.partition("\n")
        if language == "py" and re.fullmatch(r"# [\w/]+\.py", first):
            assert excerpt.strip() in (ROOT / first.removeprefix("# ")).read_text(encoding="utf-8"), f"{page.name}:{line} is out of date"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CHANGELOG.md"], ids=lambda p: p.stem)
def test_links_lead_to_files(page):
    targets = [target for target in _TARGET.findall(_BLOCK.sub("", page.read_text(encoding="utf-8"))) if "://" not in target]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing, f"{page.name} links to what is not there: {missing}"
