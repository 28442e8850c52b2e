"""A network's layers and what each costs, as a table, without computing anything.

The network runs on shapes alone: each layer answers with zeros that occupy no memory, one number repeated by strides of zero. A
572×572 UNet, 150 billion multiplications, is summarised in a fraction of a second.
"""

from __future__ import annotations

import contextvars
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minunet import functional as F
from minunet import nn
from minunet.arrays import Array, array_module
from minunet.autograd import Function, no_grad
from minunet.inspection.feature_maps import call_name, layers_of
from minunet.inspection.receptive_field import PIXEL, Reach, union
from minunet.kernels import use
from minunet.nn import Module
from minunet.nn.layers import _AvgPool, _BatchNorm, _Conv, _ConvTranspose, _Dropout, _InstanceNorm, _MaxPool
from minunet.ops.cat import Concatenate
from minunet.ops.pad import ConstantPad
from minunet.ops.shape import Index
from minunet.shapes import ntuple, sizes_text, window_padding, window_span
from minunet.tensor import Tensor

Shape = tuple[int, ...]
Reaches = tuple[Reach, ...] | None  # one for each spatial axis; None where it is not known

_POINTWISE = (_BatchNorm, _InstanceNorm, nn.GroupNorm, _Dropout, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.Softmax)
_POINTWISE_OPS = ("minunet.ops.elementwise", "minunet.ops.activation", "minunet.ops.dropout")


@dataclass(frozen=True)
class Row:
    """One call of a layer, or one concatenation."""

    name: str
    kind: str
    output_shape: Shape
    parameters: int  # counted at a layer's first call
    macs: int  # multiply-accumulates of convolutions and linear layers; the rest is small beside them
    activation_bytes: int
    reaches: Reaches

    @property
    def receptive_field(self) -> tuple[tuple[int, ...], ...] | None:
        """For each spatial axis the sizes that occur, in input pixels: ((188, 204), (188, 204)) for UNet's head. Normalisation over an
        image makes every pixel depend a little on all; that is not counted."""
        return None if self.reaches is None else tuple(reach.sizes for reach in self.reaches)

    @property
    def cells(self) -> tuple[str, ...]:
        return (
            self.name,
            self.kind,
            sizes_text(self.output_shape),
            f"{self.parameters:,}" if self.parameters else "",
            _scaled(self.macs, 1000, ("", "K", "M", "G", "T")) if self.macs else "",
            _scaled(self.activation_bytes, 1024, ("B", "KiB", "MiB", "GiB", "TiB")),
            _field_text(self.receptive_field),
        )


@dataclass(frozen=True)
class Summary:
    """What `summary` found; `str` makes the table."""

    model: str
    input_shape: Shape
    output_shape: Shape
    rows: list[Row]
    parameters: int
    parameter_bytes: int
    macs: int = field(init=False)
    activation_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "macs", sum(row.macs for row in self.rows))
        object.__setattr__(self, "activation_bytes", sum(row.activation_bytes for row in self.rows))

    @property
    def receptive_field(self) -> tuple[tuple[int, ...], ...] | None:
        """The output's: for each spatial axis the sizes that occur, by phase."""
        return self.rows[-1].receptive_field if self.rows else None

    def __str__(self) -> str:
        head = ("layer", "kind", "output", "parameters", "MACs", "activations", "receptive field")
        table = [head, *(row.cells for row in self.rows)]
        widths = [max(len(cells[i]) for cells in table) for i in range(len(head))]
        left = {0, 1}

        def line(cells: Sequence[str]) -> str:
            aligned = (c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
            return "  ".join(aligned).rstrip()

        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
        memory = [_scaled(n, 1024, ("B", "KiB", "MiB", "GiB", "TiB")) for n in (self.parameter_bytes, self.activation_bytes)]
        totals = (
            f"{self.model}: {sizes_text(self.input_shape)} → {sizes_text(self.output_shape)}\n"
            f"parameters {self.parameters:,} ({memory[0]}) · {_scaled(self.macs, 1000, ('', 'K', 'M', 'G', 'T'))} multiply-accumulates · "
            f"activations {memory[1]} · receptive field {_field_text(self.receptive_field)} px"
        )
        return "\n".join([line(head), rule, *(line(row.cells) for row in self.rows), rule, totals])


def summary(model: Module, input_shape: Sequence[int]) -> Summary:
    """A table of the layers: output shape, parameters, multiply-accumulates, activation memory and receptive field.

    input_shape: of one image, (C, *spatial), or of a batch, (N, C, *spatial); the figures hold for what is given. Which one it is, is
    told by the rank of the network's convolutions; a network without any takes one image.
    Activations are what the layers and concatenations write: training keeps about this much for the backward, prediction much less.
    """
    shape = tuple(int(n) for n in input_shape)
    rank = next((module.rank for module in model.modules() if isinstance(module, (_Conv, _ConvTranspose))), len(shape) - 1)
    if len(shape) not in (rank + 1, rank + 2) or min(shape, default=0) < 1:
        raise ValueError(
            f"summary: {type(model).__name__} works on {rank} spatial axes, so input_shape is (C, *spatial) or (N, C, *spatial) "
            f"with {rank} spatial sizes; got {shape}."
        )
    batch = shape if len(shape) == rank + 2 else (1, *shape)
    # a fresh context has all defaults: gradients on (the trace follows the graph), no forced kernels, no recording
    return contextvars.Context().run(_Trace(model).run, batch)


class _Answer(Function):
    """Stands for a layer's output in the graph: zeros of its shape."""

    def forward(ctx, x: Any, *, shape: Shape) -> Any:
        return _zeros(x, shape)


def _zeros(like: Array, shape: Shape) -> Array:
    """Zeros without memory, of the dtype and on the device of `like`."""
    xp = array_module(like)
    return xp.broadcast_to(xp.zeros((), like.dtype), shape)


class _Trace:
    """One run on shapes. `reaches` knows for each graph node what its pixels depend on."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.rows: list[Row] = []
        self.reaches: dict[Any, Reaches] = {}
        self.counted: set[Tensor] = set()
        self.calls: Counter[str] = Counter()

    def run(self, shape: Shape) -> Summary:
        parameters = list(self.model.parameters())
        x = Tensor(_zeros(parameters[0].data if parameters else np.zeros((), np.float32), shape), requires_grad=True)
        self.reaches[x] = (PIXEL,) * (len(shape) - 2)
        layers = layers_of(self.model)
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        for name, module in layers:
            vars(module)["forward"] = self._instead_of(name, module)
        try:
            output = self.model(x)
        finally:
            for _, module in layers:
                del vars(module)["forward"]
            for module, training in modes.items():
                module.training = training
        outputs = output if isinstance(output, tuple | list) else (output,)
        for tensor in outputs:
            self._look_back(tensor.node or tensor)
        count = sum(p.size for p in parameters)
        return Summary(type(self.model).__name__, shape, outputs[-1].shape, self.rows, count, sum(p.data.nbytes for p in parameters))

    def _instead_of(self, name: str, module: Module) -> Callable[..., Any]:
        """What a layer's forward is replaced by: it notes the call and answers with the shape."""
        forward = type(module).forward

        def answer(x: Tensor, *args: Any, **options: Any) -> Any:
            if isinstance(module, nn.Identity) or (isinstance(module, _Dropout) and module.p == 0):
                return x
            before = self._look_back(x.node or x)
            shape = None if args or options else _output_shape(module, x.shape)
            if shape is None:
                y = forward(module, x, *args, **options)
                first = y[0] if isinstance(y, tuple) else y
            else:
                y = first = _Answer.apply(x, shape=shape)
            self.reaches[first.node or first] = None if before is None else _behind(module, before, x.shape[2:])
            fresh = [p for p in module.parameters() if p not in self.counted]
            self.counted.update(fresh)
            self._note(
                call_name(name, self.calls),
                _kind(module),
                first.shape,
                first.dtype,
                first.node or first,
                sum(p.size for p in fresh),
                _macs(module, x, first),
            )
            return y

        return answer

    def _note(self, name: str, kind: str, shape: Shape, dtype: Any, node: Any, parameters: int = 0, macs: int = 0) -> None:
        self.rows.append(Row(name, kind, shape, parameters, macs, math.prod(shape) * dtype.itemsize, self.reaches[node]))

    def _look_back(self, node: Any) -> Reaches:
        """What the pixels of a graph node (or a leaf tensor) depend on, through whatever stands between two layers: crops, sums,
        concatenations. The last take memory, so they are noted."""
        if node in self.reaches or not isinstance(node, Function):
            return self.reaches.setdefault(node, None)
        parts = [self._look_back(edge) for edge in node._edges if edge is not None]
        self.reaches[node] = _between(node, parts)
        if isinstance(node, Concatenate):
            first, total = node.shapes[0], sum(shape[node.axis] for shape in node.shapes)
            self._note("", "concatenate", (*first[: node.axis], total, *first[node.axis + 1 :]), node._dtypes[0], node)
        return self.reaches[node]


def _between(node: Function, parts: list[Reaches]) -> Reaches:
    """Behind an operation that is no layer; None for one whose rule is not known here."""
    known = [part for part in parts if part is not None]
    if not parts or len(known) < len(parts):
        return None
    if isinstance(node, Index):
        return _shifted(known[0], [_start(i) for i in (node.index if isinstance(node.index, tuple) else (node.index,))])
    if isinstance(node, ConstantPad):
        return _shifted(known[0], [-before for before, _ in node.pairs])
    if not (isinstance(node, Concatenate) and node.axis == 1) and type(node).__module__ not in _POINTWISE_OPS:
        return None
    hulls = [union(list(axis)) for axis in zip(*known, strict=True)]
    return None if None in hulls else tuple(hull for hull in hulls if hull is not None)


def _start(index: Any) -> int | None:
    """The first element that a slice takes; None for any other index."""
    return (index.start or 0) if isinstance(index, slice) and index.step in (None, 1) and (index.start or 0) >= 0 else None


def _shifted(reaches: tuple[Reach, ...], starts: Sequence[int | None]) -> Reaches:
    if any(s is None for s in starts) or len(starts) > len(reaches) + 2:
        return None
    moves = [*starts[2:], *(0,) * (len(reaches) + 2 - max(len(starts), 2))]
    return tuple(reach.shifted(move or 0) for reach, move in zip(reaches, moves, strict=True))


def _output_shape(module: Module, shape: Shape) -> Shape | None:
    """A layer's output shape; None where only running it will tell. For the spatial sizes one channel is run."""
    if isinstance(module, _POINTWISE):
        return shape
    thin = Tensor(np.zeros((1, 1, *shape[2:]), np.float32))
    with no_grad(), use("ref"):
        if isinstance(module, (_Conv, _ConvTranspose)):
            if shape[1] != module.in_channels:
                raise ValueError(f"{type(module).__name__} expects {module.in_channels} channels, got {shape[1]}: {sizes_text(shape)}.")
            weight = Tensor(np.zeros((1, 1, *module.kernel_size), np.float32))
            if isinstance(module, _Conv):
                y = getattr(F, f"conv{module.rank}d")(thin, weight, None, module.stride, module.padding, module.dilation)
            else:
                transpose = getattr(F, f"conv_transpose{module.rank}d")
                y = transpose(thin, weight, None, module.stride, module.padding, module.output_padding, 1, module.dilation)
            return (shape[0], module.out_channels, *y.shape[2:])
        if isinstance(module, (_MaxPool, _AvgPool, nn.Upsample)) and not getattr(module, "return_indices", False):
            forward: Any = type(module).forward  # module.forward is replaced while the trace runs
            return (*shape[:2], *forward(module, thin).shape[2:])
    return None


def _behind(module: Module, reaches: tuple[Reach, ...], spatial: Shape) -> Reaches:
    """What the pixels behind a layer depend on."""
    rank = len(reaches)
    if isinstance(module, _POINTWISE):
        return reaches
    if isinstance(module, nn.Upsample):
        factors = module.scale_factor if isinstance(module.scale_factor, Sequence) else (module.scale_factor,) * rank
        if module.align_corners or any(f is None or f != int(f) or f < 1 for f in factors):
            return None
        return tuple(reach.upsampled(int(f), "linear" in module.mode) for reach, f in zip(reaches, factors, strict=True))
    if not isinstance(module, (_Conv, _ConvTranspose, _MaxPool, _AvgPool)):
        return None
    kernel, stride = ntuple(module.kernel_size, rank, "kernel_size"), ntuple(module.stride, rank, "stride")
    dilation = ntuple(getattr(module, "dilation", 1), rank, "dilation")
    axes = list(zip(reaches, kernel, stride, dilation, strict=True))
    if isinstance(module, _ConvTranspose):
        if module.padding == "same":
            fronts = tuple(max(window_span(k, d) - s, 0) // 2 for _, k, s, d in axes)
        else:
            fronts = (0,) * rank if module.padding == "valid" else ntuple(module.padding, rank, "padding")
        ups = [reach.transposed_window(k, s, d, front) for (reach, k, s, d), front in zip(axes, fronts, strict=True)]
        return None if None in ups else tuple(up for up in ups if up is not None)
    pads = window_padding(module.padding, spatial, kernel, stride, dilation)
    return tuple(reach.window(k, s, d, before) for (reach, k, s, d), (before, _) in zip(axes, pads, strict=True))


def _macs(module: Module, x: Tensor, y: Tensor) -> int:
    """Multiply-accumulates of one call: each output of a convolution takes C/groups·taps of them, each input of a transposed one gives
    O/groups·taps."""
    if isinstance(module, _ConvTranspose):
        return math.prod(x.shape) * math.prod(module.weight.shape[1:])
    if isinstance(module, (_Conv, nn.Linear)):
        return math.prod(y.shape) * math.prod(module.weight.shape[1:])
    return 0


def _kind(module: Module) -> str:
    """'Conv2d 3×3 + ReLU'."""
    size = getattr(module, "kernel_size", getattr(module, "scale_factor", None))
    rank = getattr(type(module), "rank", 1)
    kernel = "" if size is None else " " + sizes_text(size if isinstance(size, Sequence) else (size,) * rank)
    return type(module).__name__ + kernel + (" + ReLU" if getattr(module, "activation", None) == "relu" else "")


def _scaled(number: int, base: int, units: Sequence[str]) -> str:
    """150434000000 → '150.43 G'."""
    power = 0 if number < base else min(int(math.log(number, base)), len(units) - 1)
    return f"{number / base**power:.2f} {units[power]}" if power else f"{number} {units[0]}".rstrip()


def _field_text(sizes: tuple[tuple[int, ...], ...] | None) -> str:
    """'140', '188–204' (by phase), '3×5' (by axis), '–' where it is not known."""
    if sizes is None:
        return "–"
    axes = [f"{s[0]}–{s[-1]}" if len(s) > 1 else str(s[0]) for s in sizes]
    return axes[0] if len(set(axes)) == 1 else "×".join(axes)
