"""Kernels that call themselves on all threads."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from numba import get_num_threads, njit, set_num_threads, types
from numba.extending import intrinsic

from minunet.simd import all_tasks, share

PACKAGE = Path(__file__).parents[1] / "minunet"
KERNELS = [path for path in sorted(PACKAGE.rglob("*.py")) if "in share(mine" in path.read_text(encoding="utf-8")]


@njit(nogil=True)
def count(mine, visits, steps, table):  # type: ignore[no-untyped-def]
    for task in share(mine, len(visits)):
        visits[task] += steps[0] * table[task % 2, 1] + steps[1]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tasks", [0, 1, 2, 7])
def test_each_task_is_done_once_whatever_the_number_of_threads(tasks: int, threads: int) -> None:
    before = get_num_threads()
    set_num_threads(min(threads, before))
    try:
        visits = np.zeros(tasks)
        count(all_tasks(), visits, (2, 3.0), np.arange(4.0).reshape(2, 2))
    finally:
        set_num_threads(before)
    assert visits.tolist() == [2 * (1 + 2 * (task % 2)) + 3 for task in range(tasks)]


@intrinsic
def counts_at(typingctx, array):  # type: ignore[no-untyped-def]
    """The address where an array's references are counted, or 0."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        held = context.make_array(signature.args[0])(context, builder, args[0]).meminfo
        return builder.ptrtoint(held, context.get_value_type(types.intp))

    return types.intp(array), codegen


@njit(nogil=True)
def look(mine, array, inside, outside, numbers):  # type: ignore[no-untyped-def]
    outside[0] = max(outside[0], counts_at(array))
    for task in share(mine, len(inside)):
        inside[task] = counts_at(array) + counts_at(array[task:]) + counts_at(inside)
        numbers[task] += array[task:][0]


@pytest.mark.parametrize("dtype", ["int8", "float32", "float64"])  # int8: an array whose first and fifth part are pointers of one type
def test_threads_borrow_arrays(dtype: str) -> None:
    """The one call from Python counts references, the threads do not: they would take the count from each other all the time."""
    array, inside, outside, numbers = np.arange(4).astype(dtype), np.ones(4, np.int64), np.zeros(1, np.int64), np.zeros(4, dtype)
    look(all_tasks(), array, inside, outside, numbers)
    assert outside[0] != 0
    assert not inside.any()
    assert numbers.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_share_ends_the_kernel_that_python_calls(path: Path) -> None:
    """In a function within, it would call that one again; what stands behind it would run before the tasks are given out, too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kernels = {}
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        shares = [node for node in ast.walk(function) if isinstance(node, ast.Call) and ast.unparse(node.func) == "share"]
        if shares:
            kernels[function.name] = function
            last = function.body[-1]
            assert isinstance(last, ast.For), function.name
            assert shares == [last.iter], function.name
            assert function.args.args[0].arg == ast.unparse(shares[0].args[0]) == "mine", function.name
            assert ast.unparse(function.decorator_list[0]).startswith("njit(nogil=True, cache=True"), function.name
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) in kernels):
        assert ast.unparse(call.args[0]) == "all_tasks()", ast.unparse(call.func)
