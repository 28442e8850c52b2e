"""Your own differentiable operation: two methods on plain arrays, and a check that the gradient is right.

swish    y = x·σ(b·x)        σ(z) = 1/(1 + e⁻ᶻ), b: one learned number
         ∂x = ∂y·(s + b·y·(1 − s))    with s = σ(b·x)
         ∂b = Σ ∂y·x·y·(1 − s)
"""

import numpy as np

import minunet as mu
from minunet.autograd import Function
from minunet.testing import GradientError, gradcheck


class Swish(Function):
    def forward(ctx, x, b):  # ctx is the node of the graph: what is saved here, backward gets
        s = 1 / (1 + np.exp(-b * x))
        y = x * s
        ctx.save(x, b, s, y)
        return y

    def backward(ctx, gy):  # gy = ∂L/∂y; a gradient for each input, None where nobody needs it
        x, b, s, y = ctx.saved
        gx = gy * (s + b * y * (1 - s)) if ctx.needs[0] else None
        gb = (gy * x * y * (1 - s)).sum() if ctx.needs[1] else None
        return gx, gb


class Forgetful(Swish):
    def backward(ctx, gy):  # the product rule, half of it forgotten
        x, _, s, y = ctx.saved
        return gy * s, (gy * x * y * (1 - s)).sum()


def swish(x, b):
    return Swish.apply(x, b)


def forgetful(x, b):
    return Forgetful.apply(x, b)


rng = np.random.default_rng(0)
x = mu.tensor(rng.standard_normal((3, 4)), requires_grad=True)  # float64: finite differences need the digits
b = mu.tensor(np.array(1.5), requires_grad=True)

error = gradcheck(swish, [x, b])
print(f"swish: backward and finite differences agree to {error:.1e}\n")

try:
    gradcheck(forgetful, [x, b])
except GradientError as problem:
    print(f"forgetful: {problem}")  # it names the input whose gradient is wrong
else:
    raise SystemExit("the wrong gradient was not found")
