"""The examples run as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import require

TINY = {"IMAGES, EPOCHS, SIZE = 32, 10, 96": "IMAGES, EPOCHS, SIZE = 4, 1, 64"}  # what trains, trains less here
EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example, tmp_path, monkeypatch):
    source = example.read_text(encoding="utf-8")
    if "import torch" in source:
        require("torch")
    for full, tiny in TINY.items():
        source = source.replace(full, tiny)
    assert "EPOCHS" not in source or any(tiny in source for tiny in TINY.values())
    monkeypatch.chdir(tmp_path)
    exec(compile(source, str(example), "exec"), {"__name__": "__main__"})


def test_examples_are_numbered():
    assert [path.name[:3] for path in EXAMPLES] == [f"{n:02}_" for n in range(1, len(EXAMPLES) + 1)]
