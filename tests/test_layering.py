"""The tree's rules, read from its syntax: arrows point downwards, one idea one place, a light import."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "minunet"

LAYERS = [
    {"arrays", "kernels", "shapes", "rng", "simd", "explog", "memory", "accumulate", "cuda", "cuda_graph", "volumes", "files"},
    {"tensor", "autograd"},
    {"ops", "functional", "__init__"},
    {"nn", "optim", "losses", "metrics", "checkpoint", "testing"},
    {"models", "data", "inspection"},
    {"train", "inference", "tomography", "explore", "bench", "cli", "__main__"},
]


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for path in files()}


def layer_of(module: str) -> int | None:
    top = module.split(".")[1] if "." in module else "__init__"
    return next((i for i, layer in enumerate(LAYERS) if top in layer), None)


def runtime_imports(tree: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    """Every import statement, those inside functions too, except under `if TYPE_CHECKING:`."""
    found, stack = [], [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            stack.extend(node.orelse)
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        stack.extend(ast.iter_child_nodes(node))
    return found


def imported(path: Path) -> set[str]:
    """Full names of what a file imports; of ours, the module that is meant."""
    names = set()
    for node in runtime_imports(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
            continue
        base = node.module or ""
        if node.level:
            package = module_name(path).split(".")
            package = package if path.name == "__init__.py" else package[:-1]
            base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            names.add(inner if inner in modules() else base)
    return names


def own_imports(path: Path) -> set[str]:
    return {name for name in imported(path) if name == "minunet" or name.startswith("minunet.")}


@pytest.mark.parametrize("path", files(), ids=module_name)
def test_a_file_imports_only_from_lower_layers(path):
    here = module_name(path)
    assert layer_of(here) is not None, f"{here} belongs to no layer of docs/design.md; add it there and here"
    above = {name for name in own_imports(path) if (layer_of(name) is None or layer_of(name) > layer_of(here))}
    assert not above, f"{here} (layer {layer_of(here)}) imports from above: {', '.join(sorted(above))}"


def test_imports_are_acyclic():
    edges = {name: own_imports(path) & set(modules()) - {name} for name, path in modules().items()}
    while free := {name for name, below in edges.items() if not below}:
        edges = {name: below - free for name, below in edges.items() if name not in free}
    assert not edges, f"these import each other in a circle: {', '.join(sorted(edges))}"


def test_the_walk_sees_every_form_of_import(tmp_path):
    """The tester tested: imports in functions count, imports for type checkers do not."""
    path = ROOT / "tensor.py"
    source = "from minunet import arrays\nif TYPE_CHECKING:\n    from minunet.autograd import Function\ndef f():\n    import minunet.nn\n"
    (tmp_path / "x.py").write_text(source)
    assert {ast.unparse(node) for node in runtime_imports(ast.parse(source))} == {"from minunet import arrays", "import minunet.nn"}
    assert "minunet.arrays" in own_imports(path)
    assert "minunet.autograd" not in own_imports(path)
    assert layer_of("minunet.nn.layers") > layer_of("minunet.ops.conv.ref") > layer_of("minunet.tensor") > layer_of("minunet.arrays")


@pytest.mark.parametrize("path", files(), ids=module_name)
def test_file_rules(path):
    assert not {"utils", "util", "helpers", "misc", "common"} & {path.stem, path.parent.name}, f"{path} says nothing by its name"
    third_party = {name.partition(".")[0] for name in imported(path)}
    assert "pickle" not in third_party, f"{path} imports pickle"
    assert "cupy" not in third_party or path.stem in ("arrays", "gpu", "cuda"), f"{path} imports cupy"
    references = {"torch", "keras", "jax", "tensorflow", "monai"} & third_party
    assert not references or "testing" in path.parts or path.stem in ("cli", "check"), f"{path} imports {references}"


PROBE = """
import sys, time
before = set(sys.modules)
start = time.perf_counter()
import minunet
print(time.perf_counter() - start)
new = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(*sorted(name for name in new if getattr(sys.modules.get(name), "__file__", None)))  # Cython's own pseudo-modules have none
"""


def test_importing_is_quick_and_loads_numpy_alone():
    times, loaded = [], ""
    for _ in range(3):
        output = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, text=True, cwd=ROOT.parent).stdout
        seconds, loaded = output.splitlines()
        times.append(float(seconds))
    assert loaded.split() == ["minunet", "numpy"]
    assert min(times) < 0.5, f"import minunet takes {min(times):.2f} s"
