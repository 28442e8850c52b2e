"""The oracles share no code with the package: their modules import nothing but NumPy and the standard mathematics."""

import ast
from pathlib import Path

import pytest

from minunet.testing.opcases import CASES
from tests.oracles import ORACLES

MODULES = sorted(p for p in (Path(__file__).parent / "oracles").glob("*.py") if p.name != "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_imports_numpy_only(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or ".")
        elif isinstance(node, ast.Name) and node.id in ("__import__", "importlib"):
            imported.add(node.id)
    allowed = {"numpy", "math", "itertools", "__future__", "collections.abc", "typing", "numpy.typing"}
    assert imported <= allowed, f"an oracle imports {', '.join(sorted(imported - allowed))}"


def test_every_row_that_is_not_random_has_its_oracle():
    named = {case.name: case.oracle for case in CASES if not case.random}
    assert not [name for name, oracle in named.items() if oracle is None]
    assert not [f"{name}: {oracle}" for name, oracle in named.items() if oracle not in ORACLES]


def test_every_oracle_is_used():
    assert not set(ORACLES) - {case.oracle for case in CASES}
