"""The public functions, in PyTorch's vocabulary, gathered from `minunet.ops`.

A function that `torch.nn.functional` also has takes the same argument names, order, defaults and meaning.
"""

from minunet.ops.activation import elu, leaky_relu, prelu, relu, sigmoid, tanh
from minunet.ops.cat import cat
from minunet.ops.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from minunet.ops.dropout import dropout, dropout1d, dropout2d, dropout3d
from minunet.ops.elementwise import absolute as abs  # noqa: A004
from minunet.ops.elementwise import clip, exp, log, maximum, minimum, sqrt
from minunet.ops.fourier import fourier_filter
from minunet.ops.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    l1_loss,
    mse_loss,
    nll_loss,
)
from minunet.ops.matmul import linear, matmul
from minunet.ops.norm import batch_norm, group_norm, instance_norm, layer_norm
from minunet.ops.pad import pad
from minunet.ops.pool import avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d
from minunet.ops.radon import back_project, radon
from minunet.ops.reduce import max, mean, min, sum, var  # noqa: A004
from minunet.ops.shape import broadcast_to, center_crop, flatten, permute, reshape, squeeze, transpose, unsqueeze
from minunet.ops.softmax import log_softmax, softmax
from minunet.ops.upsample import interpolate

__all__ = [
    "abs",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "back_project",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "broadcast_to",
    "cat",
    "center_crop",
    "clip",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cross_entropy",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "elu",
    "exp",
    "flatten",
    "fourier_filter",
    "group_norm",
    "instance_norm",
    "interpolate",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log",
    "log_softmax",
    "matmul",
    "max",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mse_loss",
    "nll_loss",
    "pad",
    "permute",
    "prelu",
    "radon",
    "relu",
    "reshape",
    "sigmoid",
    "softmax",
    "sqrt",
    "squeeze",
    "sum",
    "tanh",
    "transpose",
    "unsqueeze",
    "var",
]
