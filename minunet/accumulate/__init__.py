"""The sum of two gradients that meet where a value was used twice.

In UNet each skip is: its gradient comes from the concatenation, as a slice of a wider array, and from the pooling.
"""

from minunet.kernels import Kernels

K = Kernels(__name__, "add")
