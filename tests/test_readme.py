"""The README's example runs, its two commands are the promised ones, its picture is small."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs(capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    tiny = code.replace("IMAGES, EPOCHS = 64, 8", "IMAGES, EPOCHS = 4, 1").replace("(IMAGES, ", "(IMAGES, 64, ").replace("(8, ", "(8, 64, ")
    assert tiny != code
    exec(compile(tiny, "README.md", "exec"), {"__name__": "readme"})
    assert re.fullmatch(r"IoU of the cells on new images: 0\.\d\d\n", capsys.readouterr().out)


def test_the_two_commands():
    assert "\n```\npip install . && minunet demo\n```\n" in TEXT
    assert '\n```\npip install -e ".[test]" && pytest\n```\n' in TEXT


def test_the_pictures_are_small():
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < 300 * 1024, picture.name
