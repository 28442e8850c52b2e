"""Kernels that call themselves on all threads."""

from __future__ import annotations

import numpy as np
import pytest
from numba import get_num_threads, njit, set_num_threads

from minunet.simd import all_tasks, share


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
