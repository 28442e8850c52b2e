"""Reverse-mode differentiation, whole.

An operation is a class with two methods on raw arrays:

    class Exp(Function):
        def forward(ctx, x):
            y = xp.exp(x)
            ctx.save(y)                 # said explicitly; dropped as soon as backward has read it
            return y

        def backward(ctx, gy):          # gy = ∂L/∂y, the result is ∂L/∂x
            (y,) = ctx.saved
            return gy * y

`Exp.apply(tensor)` runs the forward. If an input requires a gradient, the instance `ctx` stays behind as a node of the
graph: it holds what was saved and an edge to the maker of each input. `run_backward` walks the graph from the output,
each node once all its consumers are done, with a list instead of recursion, so that a chain of any length works.

There is no double backward: backward sees arrays, not tensors. A graph serves one backward, which consumes it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

from minunet import accumulate, arrays
from minunet.tensor import Tensor

_grad_enabled: ContextVar[bool] = ContextVar("grad_enabled", default=True)
_debugging: ContextVar[bool] = ContextVar("debugging", default=False)
_PACKAGE = str(Path(__file__).parent / "_")[:-1]  # with the separator: a neighbour called minunet-runs is not the package


class Function:
    """One applied operation: a node of the graph. Subclasses define `forward` and `backward`.

    Attributes for the subclass: `needs[i]`, whether input i wants a gradient; `save(*arrays)` and `saved`.
    """

    needs: tuple[bool, ...]
    shapes: tuple[Any, ...]  # of the inputs; None where the input was None
    takes_images: ClassVar[bool] = False  # the first input may have 16 bits, the others are float32 then

    _edges: tuple[Function | Tensor | None, ...] = ()  # the maker of each input; a leaf stands for itself
    _dtypes: tuple[Any, ...] = ()
    _saved: tuple[Any, ...] | None = ()
    _where = ""
    _consumed = False

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Arrays in, array out. A tuple's first array is the output, the others (indices) carry no gradient."""
        raise NotImplementedError

    def backward(self, gy: Any) -> Any:
        """∂L/∂output → ∂L/∂input for each input: one array, or a tuple with None where `needs` is False."""
        raise NotImplementedError

    def save(self, *saved: Any) -> None:
        """Keeps arrays for the backward. Kept only if there will be one."""
        if any(self.needs):
            self._saved = saved

    @property
    def saved(self) -> tuple[Any, ...]:
        """What `save` kept, handed over once: the node forgets it, so memory is freed as backward goes."""
        saved, self._saved = self._saved, None
        if saved is None:
            raise RuntimeError(f"{self.name}: ctx.saved was read twice; unpack it once at the start of backward.")
        return saved

    @property
    def name(self) -> str:
        return type(self).__name__

    @classmethod
    def apply(cls, *inputs: Tensor | None, **options: Any) -> Any:
        """Runs the operation on tensors and records it if an input requires a gradient."""
        node = cls()
        data = tuple([None if t is None else t.data for t in inputs])
        arrays.array_module(*data)  # raises where devices differ
        arrays.check_float_dtypes(cls.__name__, data, cls.takes_images)
        enabled = _grad_enabled.get()
        node.needs = tuple([enabled and t is not None and t.requires_grad for t in inputs])
        node.shapes = tuple([None if d is None else d.shape for d in data])
        node._dtypes = tuple([None if d is None else d.dtype for d in data])
        if _debugging.get():
            node._where = _user_line()
        result = node.forward(*data, **options)
        output, *extras = result if isinstance(result, tuple) else (result,)
        if _debugging.get():
            node._check_finite(output, data)
        if any(node.needs):
            node._edges = tuple([(t.node or t) if need and t is not None else None for t, need in zip(inputs, node.needs, strict=True)])
            tensor = Tensor(output, requires_grad=True, node=node)
        else:
            tensor = Tensor(output)
        return (tensor, *(Tensor(extra) for extra in extras)) if extras else tensor

    def run_backward(self, gy: Any) -> None:
        """Pushes `gy` from this node to the leaves, in an order where every node has all its gradient."""
        waiting = _count_consumers(self)
        gradients: dict[Function, Any] = {self: gy}
        ready = [self]
        while ready:
            node = ready.pop()
            gy = gradients.pop(node)
            others = [gy, *arrays.arrays_among(node._saved or ())]
            grads = node._run(gy)
            edges, node._edges = node._edges, ()
            for i, (edge, grad) in enumerate(zip(edges, grads, strict=True)):
                if edge is None:
                    continue
                if isinstance(edge, Tensor):
                    held = [*others, *(g for g in grads[:i] + grads[i + 1 :] if g is not None)]
                    xp = arrays.array_module(grad)
                    edge.accumulate(grad, owned=not any(xp.may_share_memory(grad, a) for a in held))
                    continue
                gradients[edge] = accumulate.K.add(gradients[edge], grad) if edge in gradients else grad
                waiting[edge] -= 1
                if waiting[edge] == 0:
                    ready.append(edge)

    def _run(self, gy: Any) -> tuple[Any, ...]:
        """This node's backward, its result checked: what comes back has exactly the input's shape and dtype."""
        result = self.backward(gy)
        self._consumed, self._saved = True, None
        grads = result if isinstance(result, tuple) else (result,)
        if len(grads) != len(self.needs):
            raise RuntimeError(f"{self.name}.backward returned {len(grads)} gradients for {len(self.needs)} inputs.")
        xp = arrays.array_module(gy)
        checked: list[Any] = []
        for i, (need, grad) in enumerate(zip(self.needs, grads, strict=True)):
            if not need:
                checked.append(None)
                continue
            grad = xp.asarray(grad)
            if grad.shape != self.shapes[i] or grad.dtype != self._dtypes[i]:
                raise RuntimeError(
                    f"{self.name}.backward: the gradient of input {i} is {grad.dtype} {grad.shape}, "
                    f"the input is {self._dtypes[i]} {self.shapes[i]}."
                )
            if _debugging.get() and not bool(xp.isfinite(grad).all()):
                raise FloatingPointError(
                    f"{self.name}: the gradient of input {i} has the first NaN or infinity of this backward. "
                    f"Its forward ran at {self._where or 'a line recorded only if debug() is on in the forward too'}."
                )
            checked.append(grad)
        return tuple(checked)

    def _check_finite(self, output: Any, inputs: tuple[Any, ...]) -> None:
        xp = arrays.array_module(output)
        if not arrays.is_float(output) or bool(xp.isfinite(output).all()):
            return
        came = ["–" if a is None else f"{a.dtype} {a.shape}" for a in inputs]
        clean = all(a is None or not arrays.is_float(a) or bool(xp.isfinite(a).all()) for a in inputs)
        raise FloatingPointError(
            f"{self.name} made the first NaN or infinity, at {self._where}; its inputs ({', '.join(came)}) "
            + ("are finite." if clean else "hold one already: it came in from outside.")
        )


def _count_consumers(root: Function) -> dict[Function, int]:
    """For each node below the root: how many edges lead to it. Raises where one was consumed before."""
    counts: dict[Function, int] = {root: 0}
    stack = [root]
    while stack:
        node = stack.pop()
        if node._consumed:
            raise RuntimeError(
                f"backward() came to {node.name} a second time, but the first one consumed the graph and freed what it "
                "needed. Run the forward again, or add the losses and call backward() once."
            )
        for edge in node._edges:
            if isinstance(edge, Function):
                if edge not in counts:
                    counts[edge] = 0
                    stack.append(edge)
                counts[edge] += 1
    return counts


def _user_line() -> str:
    """'file.py:12' of the innermost frame outside this package."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(_PACKAGE):
            return f"{frame.filename}:{frame.lineno}"
    return "an unknown line"


@contextmanager
def no_grad() -> Iterator[None]:
    """Within the block nothing is recorded: results require no gradient and hold no graph."""
    token = _grad_enabled.set(False)
    try:
        yield
    finally:
        _grad_enabled.reset(token)


@contextmanager
def debug() -> Iterator[None]:
    """Within the block every operation, forward and backward, checks its result: the first NaN or infinity raises
    FloatingPointError, naming the operation and the line that called it. Slow."""
    token = _debugging.set(True)
    try:
        yield
    finally:
        _debugging.reset(token)
