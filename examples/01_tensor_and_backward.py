"""A tensor remembers how it was computed. backward() walks that way back and leaves a gradient at every start.

Here: fit a line y = a·x + b to four points by gradient descent.
"""

import numpy as np

import minunet as mu

x = mu.tensor(np.array([0.0, 1.0, 2.0, 3.0]))
y = mu.tensor(np.array([1.0, 3.1, 4.9, 7.0]))  # close to 2·x + 1
a = mu.tensor(np.array(0.0), requires_grad=True)
b = mu.tensor(np.array(0.0), requires_grad=True)

for step in range(201):
    error = a * x + b - y
    loss = (error * error).mean()  # one number
    a.grad = b.grad = None  # gradients add up: begin anew
    loss.backward()  # fills a.grad = ∂loss/∂a and b.grad = ∂loss/∂b
    if step % 50 == 0:
        print(f"step {step:3}  loss {loss.item():8.5f}  a {a.item():.3f}  b {b.item():.3f}  ∂a {a.grad:8.4f}  ∂b {b.grad:8.4f}")
    a = mu.tensor(a.data - 0.1 * a.grad, requires_grad=True)  # a step downhill
    b = mu.tensor(b.data - 0.1 * b.grad, requires_grad=True)

exact = np.polyfit(x.data, y.data, 1)
print(f"least squares says             a {exact[0]:.3f}  b {exact[1]:.3f}")
assert np.allclose([a.item(), b.item()], exact, atol=1e-3)
