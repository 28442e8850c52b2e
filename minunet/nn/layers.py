"""Layers: a function of `minunet.functional` together with its parameters, buffers and options.

Constructor arguments, defaults, initial distributions and state_dict keys are PyTorch's; sizes and formulas are told at the
functions. What slides a window also takes padding="same" or "valid" with Keras' meaning. Each family is one class for any
number of spatial axes; Conv1d, Conv2d, Conv3d … only name the rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from minunet import functional as F
from minunet.nn import init
from minunet.nn.module import Module, Parameter
from minunet.ops.activation import refuse_inplace
from minunet.shapes import check_rank, ntuple, sizes_text, window_padding, window_span
from minunet.tensor import Tensor


def _zeros(*shape: int) -> Parameter:
    return Parameter(np.zeros(shape, dtype=np.float32))


def _ones(*shape: int) -> Parameter:
    return Parameter(np.ones(shape, dtype=np.float32))


def _check_activation(name: str, activation: str | None) -> None:
    if activation not in (None, "relu"):
        raise ValueError(f"{name}: activation is None or 'relu', got {activation!r}. Put other activations behind the layer.")


# ---- convolution and linear maps ----


class _Kernel(Module):
    """A weight and perhaps a bias, both drawn from U(−1/√fan_in, 1/√fan_in)."""

    weight: Parameter
    bias: Parameter | None

    def _set_kernel(self, shape: tuple[int, ...], outputs: int, bias: bool) -> None:
        """shape: of the weight, (first, second, *kernel). In memory the first axis comes last, where a kernel's vectors run along it."""
        self.weight = Parameter(_zeros(*shape[2:], *shape[1::-1]).data.transpose(len(shape) - 1, len(shape) - 2, *range(len(shape) - 2)))
        self.bias = _zeros(outputs) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the initial values anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # PyTorch's way to write U(−1/√fan_in, 1/√fan_in)
        if self.bias is not None:
            bound = 1 / math.sqrt(init.fans(self.weight)[0])
            init.uniform_(self.bias, -bound, bound)


class Linear(_Kernel):
    """y = x·wᵀ + b over the last axis. weight: (out_features, in_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self._set_kernel((out_features, in_features), out_features, bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class _ConvNd(_Kernel):
    """What convolution and transposed convolution share: sizes, the kernel, and how they are written."""

    rank: ClassVar[int]
    output_padding: tuple[int, ...] = ()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
        padding_mode: str,
        activation: str | None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if min(in_channels, out_channels, groups) < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: {in_channels} input and {out_channels} output channels must be positive multiples of groups={groups}."
            )
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(f"{name}: padding is an int, a tuple, 'same' or 'valid'; got {padding!r}.")
        _check_activation(name, activation)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = ntuple(kernel_size, self.rank, "kernel_size", minimum=1)
        self.stride = ntuple(stride, self.rank, "stride", minimum=1)
        self.padding = padding if isinstance(padding, str) else ntuple(padding, self.rank, "padding")
        self.dilation = ntuple(dilation, self.rank, "dilation", minimum=1)
        self.padding_mode = padding_mode
        self.activation = activation

    def extra_repr(self) -> str:
        shown = {
            "padding": (self.padding, (0,) * self.rank),
            "dilation": (self.dilation, (1,) * self.rank),
            "output_padding": (self.output_padding, (0,) * len(self.output_padding)),
            "groups": (self.groups, 1),
            "bias": (self.bias is not None, True),
            "padding_mode": (self.padding_mode, "zeros"),
            "activation": (self.activation, None),
        }
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        return ", ".join(parts + [f"{name}={value!r}" for name, (value, default) in shown.items() if value != default])


class _Conv(_ConvNd):
    """Convolution. weight: (out_channels, in_channels/groups, *kernel_size).

    padding: an int, one for each axis, or "same" | "valid" with Keras' meaning (any stride). padding_mode: what fills the padding,
    "zeros", "reflect", "replicate" or "circular". activation: None or "relu", computed as the convolution writes its result.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        activation: str | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode, activation)
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ValueError(f"{type(self).__name__}: padding_mode is 'zeros', 'reflect', 'replicate' or 'circular'; got {padding_mode!r}.")
        self._set_kernel((out_channels, in_channels // groups, *self.kernel_size), out_channels, bias)

    def forward(self, input: Tensor, out: Any = None) -> Tensor:
        """out: an array to write the result into, such as one half of a concatenation."""
        x, padding = input, self.padding
        if self.padding_mode != "zeros":
            pairs = window_padding(padding, x.shape[-self.rank :], self.kernel_size, self.stride, self.dilation)
            x, padding = F.pad(x, [n for pair in reversed(pairs) for n in pair], mode=self.padding_mode), (0,) * self.rank
        convolve = getattr(F, f"conv{self.rank}d")  # (N, C, *spatial) → (N, O, *spatial')
        return convolve(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups, activation=self.activation, out=out)


class Conv1d(_Conv):
    rank = 1


class Conv2d(_Conv):
    rank = 2


class Conv3d(_Conv):
    rank = 3


class _ConvTranspose(_ConvNd):
    """Transposed convolution ("up-convolution"). weight: (in_channels, out_channels/groups, *kernel_size).

    UNet's is ConvTranspose2d(2·c, c, 2, stride=2): it doubles height and width. padding may be "same" (output: stride times the
    input) or "valid" with Keras' meaning. activation: None or "relu".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        *,
        activation: str | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode, activation)
        if padding_mode != "zeros":
            raise ValueError(f"{type(self).__name__}: padding_mode is 'zeros', got {padding_mode!r}: nothing but zeros can be cropped.")
        self.output_padding = ntuple(output_padding, self.rank, "output_padding")
        self._set_kernel((in_channels, out_channels // groups, *self.kernel_size), out_channels, bias)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None, out: Any = None) -> Tensor:
        """output_size: the wanted height and width …, where stride > 1 leaves several possible. out: an array to write the result into."""
        extra = self.output_padding if output_size is None else self._extra(input, tuple(output_size)[-self.rank :])
        convolve = getattr(F, f"conv_transpose{self.rank}d")
        return convolve(
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation, activation=self.activation, out=out
        )

    def _extra(self, input: Tensor, wanted: tuple[int, ...]) -> tuple[int, ...]:
        """The output_padding that gives the wanted size."""
        name = type(self).__name__
        if isinstance(self.padding, str):
            raise ValueError(f"{name}: padding={self.padding!r} fixes the output size; leave output_size out, or give padding as numbers.")
        axes = zip(input.shape[-self.rank :], self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        least = tuple((n - 1) * s - 2 * p + window_span(k, d) for n, k, s, p, d in axes)
        extra = tuple(w - low for w, low in zip(wanted, least, strict=True))
        if not all(0 <= e < s for e, s in zip(extra, self.stride, strict=True)):
            most = tuple(low + s - 1 for low, s in zip(least, self.stride, strict=True))
            raise ValueError(
                f"{name}: output_size {sizes_text(wanted)} is out of reach; an input of {sizes_text(input.shape[-self.rank :])} "
                f"gives from {sizes_text(least)} to {sizes_text(most)}."
            )
        return extra


class ConvTranspose1d(_ConvTranspose):
    rank = 1


class ConvTranspose2d(_ConvTranspose):
    rank = 2


class ConvTranspose3d(_ConvTranspose):
    rank = 3


# ---- pooling and upsampling ----


class _MaxPool(Module):
    """The largest value under each window. stride: None means kernel_size."""

    rank: ClassVar[int]

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        self.dilation, self.return_indices, self.ceil_mode = dilation, return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        pool = getattr(F, f"max_pool{self.rank}d")
        return pool(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding!r}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    rank = 1


class MaxPool2d(_MaxPool):
    rank = 2


class MaxPool3d(_MaxPool):
    rank = 3


class _AvgPool(Module):
    """The mean under each window. stride: None means kernel_size."""

    rank: ClassVar[int]

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        self.ceil_mode, self.count_include_pad, self.divisor_override = ceil_mode, count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Tensor:
        pool = getattr(F, f"avg_pool{self.rank}d")
        options = {} if self.divisor_override is None else {"divisor_override": self.divisor_override}
        return pool(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, **options)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding!r}"


class AvgPool1d(_AvgPool):
    rank = 1


class AvgPool2d(_AvgPool):
    rank = 2


class AvgPool3d(_AvgPool):
    rank = 3


class Upsample(Module):
    """Interpolation to `size` or by `scale_factor`: mode "nearest", "linear", "bilinear" or "trilinear"."""

    def __init__(self, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None) -> None:
        super().__init__()
        self.size, self.scale_factor, self.mode, self.align_corners = size, scale_factor, mode, align_corners

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        target = f"size={self.size}" if self.size is not None else f"scale_factor={self.scale_factor}"
        return f"{target}, mode={self.mode!r}"


# ---- normalisation ----


def _activation_repr(activation: str | None) -> str:
    return "" if activation is None else f", activation={activation!r}"


class _Norm(Module):
    """Per-channel scale and shift, and running statistics where they are tracked: what batch and instance norm share.

    activation: None or "relu", computed as the normalisation writes its result.
    """

    rank: ClassVar[int]
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool, activation: str | None
    ) -> None:
        super().__init__()
        _check_activation(type(self).__name__, activation)
        self.num_features, self.eps, self.momentum, self.activation = num_features, eps, momentum, activation
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = _ones(num_features) if affine else None
        self.bias = _zeros(num_features) if affine else None
        self.register_buffer("running_mean", np.zeros(num_features, np.float32) if track_running_stats else None)
        self.register_buffer("running_var", np.ones(num_features, np.float32) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", np.array(0, np.int64) if track_running_stats else None)

    def _count_batch(self) -> float:
        """Counts a training batch; the share that its statistics get in the running ones."""
        if self.num_batches_tracked is None:
            return self.momentum or 0.0
        self.num_batches_tracked.data += 1
        return 1.0 / self.num_batches_tracked.item() if self.momentum is None else self.momentum

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}" + _activation_repr(self.activation)
        )


class _BatchNorm(_Norm):
    """Normalises each channel over the batch and all pixels; in eval() with the running mean and variance instead.

    momentum: the share of the new batch in the running statistics; None: their plain average. The running variance is the
    unbiased one, as in PyTorch (Keras keeps the biased one, and writes 0.99 for momentum 0.01).
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        activation: str | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, activation)

    def forward(self, input: Tensor, out: Any = None) -> Tensor:
        """out: an array to write the result into, such as one half of a concatenation."""
        if not (self.rank == 1 and input.ndim == 2):
            check_rank(type(self).__name__, input.shape, self.rank + 2, "(N, C, " + ("L)", "H, W)", "D, H, W)")[self.rank - 1])
        momentum = self._count_batch() if self.training else 0.0
        by_batch = self.training or self.running_mean is None
        statistics, affine = (self.running_mean, self.running_var), (self.weight, self.bias)
        return F.batch_norm(input, *statistics, *affine, by_batch, momentum, self.eps, activation=self.activation, out=out)


class BatchNorm1d(_BatchNorm):
    rank = 1


class BatchNorm2d(_BatchNorm):
    rank = 2


class BatchNorm3d(_BatchNorm):
    rank = 3


class _InstanceNorm(_Norm):
    """Normalises each channel of each image over its own pixels: the same in train() and eval(), unless it tracks statistics."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        activation: str | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, activation)

    def forward(self, input: Tensor, out: Any = None) -> Tensor:
        """out: as in `BatchNorm2d`."""
        by_image = self.training or self.running_mean is None
        momentum = self.momentum or 0.0
        statistics, affine = (self.running_mean, self.running_var), (self.weight, self.bias)
        return F.instance_norm(input, *statistics, *affine, by_image, momentum, self.eps, activation=self.activation, out=out)


class InstanceNorm1d(_InstanceNorm):
    rank = 1


class InstanceNorm2d(_InstanceNorm):
    rank = 2


class InstanceNorm3d(_InstanceNorm):
    rank = 3


class GroupNorm(Module):
    """Normalises each image over its pixels and the channels of each group: independent of the batch size. activation: None or "relu"."""

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, *, activation: str | None = None
    ) -> None:
        super().__init__()
        _check_activation("GroupNorm", activation)
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"GroupNorm: {num_channels} channels cannot be split into {num_groups} equal groups.")
        self.num_groups, self.num_channels, self.eps, self.affine, self.activation = num_groups, num_channels, eps, affine, activation
        self.weight = _ones(num_channels) if affine else None
        self.bias = _zeros(num_channels) if affine else None

    def forward(self, input: Tensor, out: Any = None) -> Tensor:
        """out: as in `BatchNorm2d`."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps, activation=self.activation, out=out)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}" + _activation_repr(self.activation)


# ---- dropout ----


class _Dropout(Module):
    function: ClassVar[str]

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        refuse_inplace(type(self).__name__, inplace)
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p is the probability of dropping, between 0 and 1; got {p}.")
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        return getattr(F, self.function)(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout(_Dropout):
    """In training each element is zeroed with probability p and the others grow by 1/(1 − p)."""

    function = "dropout"


class Dropout1d(_Dropout):
    """In training whole channels (N, C, L) are zeroed with probability p."""

    function = "dropout1d"


class Dropout2d(_Dropout):
    """In training whole channels (N, C, H, W) are zeroed with probability p: neighbouring pixels are too alike to drop one by one."""

    function = "dropout2d"


class Dropout3d(_Dropout):
    """In training whole channels (N, C, D, H, W) are zeroed with probability p."""

    function = "dropout3d"


# ---- activations ----


class ReLU(Module):
    """max(x, 0)"""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        refuse_inplace(type(self).__name__, inplace)

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input)


class LeakyReLU(Module):
    """x where x > 0, else negative_slope·x"""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        refuse_inplace(type(self).__name__, inplace)
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class PReLU(Module):
    """x where x > 0, else weight·x with a learned weight: one for all channels, or one each"""

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.weight = Parameter(np.full(num_parameters, init, dtype=np.float32))

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class ELU(Module):
    """x where x > 0, else alpha·(eˣ − 1)"""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        refuse_inplace(type(self).__name__, inplace)
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Sigmoid(Module):
    """1/(1 + e⁻ˣ)"""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Tanh(Module):
    """(eˣ − e⁻ˣ)/(eˣ + e⁻ˣ)"""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Softmax(Module):
    """eˣ / Σ eˣ over the axis dim (1 for logits (N, C, H, W))"""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """x − log Σ eˣ over the axis dim"""

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)


# ---- shapes ----


class Flatten(Module):
    """(N, C, H, W) → (N, C·H·W): joins the axes from start_dim to end_dim"""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return F.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """x. Takes any arguments, so that it can stand in for any layer."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input


# ---- losses ----


class _Loss(Module):
    """loss(input, target) by the function of `minunet.functional`; reduction: "mean", "sum" or "none"."""

    function: ClassVar[str]

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__()
        self.options: dict[str, Any] = {"reduction": reduction}

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        weights = dict(self._own_buffers())
        return getattr(F, self.function)(input, target, **weights, **self.options)


class L1Loss(_Loss):
    function = "l1_loss"


class MSELoss(_Loss):
    function = "mse_loss"


class BCELoss(_Loss):
    function = "binary_cross_entropy"

    def __init__(self, weight: Any = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.register_buffer("weight", weight)


class BCEWithLogitsLoss(_Loss):
    function = "binary_cross_entropy_with_logits"

    def __init__(self, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction=reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)


class NLLLoss(_Loss):
    function = "nll_loss"

    def __init__(self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.register_buffer("weight", weight)
        self.options["ignore_index"] = ignore_index


class CrossEntropyLoss(NLLLoss):
    function = "cross_entropy"

    def __init__(self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0) -> None:
        super().__init__(weight, ignore_index=ignore_index, reduction=reduction)
        self.options["label_smoothing"] = label_smoothing
