"""Initialisation: fills a tensor in place with values that keep signals and gradients at their size through the layers.

A layer sums fan_in products, so its output's variance is fan_in·Var(w)·E[x²]. ReLU zeroes half of a symmetric input, hence
He's Var(w) = 2/fan_in (He et al. 2015, arXiv:1502.01852, eq. 10); Glorot's Var(w) = 2/(fan_in + fan_out) balances the forward
and backward passes of linear layers (Glorot & Bengio 2010, eq. 16).

All values are drawn from `minunet.rng.generator()`, in float64, then rounded to the tensor's dtype: one seed, one network.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minunet import arrays, rng
from minunet.shapes import sizes_text
from minunet.tensor import Tensor

# The standard deviation of a standard normal cut off at ±2: what Keras divides by so that its truncated normal has the wanted one.
_STD_CUT_AT_2 = 0.87962566103423978


def _fill(tensor: Tensor, values: Any) -> Tensor:
    tensor.data[...] = values if np.isscalar(values) else arrays.to_device(np.asarray(values, dtype=tensor.dtype), tensor.device)
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    return _fill(tensor, 0)


def ones_(tensor: Tensor) -> Tensor:
    return _fill(tensor, 1)


def constant_(tensor: Tensor, val: float) -> Tensor:
    return _fill(tensor, val)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Uniform in [a, b)."""
    return _fill(tensor, rng.generator().uniform(a, b, tensor.shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return _fill(tensor, rng.generator().normal(mean, std, tensor.shape))


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Normal(mean, std) with all values outside [a, b] drawn again. a and b are values, not multiples of std."""
    if not (mean - 6 * std < b and a < mean + 6 * std and a < b):
        raise ValueError(f"trunc_normal_: a normal with mean {mean} and std {std} has practically nothing in [{a}, {b}].")
    values = rng.generator().normal(mean, std, tensor.shape)
    while np.any(outside := (values < a) | (values > b)):
        values[outside] = rng.generator().normal(mean, std, int(outside.sum()))
    return _fill(tensor, values)


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a kernel (O, I, *kernel): I·taps and O·taps, as PyTorch counts them.

    For the kernel (I, O, *kernel) of a transposed convolution the two are exchanged, in PyTorch and in Keras alike.
    """
    if tensor.ndim < 2:
        raise ValueError(f"fan_in and fan_out need a kernel of at least 2 axes, got {sizes_text(tensor.shape) or 'a scalar'}.")
    taps = math.prod(tensor.shape[2:])
    return tensor.shape[1] * taps, tensor.shape[0] * taps


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """By how much weights must grow to make up for what the nonlinearity takes. param: the slope of leaky_relu (0.01)."""
    slope = 0.01 if param is None else param
    gains = {"tanh": 5 / 3, "relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / (1 + slope**2)), "selu": 3 / 4}
    linear = ("linear", "sigmoid", *(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)))
    gains |= dict.fromkeys(linear, 1.0)
    if nonlinearity not in gains:
        raise ValueError(f"calculate_gain knows {', '.join(sorted(gains))}; got {nonlinearity!r}.")
    return gains[nonlinearity]


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode is 'fan_in' or 'fan_out', got {mode!r}.")
    return calculate_gain(nonlinearity, a) / math.sqrt(fans(tensor)[mode == "fan_out"])


def kaiming_uniform_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """He's: uniform in ±gain·√(3/fan). a: the slope where nonlinearity is leaky_relu (0: ReLU)."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """He's: normal with std gain/√fan. For a ReLU network N(0, √(2/fan_in)), as in the UNet paper."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot's: uniform in ±gain·√(6/(fan_in + fan_out))."""
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot's: normal with std gain·√(2/(fan_in + fan_out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor))))


def he_normal_(tensor: Tensor) -> Tensor:
    """Keras' `he_normal`: a normal cut off at two standard deviations, where the cut one has std √(2/fan_in).

    Cutting N(0, σ) at ±2σ leaves the standard deviation 0.8796·σ, so σ = √(2/fan_in)/0.8796. `kaiming_normal_` has the same
    standard deviation without the cut: its rare large weights reach 4σ and more.
    """
    std = math.sqrt(2 / fans(tensor)[0]) / _STD_CUT_AT_2
    return trunc_normal_(tensor, 0.0, std, -2 * std, 2 * std)
