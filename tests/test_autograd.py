"""The engine: order, accumulation, memory, errors, modes, dtypes."""

from __future__ import annotations

import inspect
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest

import minunet as mu
from minunet import functional as F
from minunet.autograd import Function
from minunet.kernels import Kernels
from minunet.nn import Conv2d
from tests.conftest import require


def leaf(*values, dtype=np.float64):
    return mu.tensor(np.array(values, dtype), requires_grad=True)


def line_before_this() -> str:
    """'test_autograd.py:12' of the line above the caller's."""
    return f"{Path(__file__).name}:{inspect.currentframe().f_back.f_lineno - 1}"


# order and accumulation


@pytest.mark.parametrize("length", [50_000])
def test_a_long_chain_runs_backward(length):
    x = leaf(1.0)
    y = x
    for _ in range(length):
        y = y + 1.0
    y.backward()
    assert y.item() == length + 1
    assert x.grad == 1


def test_a_long_chain_is_deleted_without_backward():
    x = leaf(1.0)
    y = x
    for _ in range(50_000):
        y = y * 1.0
    first = weakref.ref(y.node)
    del y
    assert first() is None


def test_a_node_used_twice_gets_both_gradients():
    x = leaf(3.0)
    shared = x * x
    (shared * 2.0 + shared.exp()).backward()
    assert np.isclose(x.grad, (2 + np.exp(9)) * 6)


def test_an_input_used_twice_in_one_operation():
    x = leaf(3.0)
    (x * x).backward()
    assert x.grad == 6


def test_diamonds_on_diamonds():
    x = leaf(1.0)
    y = x
    for _ in range(60):  # 2⁶⁰ paths: only an order that visits each node once ends
        y = y * 0.5 + y * 0.5
    y.backward()
    assert x.grad == 1


def test_a_late_shortcut_waits_for_the_long_path():
    x = leaf(0.5)
    h = x * 2.0
    long = h
    for _ in range(5):
        long = long.exp().log()
    (long + h + x).backward()
    assert np.isclose(x.grad, 5)


def test_an_unused_branch_changes_nothing():
    x = leaf(2.0)
    h = x * 3.0
    unused = h * 5.0
    h.backward()
    assert x.grad == 3
    assert unused.requires_grad


def test_gradients_add_up_over_graphs_until_they_are_cleared():
    x = leaf(2.0)
    (x * 3.0).backward()
    (x * x).backward()
    assert x.grad == 7
    x.grad = None
    (x * 3.0).backward()
    assert x.grad == 3


def test_a_leaf_is_its_own_graph():
    x = leaf(1.0, 2.0)
    gy = np.array([3.0, 4.0])
    x.backward(gy)
    x.backward(gy)
    assert x.grad.tolist() == [6, 8]
    assert gy.tolist() == [3, 4]


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + b,
        lambda a, b: a - b,
        lambda a, b: F.cat([a, b]),
        lambda a, b: a.reshape(3) + b.reshape(3),
        lambda a, b: (a + b).permute(0),
        lambda a, b: F.maximum(a, b),
    ],
)
def test_gradients_share_no_memory(function):
    a, b = leaf(1.0, 2.0, 3.0), leaf(4.0, 5.0, 6.0)
    y = function(a, b)
    gy = np.ones(y.shape)
    y.backward(gy)
    assert not np.shares_memory(a.grad, b.grad)
    assert not np.shares_memory(a.grad, gy)
    assert not np.shares_memory(b.grad, gy)
    a.grad += 1  # what an optimiser may do
    assert gy.tolist() == [1] * gy.size


def test_a_gradient_shares_no_memory_with_data():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (a * b).sum().backward()
    for grad in (a.grad, b.grad):
        assert not np.shares_memory(grad, a.data)
        assert not np.shares_memory(grad, b.data)


# the end of a graph


def test_a_second_backward_says_what_happened():
    x = leaf(2.0)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match=r"came to Mul a second time.*consumed the graph.*Run the forward again"):
        y.backward()


def test_a_second_backward_through_a_shared_part_says_so():
    x = leaf(2.0)
    shared = x.exp()
    first, second = shared * 2.0, shared * 3.0
    first.backward()
    with pytest.raises(RuntimeError, match="came to Exp a second time"):
        second.backward()


def test_the_graph_is_gone_after_backward():
    x = leaf(2.0)
    h = x.exp()
    node = weakref.ref(h.node)
    y = h * 2.0
    del h
    y.backward()
    assert node() is None
    assert y.node._edges == ()


def test_saved_arrays_are_freed_as_backward_goes():
    """A chain of 16 exponentials keeps 16 arrays; each is gone before the next node's backward begins."""
    size, length = 1 << 17, 16
    array = 8 * size
    levels = []

    class Probe(Function):
        def forward(ctx, x):
            return x + 0

        def backward(ctx, gy):
            levels.append(tracemalloc.get_traced_memory()[0])
            return gy

    x = mu.tensor(np.zeros(size), requires_grad=True)
    gy = np.ones(size)
    tracemalloc.start()
    try:
        y = x * 1.0
        for _ in range(length):
            y = Probe.apply((y * 0.1).exp())
        before = tracemalloc.get_traced_memory()[0] / array
        tracemalloc.reset_peak()
        y.backward(gy)
        after, peak = (n / array for n in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    assert before < length + 1.1, f"{length} exponentials keep {before:.2f} arrays; one each and the output is enough"
    drops = -np.diff(levels)[1:] / array  # the first probe runs on the caller's gradient, the others on one of their own
    assert np.all(drops > 0.99), f"each step must free the array that its exponential saved; the steps freed {drops.round(2)}"
    assert peak - before < 3.1, f"backward holds {peak - before:.2f} arrays beyond what forward saved"
    assert after < 2.1, f"the output and one gradient are left, but {after:.2f} arrays are alive"


def test_a_product_saves_only_what_its_gradient_reads():
    x, constant = leaf(1.0, 2.0), mu.tensor(np.ones(2))
    a, b = (x * constant).node._saved
    assert a is None
    assert b is constant.data


def test_nothing_is_saved_where_no_gradient_is_wanted():
    x = mu.tensor(np.ones(3))
    y = x.exp() * x
    assert y.node is None
    assert not y.requires_grad


# errors


def test_backward_needs_a_scalar_or_a_gradient():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"needs a tensor of one element; this one is \(2,\)"):
        (x * x).backward()


def test_backward_refuses_a_gradient_of_another_shape():
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=r"the gradient has shape \(3,\), the tensor \(2,\)"):
        (x * x).backward(np.ones(3))


def test_backward_refuses_a_tensor_without_gradient():
    with pytest.raises(RuntimeError, match="needs no gradient"):
        mu.tensor([1.0]).backward()


def test_backward_takes_a_gradient_of_another_dtype():
    x = leaf(1.0, 2.0, dtype=np.float32)
    (x * x).backward(mu.tensor(np.ones(2, np.float64)))
    assert x.grad.dtype == np.float32


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda gy: gy.astype(np.float64), "the gradient of input 0 is float64"),
        (lambda gy: gy[:1], r"is float32 \(1,\), the input is float32 \(2,\)"),
        (lambda gy: (gy, gy), "returned 2 gradients for 1 inputs"),
        (lambda gy: None, "the gradient of input 0 is object"),
    ],
)
def test_a_wrong_backward_is_caught_at_once(result, message):
    class Wrong(Function):
        def forward(ctx, x):
            return x * 2

        def backward(ctx, gy):
            return result(gy)

    with pytest.raises(RuntimeError, match=rf"Wrong\.backward.*{message}"):
        Wrong.apply(leaf(1.0, 2.0, dtype=np.float32)).backward(np.ones(2, np.float32))


def test_saved_is_handed_over_once():
    class Greedy(Function):
        def forward(ctx, x):
            ctx.save(x)
            return x * 2

        def backward(ctx, gy):
            return gy * ctx.saved[0] * ctx.saved[0]

    with pytest.raises(RuntimeError, match=r"Greedy: ctx\.saved was read twice"):
        Greedy.apply(leaf(1.0)).backward()


# modes


def test_no_grad_records_nothing_and_ends():
    x = leaf(2.0)
    with mu.no_grad():
        y = x * x
        with mu.no_grad():
            pass
        z = x * x
    assert not y.requires_grad
    assert not z.requires_grad
    assert y.node is None
    assert (x * x).requires_grad


def test_no_grad_ends_with_an_exception():
    x = leaf(2.0)
    with pytest.raises(ZeroDivisionError), mu.no_grad():
        raise ZeroDivisionError
    assert (x * x).requires_grad


def test_debug_names_the_operation_and_line_of_the_first_nan():
    x = leaf(1.0, -1.0)
    with mu.debug(), np.errstate(invalid="ignore"):
        h = x * 2.0
        with pytest.raises(FloatingPointError) as caught:
            h.log()
        where = line_before_this()
    assert str(caught.value).startswith("Log made the first NaN or infinity, at ")
    assert f"{where}; its inputs (float64 (2,)) are finite." in str(caught.value)


def test_debug_says_when_the_nan_came_from_outside():
    x = leaf(1.0, np.nan)
    with mu.debug(), pytest.raises(FloatingPointError, match=r"Mul made the first NaN.*it came in from outside"):
        x * 2.0


def test_debug_names_the_operation_and_line_of_the_first_nan_of_backward():
    x = leaf(0.0, 1.0)
    with mu.debug(), np.errstate(divide="ignore"):
        y = x.sqrt()
        where = line_before_this()
        z = y * 2.0
        with pytest.raises(FloatingPointError, match=rf"Sqrt: the gradient of input 0 has the first NaN.*{where}"):
            z.sum().backward()


def test_debug_on_in_backward_only_still_names_the_operation():
    x = leaf(0.0)
    y = x.sqrt()
    with mu.debug(), np.errstate(divide="ignore"), pytest.raises(FloatingPointError, match=r"Sqrt: .*debug\(\) is on in the forward too"):
        y.backward()


def test_debug_lets_finite_numbers_pass_and_ends():
    x = leaf(1.0)
    with mu.debug():
        x.exp().backward()
    with np.errstate(invalid="ignore"):
        assert np.isnan((x * np.nan).data).all()


def test_use_is_one_of_four_and_nests():
    with pytest.raises(ValueError, match="kernel set is one of ref, cpu, gpu, auto; got 'fast'"), mu.use("fast"):
        pass
    x, w = mu.tensor(np.ones((1, 1, 4, 4))), mu.tensor(np.ones((1, 1, 3, 3)))
    with mu.use("ref"):
        with mu.use("auto"):
            pass
        (choice,) = mu.which(F.conv2d, x, w)
    assert (choice.kernel, choice.served_by, choice.reason) == ("conv.forward", "ref", "asked for by use('ref')")


def test_use_of_a_set_without_the_kernel_is_an_error():
    x, w = mu.tensor(np.ones((1, 1, 4, 4))), mu.tensor(np.ones((1, 1, 3, 3)))
    with mu.use("gpu"), pytest.raises(NotImplementedError, match=r"conv\.fold has no 'gpu' kernel"):
        Kernels("minunet.ops.conv", "fold").fold(x.data)
    with mu.use("gpu"), pytest.raises(TypeError, match=r"conv\.forward: use\('gpu'\) needs arrays on the GPU"):
        F.conv2d(x, w)


def test_which_tells_the_kernel_set_and_the_reason():
    x, w = mu.tensor(np.ones((1, 1, 4, 4))), mu.tensor(np.ones((1, 1, 3, 3)))
    (choice,) = mu.which(F.conv2d, x, w)
    assert choice.kernel == "conv.forward"
    assert choice.served_by in ("ref", "cpu")
    assert str(choice).startswith("conv.forward: ")
    (choice,) = mu.which(F.conv2d, x.astype(np.float16), w.astype(np.float32))
    assert choice.served_by == "ref"
    assert "not float16" in choice.reason
    assert mu.which(F.exp, x) == []


def test_which_leaves_no_graph():
    x = leaf(1.0)
    mu.which(F.exp, x)
    assert x.grad is None


# dtypes and numbers


@pytest.mark.parametrize("array", [np.asarray, lambda x: require("torch").from_numpy(x)], ids=["numpy", "torch"])
@pytest.mark.parametrize(
    "operation",
    [
        F.relu,
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.conv2d(x, mu.tensor(np.ones((1, 1, 3, 3)))),
        lambda x: F.conv2d(mu.tensor(np.ones((1, 1, 4, 4))), x),
        lambda x: F.cross_entropy(mu.tensor(np.ones((1, 2, 4, 4))), x),
        lambda x: F.softmax(x, 1),
        lambda x: Conv2d(1, 2, 3)(x),
    ],
)
def test_an_array_is_no_tensor(operation, array):
    """What everyone does first: to hand an array to a layer."""
    with pytest.raises(TypeError, match=r"got an array of NumPy, CuPy or PyTorch .*: make one with minunet\.tensor"):
        operation(array(np.ones((1, 1, 4, 4), np.float32)))


@pytest.mark.parametrize("function", [lambda a, b: a + b, lambda a, b: a * b, F.matmul, lambda a, b: F.cat([a, b])])
def test_mixed_float_dtypes_raise(function):
    a, b = mu.tensor(np.ones((2, 2), np.float32)), mu.tensor(np.ones((2, 2)))
    with pytest.raises(TypeError, match=r"inputs mix float32 and float64\. Convert them to one dtype first, with \.astype"):
        function(a, b)


@pytest.mark.parametrize("scalar", [2, 2.5, np.float64(2.5), np.float32(2.5), np.int64(2), np.array(2.5)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scalars_take_the_tensors_dtype(scalar, dtype):
    x = mu.tensor(np.ones(2, dtype), requires_grad=True)
    for y in (x + scalar, scalar + x, x - scalar, scalar - x, x * scalar, scalar * x, x / scalar, scalar / x, x**2, F.maximum(x, scalar)):
        assert isinstance(y, mu.Tensor)
        assert y.dtype == dtype
        y.sum().backward()
        assert x.grad.dtype == dtype
        x.grad = None


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.bool_])
def test_integers_meet_floats_as_floats(dtype):
    """As in PyTorch: an integer operand takes the floating-point dtype it meets, float32 where it meets none."""
    n, x = mu.tensor(np.array([1, 0, 1], dtype)), leaf(1.0, 2.0, 3.0, dtype=np.float32)
    for y in (n * x, x * n, n + x, x / (n + 1.0), n - x):
        assert y.dtype == np.float32
    assert (n * 0.5).dtype == np.float32
    assert (n / 2).dtype == np.float32
    assert n.mean().dtype == np.float32
    (n * x).sum().backward()
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [1, 0, 1]


def test_integers_stay_integers():
    n = mu.tensor(np.array([3, 4]))
    for y in (n + 1, n * 2, n - n, -n, n.sum(), n.reshape(2, 1), n[0], F.cat([n, n])):
        assert y.dtype == np.int64
        assert not y.requires_grad


def test_only_floats_require_gradients():
    with pytest.raises(TypeError, match="only floating-point tensors can require a gradient, this one is int64"):
        mu.tensor([1, 2], requires_grad=True)


def test_tensor_copies_and_chooses_dtypes():
    array = np.ones(2)
    assert not np.shares_memory(mu.tensor(array).data, array)
    assert mu.tensor(array).dtype == np.float64
    assert mu.tensor([1.0, 2.0]).dtype == np.float32
    assert mu.tensor(1.5).dtype == np.float32
    assert mu.tensor([1, 2]).dtype == np.int64
    assert mu.tensor([True]).dtype == np.bool_
    assert mu.tensor(np.float64(1)).dtype == np.float64
    with pytest.raises(TypeError, match="a tensor holds real numbers; got complex128"):
        mu.tensor([1j])


def test_the_result_requires_a_gradient_if_an_input_does():
    a, b = leaf(1.0), mu.tensor(np.ones(1))
    assert (a * b).requires_grad
    assert not (b * b).requires_grad
    assert not a.detach().requires_grad
    assert np.shares_memory(a.detach().data, a.data)
    (a * b).backward()
    assert b.grad is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_leafs_gradient_has_its_dtype_and_shape(dtype):
    x = mu.tensor(np.ones((2, 3), dtype), requires_grad=True)
    for y in (x.mean(), x.var(), x.sum(0).max(), (x @ x.transpose(0, 1)).sum(), x[0, 1], x.clip(0.5, 2).sqrt().log().sum()):
        x.grad = None
        y.backward()
        assert x.grad.dtype == dtype
        assert x.grad.shape == x.shape


def test_astype_passes_the_gradient_in_the_inputs_dtype():
    x = leaf(1.0, 2.0, dtype=np.float32)
    (x.astype(np.float64) * 2.0).sum().backward()
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [2, 2]


# NumPy


def test_numpy_interoperates():
    x = mu.tensor(np.arange(3.0))
    array = np.array([1.0, 2.0, 3.0])
    for y in (x + array, array + x, array * x, array - x, array / (x + 1.0)):
        assert isinstance(y, mu.Tensor)
    assert (array - x).data.tolist() == [1, 1, 1]
    assert np.asarray(x) is x.data
    assert np.array(x) is not x.data
    assert float(x.sum()) == 3
    assert [t.item() for t in x] == [0, 1, 2]
    assert len(x) == 3
    assert x.tolist() == [0, 1, 2]


def test_numpy_of_a_tensor_with_gradient_asks_for_detach():
    x = leaf(1.0)
    for cut in (x.numpy, lambda: np.asarray(x), lambda: np.exp(x)):
        with pytest.raises(RuntimeError, match=r"call \.detach\(\) first"):
            cut()
    assert x.detach().numpy() is x.data


def test_a_matrix_from_numpy_multiplies_from_the_left():
    x = leaf(1.0, 2.0).reshape(2, 1)
    y = mu.tensor(np.eye(2)) @ x
    y.sum().backward()
    assert y.shape == (2, 1)


def test_repr_shows_values_dtype_and_origin():
    x = leaf(1.0)
    assert repr(x) == "tensor([1.], dtype=float64, requires_grad=True)"
    assert repr(x * 2.0) == "tensor([2.], dtype=float64, node=Mul)"


def test_there_are_two_devices():
    with pytest.raises(ValueError, match="device is 'cpu' or 'cuda', got 'tpu'"):
        mu.tensor([1.0], device="tpu")
