"""The processor's vector registers, and a short way to write LLVM IR that uses them."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config
from numba.extending import intrinsic


def _vector_bytes() -> int:
    """Register width of the processor that Numba compiles for: 64 (AVX-512), 32 (AVX) or 16 (SSE2, NEON)."""
    asked: str | None = config.CPU_FEATURES  # NUMBA_CPU_FEATURES, or None for the machine's own
    if asked is not None:
        features = {name[1:] for name in asked.split(",") if name.startswith("+")}
    else:
        features = {name for name, present in llvm.get_host_cpu_features().items() if present}
    return 64 if "avx512f" in features else 32 if "avx" in features else 16


VECTOR_BYTES = _vector_bytes()
CACHE_LINE = 64  # bytes


def lanes(itemsize: int) -> int:
    """Numbers in one vector."""
    return VECTOR_BYTES // itemsize


class Emitter:
    """Writes vector instructions on float32 or float64, whichever `zero` is.

    Addresses come as integers, offsets and strides count elements. Loads and stores need no alignment.
    """

    def __init__(self, builder: Any, zero: types.Float) -> None:
        self.builder = builder
        self.scalar = ir.FloatType() if zero == types.float32 else ir.DoubleType()
        self.itemsize = zero.bitwidth // 8
        self.width = lanes(self.itemsize)
        self.vector = ir.VectorType(self.scalar, self.width)
        name = f"llvm.fmuladd.v{self.width}f{zero.bitwidth}"  # one instruction where the processor has it, else two
        self._fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(self.vector, [self.vector] * 3), name)

    def align_stack(self) -> None:
        """Makes the function keep its stack aligned to vectors, so that one that finds no register is not stored across two cache lines.

        LLVM decides before it knows of such vectors; an aligned variable that (empty) assembly may look at decides for it.
        """
        variable = cgutils.alloca_once(self.builder, self.vector)
        variable.align = VECTOR_BYTES
        look = ir.FunctionType(ir.VoidType(), [variable.type])
        self.builder.asm(look, "", "r", [variable], side_effect=True)

    def index(self, number: int) -> Any:
        return ir.Constant(ir.IntType(64), number)

    def times(self, stride: Any, count: int) -> Any:
        return self.builder.mul(stride, self.index(count))

    def pointer(self, address: Any) -> Any:
        return self.builder.inttoptr(address, self.scalar.as_pointer())

    def at(self, pointer: Any, *offsets: Any) -> Any:
        for offset in offsets:
            pointer = self.builder.gep(pointer, [offset])
        return pointer

    def load(self, pointer: Any) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.itemsize)

    def store(self, vector: Any, pointer: Any) -> None:
        self.builder.store(vector, self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.itemsize)

    def stream(self, vector: Any, pointer: Any) -> None:
        """A store past the caches: the line is not read before it is written, and others keep their place.

        The pointer is aligned to a vector, which should fill the line. `settle` makes such stores seen by other threads.
        """
        store = self.builder.store(vector, self.builder.bitcast(pointer, self.vector.as_pointer()), align=VECTOR_BYTES)
        store.set_metadata("nontemporal", self.builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))

    def prefetch(self, pointer: Any, write: bool) -> None:
        """Asks for the cache line at `pointer`, which need not exist, to be brought into the second cache."""
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag]), "llvm.prefetch.p0"
        )
        self.builder.call(function, [self.builder.bitcast(pointer, byte), *(ir.Constant(flag, n) for n in (int(write), 2, 1))])

    def load_index(self, table: Any, i: Any) -> Any:
        """table[i], where `table` is the address of 64-bit integers."""
        i = self.index(i) if isinstance(i, int) else i
        return self.builder.load(self.builder.gep(self.builder.inttoptr(table, ir.IntType(64).as_pointer()), [i]))

    def rises(self, table: Any, count: int, step: int) -> Any:
        """Is each of the first `count` integers of a table, told as in `load_index`, the one before + `step`? All are compared at once."""
        integers = ir.VectorType(ir.IntType(64), count)
        found = self.builder.load(self.builder.inttoptr(table, integers.as_pointer()), align=8)
        first = self.builder.shuffle_vector(found, found, ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count))
        expected = self.builder.add(first, ir.Constant(integers, [i * step for i in range(count)]))
        same = self.builder.bitcast(self.builder.icmp_signed("==", found, expected), ir.IntType(count))
        return self.builder.icmp_signed("==", same, ir.Constant(ir.IntType(count), -1))

    def load_some(self, pointer: Any, count: Any) -> Any:
        """The first `count` lanes; the others are 0, and their memory is not touched."""
        pointer, mask, flag = self._some(pointer, count)
        load = self._masked("load", self.vector, [pointer.type, flag.type, mask.type, self.vector])
        return self.builder.call(load, [pointer, flag, mask, self.constant(0.0)])

    def store_some(self, vector: Any, pointer: Any, count: Any) -> None:
        """The first `count` lanes."""
        pointer, mask, flag = self._some(pointer, count)
        store = self._masked("store", ir.VoidType(), [self.vector, pointer.type, flag.type, mask.type])
        self.builder.call(store, [vector, pointer, flag, mask])

    def _some(self, pointer: Any, count: Any) -> tuple[Any, Any, Any]:
        """What LLVM's masked loads and stores take: a pointer to vectors, which lanes come before `count`, and the alignment."""
        integers = ir.VectorType(ir.IntType(64), self.width)
        undefined, nowhere = ir.Constant(integers, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width)
        first = self.builder.insert_element(undefined, count, ir.Constant(ir.IntType(32), 0))
        limit = self.builder.shuffle_vector(first, undefined, nowhere)
        mask = self.builder.icmp_signed("<", ir.Constant(integers, list(range(self.width))), limit)
        return self.builder.bitcast(pointer, self.vector.as_pointer()), mask, ir.Constant(ir.IntType(32), self.itemsize)

    def _masked(self, what: str, result: Any, arguments: list[Any]) -> Any:
        name = f"llvm.masked.{what}.v{self.width}f{8 * self.itemsize}.p0"
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name)

    def splat(self, number: Any) -> Any:
        """One number in every lane."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
        return self.shuffle(first, undefined, [0] * self.width)

    def alone(self, number: Any) -> Any:
        """One number in the first lane, zeros in the others."""
        return self.builder.insert_element(self.constant(0.0), number, ir.Constant(ir.IntType(32), 0))

    def shuffle(self, a: Any, b: Any, lanes_of_both: list[int]) -> Any:
        """Lanes of a (0, 1, …) and of b (counted on) in a new order."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), self.width), lanes_of_both))

    def constant(self, number: float) -> Any:
        return ir.Constant(self.vector, [number] * self.width)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a·b + c"""
        return self.builder.call(self._fma, [a, b, c])

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b)

    def subtract(self, a: Any, b: Any) -> Any:
        return self.builder.fsub(a, b)

    def multiply(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b)

    def totals(self, vectors: list[Any]) -> Any:
        """One vector whose lane i is the sum of the lanes of vectors[i]: as many vectors as lanes, or a half, a quarter … of it.

        Neighbours are added first, then pairs of them, and so on. As long as there are two vectors, they become one:

            a0 b1 a2 b3 …  +  a1 b0 a3 b2 …  =  a01 b01 a23 b23 …     then lanes two apart, four apart, …
        """
        for apart in (1 << level for level in range(self.width.bit_length() - 1)):
            pairs = zip(vectors[::2], vectors[1::2] or vectors, strict=True)
            vectors = [self._folded(a, b, apart) for a, b in pairs]
        return vectors[0]

    def _folded(self, a: Any, b: Any, apart: int) -> Any:
        """Sums of lanes `apart`: those of a where its first lanes were, those of b in the lanes between."""
        lanes_of = [self.width * (i & apart > 0) for i in range(self.width)]  # where a's or b's begin
        here, there = ([begin + (i ^ other) for i, begin in enumerate(lanes_of)] for other in (0, apart))
        return self.add(self.shuffle(a, b, here), self.shuffle(a, b, there))

    def at_least(self, vector: Any, floor: Any) -> Any:
        """max(vector, floor); a NaN stays NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", vector, floor), floor, vector)

    def where_above(self, z: Any, floor: Any, vector: Any) -> Any:
        """0 where z ≤ floor, else vector, also where z is NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<=", z, floor), self.constant(0.0), vector)

    def where_positive(self, gate: Any, vector: Any) -> Any:
        """vector where gate > 0, else 0."""
        return self.builder.select(self.builder.fcmp_ordered(">", gate, self.constant(0.0)), vector, self.constant(0.0))


@njit(cache=True)
def address(array):  # type: ignore[no-untyped-def]
    """Of an array's first element, in a seventh of the time that NumPy takes to tell it."""
    return array.ctypes.data


@njit(cache=True)
def next_line(array):  # type: ignore[no-untyped-def]
    """Where the first cache line begins within an array."""
    return (array.ctypes.data + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE


@intrinsic
def peek(typingctx, address, i, zero):  # type: ignore[no-untyped-def]
    """The number at address[i]."""
    if not isinstance(zero, types.Float):
        return None

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(builder, zero)
        return builder.load(emit.at(emit.pointer(args[0]), args[1]), align=emit.itemsize)

    return zero(types.intp, types.intp, zero), codegen


@intrinsic
def poke(typingctx, address, i, value):  # type: ignore[no-untyped-def]
    """address[i] = value"""
    if not isinstance(value, types.Float):
        return None

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(builder, value)
        builder.store(args[2], emit.at(emit.pointer(args[0]), args[1]), align=emit.itemsize)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, value), codegen


@intrinsic
def settle(typingctx):  # type: ignore[no-untyped-def]
    """Waits until all that this thread has streamed is in memory."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


def _make_prefetch(write: bool) -> Any:
    @intrinsic
    def prefetch(typingctx, address):  # type: ignore[no-untyped-def]
        """Asks for the cache line at `address`, which need not exist, to be brought into the second cache."""

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            emit = Emitter(builder, types.float32)
            emit.prefetch(emit.pointer(args[0]), write)
            return context.get_dummy_value()

        return types.void(types.intp), codegen

    return prefetch


prefetch, prefetch_to_write = _make_prefetch(False), _make_prefetch(True)
