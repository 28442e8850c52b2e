"""The operation table, walked: every property that any operation must have, for every row, sample and kernel set."""

from __future__ import annotations

import gc
import importlib
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import minunet as mu
from minunet import Tensor
from minunet import functional as F
from minunet.arrays import HALF, array_module, as_dtype, device_of, is_array, to_device
from minunet.autograd import Function
from minunet.testing import gradcheck
from minunet.testing.opcases import CASES, BadInput, OpCase, Sample
from tests import running
from tests.conftest import require
from tests.oracles import ORACLES
from tests.running import assert_close, call, is_float, kernel_sets, on, options_of, run, run_torch, samples_of, tensors_of, upstream

PROMISED = [
    *(f"{name}{rank}d" for name in ("conv", "conv_transpose", "max_pool", "avg_pool") for rank in (1, 2, 3)),
    *("interpolate", "pad", "cat", "linear", "batch_norm", "instance_norm", "group_norm", "dropout", "dropout2d", "dropout3d"),
    *("relu", "leaky_relu", "prelu", "elu", "sigmoid", "tanh", "softmax", "log_softmax"),
    *("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss", "l1_loss"),
]
WINDOWED = [n for n in PROMISED if n.startswith(("conv", "max_pool", "avg_pool", "interpolate"))]


def moving(sample: Sample) -> list[int]:
    """Positions of the inputs that are differentiated."""
    return [i for i, value in enumerate(sample.inputs) if is_float(value) and i not in sample.constant]


def each_sample(wanted: Callable[[OpCase, Sample], Any] = lambda case, sample: True) -> Any:
    """Parametrises a test over the rows' samples, those that are `wanted`."""
    rows = [(case, i, sample) for case in CASES for i, sample in enumerate(samples_of(case)) if wanted(case, sample)]
    return pytest.mark.parametrize(("case", "index", "sample"), [pytest.param(*row, id=f"{row[0].name}-{row[1]}") for row in rows])


differentiable = each_sample(lambda case, sample: moving(sample))
every_sample = each_sample()


def sets(case: OpCase, index: int) -> Iterator[str]:
    """Each kernel set of the sample in turn, switched on; a failure's traceback shows `kernel_set`."""
    wanted = kernel_sets(case, index)
    if not wanted:
        pytest.skip("no cpu kernel takes part")
    for kernel_set in wanted:
        with on(kernel_set):
            yield kernel_set


def assert_same(got: Any, want: Any, tolerance: float, what: str) -> None:
    """Two runs agree in outputs and gradients."""
    assert len(got.outputs) == len(want.outputs), f"{what}: {len(got.outputs)} outputs, expected {len(want.outputs)}"
    for i, (a, b) in enumerate(zip(got.outputs, want.outputs, strict=True)):
        assert_close(a, b, tolerance, f"{what}: output {i}")
    for i, (a, b) in enumerate(zip(got.grads, want.grads, strict=True)):
        assert (a is None) == (b is None), f"{what}: gradient {i} is {'missing' if a is None else 'there'}, unlike expected"
        if a is not None:
            assert_close(a, b, tolerance, f"{what}: gradient {i}")


def assert_identical(got: Any, want: Any, what: str) -> None:
    """Two runs agree in every bit."""
    for a, b in zip([*got.outputs, *got.grads], [*want.outputs, *want.grads], strict=True):
        alike = (a is None and b is None) or ((a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes())
        assert alike, f"{what}: results differ"


# what is in the table


def rows_of(name: str) -> list[OpCase]:
    """The rows of a public function: its own, and variants called name_something."""
    longer = tuple(f"{other}_" for other in F.__all__ if other.startswith(f"{name}_"))  # max_pool2d is no variant of max
    rows = [case for case in CASES if case.name == name or (case.name.startswith(f"{name}_") and not f"{case.name}_".startswith(longer))]
    return rows


@pytest.mark.parametrize("name", sorted({*PROMISED, *F.__all__}))
def test_public_function_is_in_the_table(name):
    assert hasattr(F, name), f"{name} is promised, but not in minunet.functional"
    assert rows_of(name), f"{name} is public, but not in the operation table"


@pytest.mark.parametrize("name", WINDOWED)
def test_windowed_function_is_tried_with_an_empty_batch(name):
    inputs = [sample.inputs[0] for case in rows_of(name) for sample in samples_of(case)]
    assert any(x is not None and x.shape[0] == 0 for x in inputs), f"no sample of {name} has an empty batch"


def test_names_are_unique():
    names = [case.name for case in CASES]
    assert not {name for name in names if names.count(name) > 1}


# values


@each_sample(lambda case, sample: case.oracle)
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
def test_values_equal_the_oracle(case, index, sample, dtype):
    want = ORACLES[case.oracle](*sample.inputs, **sample.options)
    wanted = list(want) if isinstance(want, tuple) else [want]
    tolerance = 1e-11 if dtype == np.float64 else case.tolerance32
    for kernel_set in sets(case, index):
        outputs = call(case, sample, tensors_of(sample, dtype), dtype)
        assert len(outputs) == len(wanted), f"{len(outputs)} outputs, the oracle has {len(wanted)}"
        for y, expected in zip(outputs, wanted, strict=True):
            assert_close(y.data, expected, tolerance, f"{case}({sample}) on {kernel_set}")


@each_sample(lambda case, sample: case.torch and sample.torch and not case.random)
def test_values_and_gradients_equal_torch(case, index, sample):
    want = run_torch(require("torch"), case, sample)
    for kernel_set in sets(case, index):
        assert_same(run(case, sample), want, 1e-10, f"{case}({sample}) on {kernel_set} against PyTorch")


@pytest.mark.parametrize("case", [case for case in CASES if case.keras], ids=str)
def test_values_equal_keras(case):
    compared = 0
    for index, sample in enumerate(samples_of(case)):
        want = case.keras(require("keras"), sample) if sample.keras else None
        if want is None:  # Keras has no such call
            continue
        compared += 1
        want = np.asarray(want)
        for kernel_set in sets(case, index):
            y = call(case, sample, tensors_of(sample, np.float64), np.float64)[0]
            assert_close(y.data, want, 1e-10 if want.dtype == np.float64 else 1e-5, f"{case}({sample}) on {kernel_set} against Keras")
    assert compared, f"{case} names a counterpart in Keras, but no sample reaches it"


# gradients


@differentiable
def test_gradients_equal_finite_differences(case, index, sample):
    for _ in sets(case, index):
        gradcheck(lambda *inputs: call(case, sample, list(inputs), np.float64)[0], tensors_of(sample, np.float64))


@each_sample(lambda case, sample: set(case.linear) & set(moving(sample)))
def test_linear_gradients_equal_differences_with_step_one_in_float32(case, index, sample):
    for _ in sets(case, index):
        for position in set(case.linear) & set(moving(sample)):
            inputs = [t if t is None or i == position else Tensor(t.data) for i, t in enumerate(tensors_of(sample, np.float32))]
            gradcheck(lambda *x: call(case, sample, list(x), np.float32)[0], inputs, step=1.0, tolerance=2e-5)


@differentiable
def test_float32_gradients_equal_float64(case, index, sample):
    for kernel_set in sets(case, index):
        got, want = run(case, sample, np.float32), run(case, sample, np.float64)
        for i in moving(sample):
            assert_close(got.grads[i], want.grads[i], 5 * case.tolerance32, f"{case}({sample}) on {kernel_set}: gradient {i}")


@each_sample(lambda case, sample: len(moving(sample)) > 1)
def test_each_gradient_is_right_when_asked_for_alone(case, index, sample):
    for kernel_set in sets(case, index):
        together = run(case, sample)
        for position in moving(sample):
            others = tuple(i for i in range(len(sample.inputs)) if i != position)
            alone = run(case, Sample(sample.inputs, sample.options, constant=others))
            assert [i for i, g in enumerate(alone.grads) if g is not None] == [position]
            assert_close(alone.grads[position], together.grads[position], 1e-12, f"{case}({sample}) on {kernel_set}: gradient {position}")


# arrays


@every_sample
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
def test_dtypes_and_shapes(case, index, sample, dtype):
    for kernel_set in sets(case, index):
        result = run(case, sample, dtype)
        assert result.outputs[0].dtype == dtype, f"{case}({sample}) on {kernel_set}: {dtype.__name__} became {result.outputs[0].dtype}"
        for i in moving(sample):
            grad, shape = result.grads[i], sample.inputs[i].shape
            assert grad is not None, f"{case}({sample}) on {kernel_set}: input {i} got no gradient"
            assert (grad.dtype, grad.shape) == (dtype, shape), f"gradient {i} is {grad.dtype} {grad.shape}, the input {shape}"


@every_sample
def test_inputs_are_not_modified(case, index, sample):
    for kernel_set in sets(case, index):
        tensors = tensors_of(sample, np.float64)
        outputs = call(case, sample, tensors, np.float64)
        if outputs[0].requires_grad:
            gy = upstream(outputs[0].shape)
            outputs[0].backward(gy)
            assert array_module(gy).array_equal(gy, upstream(outputs[0].shape)), (
                f"{case}({sample}) on {kernel_set} wrote into the output's gradient"
            )
        for t, original in zip(tensors, sample.inputs, strict=True):
            same = t is None or np.array_equal(to_device(t.data, "cpu"), original, equal_nan=True)
            assert same, f"{case}({sample}) on {kernel_set} wrote into its input"


def every_second(array: Any) -> Any:
    """The same values, each with a neighbour in memory that is not ours."""
    if not array.ndim:
        return array
    wide = array_module(array).full((*array.shape[:-1], 2 * array.shape[-1] + 1), np.nan, array.dtype)
    wide[..., 1::2] = array
    return wide[..., 1::2]


def channels_last(array: Any) -> Any:
    xp = array_module(array)
    return xp.moveaxis(xp.ascontiguousarray(xp.moveaxis(array, 1, -1)), -1, 1) if array.ndim > 2 else array.T.copy().T


def some_channels(array: Any) -> Any:
    """Channels of a wider buffer, channels last: what the gradient of a concatenation looks like."""
    if array.ndim < 3:
        return array
    xp = array_module(array)
    wide = xp.full((array.shape[0], *array.shape[2:], array.shape[1] + 3), np.nan, array.dtype)
    wide[..., 1:-2] = xp.moveaxis(array, 1, -1)
    return xp.moveaxis(wide, -1, 1)[:, 1:-2]


def backwards(array: Any) -> Any:
    """Negative strides on every axis."""
    turn = (slice(None, None, -1),) * array.ndim
    return array[turn].copy()[turn]


def one_value(array: Any) -> Any:
    """One value everywhere, with strides of 0: what the gradient of a sum looks like."""
    xp = array_module(array)
    return xp.broadcast_to(xp.asarray(0.75, dtype=array.dtype), array.shape)


@every_sample
@pytest.mark.parametrize("layout", [every_second, channels_last, some_channels, backwards], ids=lambda f: f.__name__)
def test_memory_layout_does_not_matter(case, index, sample, layout):
    for kernel_set in sets(case, index):
        got = run(case, sample, layout=layout, gy_layout=layout)
        assert_same(got, run(case, sample), 1e-12, f"{case}({sample}) on {kernel_set}, {layout.__name__}")


@differentiable
def test_a_gradient_with_strides_of_zero(case, index, sample):
    for kernel_set in sets(case, index):
        got = run(case, sample, gy_layout=one_value)
        want = run(case, sample, gy_layout=lambda gy: one_value(gy).copy())
        assert_same(got, want, 1e-12, f"{case}({sample}) on {kernel_set}")


# memory and determinism


@differentiable
def test_saved_arrays_die_with_backward(case, index, sample):
    for kernel_set in sets(case, index):
        with no_collector():
            tensors = tensors_of(sample, np.float64)
            outputs = call(case, sample, tensors, np.float64)
            outside = [*(t.data for t in [*tensors, *outputs] if t is not None), *arrays_in(sample.options.values())]
            nodes = graph_below(outputs[0].node)
            kept = [a for node in nodes for a in arrays_in(vars(node).values())]
            saved = [weakref.ref(a) for a in kept if a.size and not any(overlap(a, b) for b in outside)]
            watched = [weakref.ref(x) for x in [*nodes, *(t for t in [*tensors, *outputs] if t is not None)]]
            del nodes, kept
            outputs[0].backward(to_device(np.ones(outputs[0].shape), running.device))
            left = [f"{r().dtype} {r().shape}" for r in saved if r() is not None]
            assert not left, f"{case}({sample}) on {kernel_set}: backward leaves saved arrays alive: {left}"
            del tensors, outputs, outside
            left = [type(r()).__name__ for r in watched if r() is not None]
            assert not left, f"{case}({sample}) on {kernel_set}: a reference cycle keeps {left} alive"


@contextmanager
def no_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def overlap(a: Any, b: Any) -> bool:
    return device_of(a) == device_of(b) and bool(array_module(a).shares_memory(a, b))


def graph_below(root: Function | None) -> list[Function]:
    found, stack = [], [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Function) and not any(node is other for other in found):
            found.append(node)
            stack.extend(node._edges)
    return found


def arrays_in(values: Any) -> Iterator[Any]:
    for value in values:
        if is_array(value):
            yield value
        elif isinstance(value, tuple | list):
            yield from arrays_in(value)


@every_sample
def test_two_runs_are_bit_identical(case, index, sample):
    for kernel_set in sets(case, index):
        assert_identical(run(case, sample, np.float32), run(case, sample, np.float32), f"{case}({sample}) on {kernel_set}, twice")


@every_sample
def test_threads_do_not_change_a_bit(case, index, sample):
    numba = require("numba")
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread here")
    before, results = numba.get_num_threads(), []
    try:
        for threads in range(1, min(numba.config.NUMBA_NUM_THREADS, 3) + 1):
            numba.set_num_threads(threads)
            results.append(run(case, sample, np.float32))
    finally:
        numba.set_num_threads(before)
    for threads, result in enumerate(results[1:], 2):
        assert_identical(result, results[0], f"{case}({sample}) with 1 and {threads} threads")


# what the kernels named here cut into chunks, one thread each
CHUNKED = [
    ("relu", "activation", lambda x: x.size),
    ("dropout", "dropout", lambda x: x.size // 64),
    ("cross_entropy", "losses", lambda x: x[0, 0].size if x.ndim > 2 and len(x) else 0),
    ("binary_cross_entropy_with_logits", "losses", lambda x: x.size),
    ("batch_norm", "norm", lambda x: x.size),
    ("instance_norm", "norm", lambda x: x[0].size if len(x) else 0),
    ("group_norm with relu", "norm", lambda x: x[0].size if len(x) else 0),
]


@pytest.mark.parametrize(("name", "package", "length"), CHUNKED, ids=[name for name, *_ in CHUNKED])
def test_a_sample_fills_more_than_one_chunk(name, package, length):
    chunk = importlib.import_module(f"minunet.ops.{package}.cpu").CHUNK
    (case,) = (case for case in CASES if case.name == name)
    assert any(length(sample.inputs[0]) > chunk for sample in samples_of(case))


# images of 16 bits

UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # how far a number is rounded at most, relative to itself


def takes_halves(case: OpCase, sample: Sample) -> bool:
    """A cross-entropy with probabilities as target is light, and takes one dtype."""
    return bool(case.images) and not (case.name == "cross_entropy" and is_float(sample.inputs[1]))


def exactly(case: OpCase, sample: Sample, name: str) -> Sample:
    """The sample with numbers that its formats have: what is computed from them is off by roundings of the operation alone."""
    formats = [as_dtype(name) if i in case.images else np.dtype(np.float32) for i in range(len(sample.inputs))]
    inputs = [a.astype(dtype).astype(a.dtype) if is_float(a) else a for a, dtype in zip(sample.inputs, formats, strict=True)]
    return replace(sample, inputs=tuple(inputs))


@each_sample(takes_halves)
@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize("kernel_set", ["ref", "gpu"])
def test_images_of_16_bits(case, index, sample, name, kernel_set):
    """Images and their gradients keep their dtype, everything else is float32. Held against float64.

    A result of 16 bits is rounded once, and so are the weights of a convolution, each by UNIT of itself at most. A sum may be smaller than
    its terms: four times UNIT of the largest element are allowed. What is float32 is as exact as it is with images of float32.
    """
    if running.kernels_alone and kernel_set == "ref":
        pytest.skip("the definition alone")
    sample = exactly(case, sample, name)
    exact = tensors_of(sample, np.float64)
    want = call(case, sample, exact, np.float64)[0]
    with on(kernel_set):
        tensors = tensors_of(sample, as_dtype(name), images=case.images)
        y = call(case, sample, tensors, np.float32)[0]
        limit = 4 * UNIT[name] if y.dtype == name else case.tolerance32
        assert y.dtype in (name, np.float32)
        assert_close(y.data, want.data, limit, f"{case}({sample})")
        if not y.requires_grad:
            return
        gy = to_device(upstream(y.shape, y.dtype), "cpu")
        if sample.options.get("activation") == "relu":  # near 0 rounding decides about the gate
            decided = (want.data > limit) | ((want.data == 0) & (to_device(y.data, "cpu") == 0))
            gy *= decided
        y.backward(to_device(gy, running.device))
        grads = [None if t is None or t.grad is None else to_device(t.grad, "cpu") for t in tensors]
    want.backward(gy.astype(np.float64))
    for i in moving(sample):
        got, image = grads[i], i in case.images
        assert got.dtype == (name if image else np.float32)
        assert_close(got, exact[i].grad, 4 * UNIT[name] if image else 5 * case.tolerance32, f"{case}({sample}): gradient {i}")


# errors

BAD = [pytest.param(case, bad, id=f"{case.name}-{i}") for case in CASES for i, bad in enumerate(case.bad_inputs())]


@pytest.mark.parametrize(("case", "bad"), BAD)
@pytest.mark.parametrize("kernel_set", ["ref", "auto"])
def test_bad_input_raises_its_sentence(case: OpCase, bad: BadInput, kernel_set: str):
    inputs = [Tensor(value) if isinstance(value, np.ndarray) else value for value in bad.inputs]
    with mu.use(kernel_set), pytest.raises(bad.error, match=bad.message):
        case.function(*inputs, **options_of(Sample((), bad.options), np.float64))
