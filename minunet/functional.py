"""The public functions, in PyTorch's vocabulary, gathered from `minunet.ops`.

A function that `torch.nn.functional` also has takes the same argument names, order, defaults and meaning.
"""

from minunet.ops.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from minunet.ops.elementwise import absolute as abs  # noqa: A004
from minunet.ops.elementwise import clip, exp, log, maximum, minimum, sqrt
from minunet.ops.matmul import linear, matmul
from minunet.ops.reduce import max, mean, min, sum, var  # noqa: A004
from minunet.ops.shape import broadcast_to, cat, center_crop, flatten, permute, reshape, squeeze, transpose, unsqueeze

__all__ = [
    "abs",
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
    "exp",
    "flatten",
    "linear",
    "log",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "permute",
    "reshape",
    "sqrt",
    "squeeze",
    "sum",
    "transpose",
    "unsqueeze",
    "var",
]
