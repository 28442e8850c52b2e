"""A kernel on all threads that is translated once.

Numba's `prange` makes a function of the loop, another one around it, and puts both, with all that they call, into the kernel again: most
of its code is optimised and translated four times, which takes seconds. Here a kernel calls itself instead:

    @njit(nogil=True, cache=True)
    def double(mine, x, y):
        for i in share(mine, len(x)):
            y[i] = 2 * x[i]

    double(all_tasks(), x, y)

The call from Python has no tasks of its own yet. Its `share` calls the kernel once more on each thread, with the tasks that are for that
thread and all other arguments as they are, waits for them, and returns no task. What stands before `share` so runs on every thread.

The threads borrow the arrays: the call that waits for them holds the references. Numba would have each thread count its own as well,
wherever one function hands an array to another. All counts of an array are one number in memory, which cores then take from each other:
a tenth of a microsecond each time where they share no cache.

Which thread does which task depends on the number of threads, so a kernel's result must not depend on it.

LLVM is told, as by `prange`, that what a kernel writes to overlaps nothing else that it gets, or no more than element by element. A
`reshape` within the kernel hides that from it: flat arrays come flat.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import cfunc, get_num_threads, njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

Mine = tuple[int, int, int]  # first task, last + 1, or −1 where none is told yet; the address of `_on_threads`

_I64 = ir.IntType(64)
_CALL = ir.FunctionType(ir.VoidType(), [_I64] * 3)


@cache
def all_tasks() -> Mine:
    """What a call from Python passes as `mine`."""
    return 0, -1, _driver().address


@njit(inline="always")
def share(mine, count):  # type: ignore[no-untyped-def]
    """Those of the tasks 0 … count − 1 that this call is to do. mine: the first argument of the kernel, in which this must stand."""
    first, last = _share(mine, count)
    return range(first, last)


@intrinsic
def _share(typingctx, mine, count):  # type: ignore[no-untyped-def]
    """The first of them and the last + 1."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        first, last, driver = cgutils.unpack_tuple(builder, args[0], len(mine))
        low, high = (cgutils.alloca_once_value(builder, value) for value in (first, last))
        kernel = builder.function
        arguments = context.call_conv.get_arguments(kernel)
        for pointer in [a for a in arguments if isinstance(a.type, ir.PointerType)]:
            pointer.add_attribute("noalias")  # else loops over several arrays begin by asking whether they overlap
        record = cgutils.alloca_once(builder, ir.LiteralStructType([a.type for a in arguments]))
        with builder.if_then(builder.icmp_signed("<", last, _I64(0))):
            for i, argument in enumerate(arguments):
                builder.store(_borrowed(argument), cgutils.gep_inbounds(builder, record, 0, i))
            again = builder.ptrtoint(_call_again(context, kernel, arguments), _I64)
            here = builder.ptrtoint(record, _I64)
            builder.call(builder.inttoptr(driver, _CALL.as_pointer()), [again, here, args[1]])
            builder.store(_I64(0), low)
            builder.store(_I64(0), high)
        return context.make_tuple(builder, signature.return_type, [builder.load(low), builder.load(high)])

    if isinstance(mine, types.UniTuple) and len(mine) == len(Mine.__args__):  # type: ignore[attr-defined]
        return types.UniTuple(types.intp, 2)(mine, types.intp), codegen
    return None


def _borrowed(argument: Any) -> Any:
    """The argument, or null if it is the first part of an array: where its references are counted. At null Numba counts nothing."""
    is_count = isinstance(argument.type, ir.PointerType) and argument.name.endswith(".0")  # an argument x has parts arg.x.0, arg.x.1, …
    return argument.type(None) if is_count else argument


def _call_again(context: Any, kernel: Any, arguments: Any) -> Any:
    """A function of (address of the kernel's arguments, first, last) that calls the kernel with these tasks."""
    function = ir.Function(kernel.module, _CALL, f"{kernel.name}.again")
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    address, first, last = function.args
    record = builder.inttoptr(address, ir.LiteralStructType([a.type for a in arguments]).as_pointer())
    passed = [builder.load(cgutils.gep_inbounds(builder, record, 0, i)) for i in range(len(arguments))]
    results = [builder.alloca(a.type.pointee) for a in kernel.args[: len(kernel.args) - len(arguments)]]  # where it returns, and complains
    builder.call(kernel, [*results, first, last, *passed[2:]])
    builder.ret_void()
    return function


@intrinsic
def _call(typingctx, function, arguments, first, last):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.call(builder.inttoptr(args[0], _CALL.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


@intrinsic
def _threads(typingctx):  # type: ignore[no-untyped-def]
    """`get_num_threads`, which holds an address of this process, so that what calls it could not be cached."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(_I64, []), "get_num_threads"), [])

    return types.intp(), codegen


def thread_count() -> int:
    """`numba.get_num_threads` in a tenth of its time, which every call of a layer would take."""
    _driver()
    return int(_thread_count())


@njit(cache=True)
def _thread_count():  # type: ignore[no-untyped-def]
    return _threads()


@njit(parallel=True, nogil=True, cache=True)
def _on_threads(function, arguments, count):  # type: ignore[no-untyped-def]
    threads = _threads()
    for t in prange(threads):
        _call(function, arguments, count * t // threads, count * (t + 1) // threads)


@cache  # which keeps it in memory
def _driver() -> Any:
    """`_on_threads` as C has it, with an address."""
    get_num_threads()  # which starts the threads: a function from the cache takes them for started

    @cfunc("void(intp, intp, intp)", cache=True)
    def driver(function, arguments, count):  # type: ignore[no-untyped-def]
        _on_threads(function, arguments, count)

    return driver
