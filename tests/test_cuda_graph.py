"""CUDA graphs: a step that is replayed does what the step did, and what a graph cannot do is told."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minunet as mu
from minunet import checkpoint, cuda, losses, models, optim, rng
from minunet.arrays import cupy_module, to_device
from minunet.ops.losses import where_known
from minunet.optim import gpu as optim_gpu
from minunet.train.loop import Trainer, TrainingError, one_cycle
from tests import host_gpu

STEPS = 5


class Training:
    """A small UNet with all that has a state, its optimiser, and batches that are others in each step."""

    def __init__(self, optimizer: str = "Adam", loss: Any = losses.dice_cross_entropy, net: Any = None, **options: Any) -> None:
        mu.manual_seed(0)
        net = {"base_channels": 4, "depth": 2, "norm": "batch", "dropout": 0.2} | (net or {})
        self.model = models.UNet(1, 2, **net).to("cuda")
        self.optimizer, self.loss = getattr(optim, optimizer)(self.model.parameters(), **options), loss

    def step(self, images: Any, masks: Any) -> Any:
        self.optimizer.zero_grad()
        loss = self.loss(self.model(mu.Tensor(images)), masks)
        loss.backward()
        self.optimizer.step()
        return loss.data

    def run(self, step: Any, steps: int = STEPS) -> dict[str, np.ndarray]:
        """All that the training ends with."""
        batches, found = np.random.default_rng(1), []
        for i in range(steps):
            self.optimizer.param_groups[0]["lr"] = 1e-2 / (1 + i)
            images, masks = batches.standard_normal((2, 1, 8, 8)).astype(np.float32), batches.integers(0, 2, (2, 8, 8))
            found.append(step(*(images, masks) if isinstance(step, cuda.Graph) else (to_device(images, "cuda"), to_device(masks, "cuda"))))
        state = {f"{i} {name}": a for i, s in self.optimizer.state_dict()["state"].items() for name, a in s.items()}
        arrays = {**{name: p.data for name, p in self.model.state_dict().items()}, **state}
        ended = {name: to_device(a, "cpu") if hasattr(a, "shape") else np.array(a) for name, a in arrays.items()}
        return {**ended, "losses": np.array([a.item() for a in found]), "random stream": rng.generator().random(3)}


def assert_identical(came: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert came.keys() == wanted.keys()
    for name in came:
        np.testing.assert_array_equal(came[name], wanted[name], err_msg=name)


@pytest.mark.parametrize(
    ("optimizer", "options"), [("Adam", {}), ("AdamW", {"amsgrad": True}), ("SGD", {"momentum": 0.9}), ("RMSprop", {})]
)
def test_steps_of_a_graph_are_the_steps_without_one_bit_for_bit(optimizer, options):
    with host_gpu.installed():
        plain = Training(optimizer, **options)
        wanted = plain.run(plain.step)
        graphed = Training(optimizer, **options)
        came = graphed.run(cuda.graph(graphed.step))
    assert len(set(wanted["losses"])) == STEPS
    assert_identical(came, wanted)


@pytest.mark.parametrize("net", [{"norm": "group", "up": "bilinear"}, {"norm": "instance", "up": "nearest", "dropout": 0.0}], ids=str)
def test_other_networks(net):
    with host_gpu.installed():
        plain = Training(net=net)
        wanted = plain.run(plain.step, 3)
        graphed = Training(net=net)
        assert_identical(graphed.run(cuda.graph(graphed.step), 3), wanted)


def test_a_graph_is_captured_once_and_only_launched_after_that():
    calls: list[int] = []
    with host_gpu.installed():
        training = Training()
        step = cuda.graph(lambda *batch: calls.append(1) or training.step(*batch))
        training.run(step)
    assert len(calls) == 2  # as it is, and captured


def test_steps_without_the_graph_may_stand_between():
    """As the last, smaller batch of an epoch does."""

    def between(training: Training, step: Any) -> dict[str, np.ndarray]:
        training.run(step)
        training.step(cupy_module().ones((1, 1, 8, 8), np.float32), cupy_module().zeros((1, 8, 8), np.int64))
        return training.run(step)

    with host_gpu.installed():
        plain = Training()
        wanted = between(plain, plain.step)
        graphed = Training()
        assert_identical(between(graphed, cuda.graph(graphed.step)), wanted)


def test_what_a_call_returns_stays_as_it_is():
    with host_gpu.installed():
        step = cuda.graph(lambda x: (2 * x, x + 1))
        kept = [step(np.full(3, i, np.float32)) for i in range(4)]
        assert [[a.get().tolist() for a in both] for both in kept] == [[[2 * i] * 3, [i + 1] * 3] for i in range(4)]
        nothing = cuda.graph(lambda x: None)
        assert [nothing(np.zeros(1)) for _ in range(3)] == [None] * 3


def test_arguments_keep_shapes_and_dtypes():
    with host_gpu.installed():
        step = cuda.graph(lambda x: x + 1)
        assert step.fits(np.zeros((2, 3), np.float32))
        step(np.zeros((2, 3), np.float32))
        for other in (np.zeros((2, 4), np.float32), np.zeros((2, 3))):
            assert not step.fits(other)
            with pytest.raises(ValueError, match=r"this CUDA graph takes float32 2×3; got float(32 2×4|64 2×3)\. Call the function itself"):
                step(other)


NOT_CAPTURED = {
    "item": (lambda x: x * x.sum().item(), "a copy to the processor is illegal"),
    "a branch": (lambda x: x if x.sum() > 0 else -x, "a copy to the processor is illegal"),
    "to_device": (lambda x: x + to_device(to_device(x, "cpu"), "cuda"), "a copy to the processor is illegal"),
    "an array from the processor": (lambda x: x + cupy_module().asarray(np.ones(3, np.float32)), "an array came from the processor"),
    "a copy from the processor": (lambda x: x.set(np.ones(3, np.float32)), "a copy from the processor is illegal"),
    "a graph in a graph": (lambda x: cupy_module().cuda.Stream(non_blocking=True).end_capture(), "the stream is not captured"),
}


@pytest.mark.parametrize("what", NOT_CAPTURED)
def test_what_cannot_be_captured_is_told(what):
    function, message = NOT_CAPTURED[what]
    with host_gpu.pretended():
        x = cupy_module().ones(3, np.float32)
        step = cuda.graph(lambda x: function(x) if cuda.capturing() else x)
        step(x)
        with pytest.raises(cuda.CaptureError, match=f"cannot become a CUDA graph: .*{message}.*Leave out what reads a number"):
            step(x)
        assert not cuda.capturing()
        assert (x + cupy_module().asarray(np.ones(3, np.float32))).get().tolist() == [2] * 3  # the GPU goes on


def test_a_loss_that_reads_numbers_is_told():
    with host_gpu.pretended():
        training = Training(loss=lambda y, masks: mu.functional.nll_loss(mu.functional.log_softmax(y, 1), mu.Tensor(masks)))
        with pytest.raises(cuda.CaptureError, match="a copy to the processor is illegal while the stream is capturing"):
            training.run(cuda.graph(training.step))


@pytest.mark.skipif("config.getoption('real_gpu')", reason="there is a GPU")
def test_without_a_gpu():
    with pytest.raises(RuntimeError, match="device 'cuda' needs"):
        cuda.graph(lambda x: x)(np.zeros(3))


def test_a_tensor_is_refused():
    with host_gpu.installed(), pytest.raises(TypeError, match=r"returns arrays on the GPU; got Tensor\. Of a tensor return \.data"):
        cuda.graph(mu.Tensor)(np.zeros(3))


def test_an_optimiser_that_was_loaded_anew_needs_a_new_graph():
    with host_gpu.installed():
        training = Training()
        step = cuda.graph(training.step)
        training.run(step)
        training.optimizer.load_state_dict(training.optimizer.state_dict())
        with pytest.raises(RuntimeError, match=r"Adam: a parameter of shape .* or its state is in another array .* Make a new graph"):
            training.run(step)


def test_a_state_is_made_before_the_capture():
    with host_gpu.installed():
        p = mu.nn.Parameter(cupy_module().ones(3, np.float32))
        adam = optim.Adam([p])

        def step(x: Any) -> None:
            if cuda.capturing():
                p.grad = x
                adam.step()

        graph = cuda.graph(step)
        graph(np.ones(3, np.float32))
        with pytest.raises(cuda.CaptureError, match="a parameter of shape 3 has its first gradient here, so it has no state yet"):
            graph(np.ones(3, np.float32))


def test_a_class_that_the_loss_does_not_know_makes_it_nan():
    for loss in (losses.dice_cross_entropy, losses.dice_loss, lambda y, t: mu.functional.cross_entropy(y, mu.Tensor(t))):
        with host_gpu.installed():
            step = cuda.graph(lambda y, t, loss=loss: loss(mu.Tensor(y), t).data)
            y, good, bad = np.zeros((1, 2, 2, 2), np.float32), np.zeros((1, 2, 2), np.int64), np.full((1, 2, 2), 2)
            found = [step(y, t).item() for t in (good, good, bad, good)]
            assert np.isnan(found).tolist() == [False, False, True, False]
            assert found[0] == found[1] == found[3]
    assert where_known(mu.tensor(1.0), mu.tensor(0), pytest.fail).item() == 1


# the trainer


class Batches:
    """Two batches of two images and one of one, others in each epoch."""

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Any:
        random = np.random.default_rng(self.epoch)
        for n in (2, 2, 1):
            yield random.standard_normal((n, 1, 8, 8)).astype(np.float32), random.integers(0, 2, (n, 8, 8))


def trainer(out: Path, **options: Any) -> Trainer:
    training = Training(net={"depth": 1}, **options)
    return Trainer(
        training.model, training.optimizer, training.loss, Batches(), lambda model: {"score": 1.0},
        out=out, epochs=3, monitor="score", schedule=one_cycle, device="cuda",
    )  # fmt: skip


def ended(run: Trainer) -> dict[str, np.ndarray]:
    saved = checkpoint.load(run.last)
    losses = np.array([row["train_loss"] for row in run.run.history])
    return {**{name: np.array(a) for name, a in saved.weights.items()}, "losses": losses, "random stream": rng.generator().random(3)}


@pytest.fixture(scope="module")
def without_graph(tmp_path_factory) -> dict[str, np.ndarray]:
    """What a run without a graph ends with."""
    with host_gpu.installed(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(cuda.Graph, "fits", lambda self, *arrays: False)
        run = trainer(tmp_path_factory.mktemp("plain"))
        assert run.fit() == "finished"
        return ended(run)


def test_the_trainer_makes_a_graph_by_itself(tmp_path, monkeypatch, without_graph):
    sizes: list[int] = []
    with host_gpu.installed():
        run = trainer(tmp_path)
        loss = run.loss
        run.loss = lambda y, masks: sizes.append(len(masks)) or loss(y, masks)
        assert run.fit() == "finished"
        assert_identical(ended(run), without_graph)
    assert sizes == [2, 2, 1, 1, 1]  # the first, the captured one, and the last of each epoch


def test_the_trainer_goes_on_without_a_graph_where_there_can_be_none(tmp_path, caplog, without_graph):
    def reads(y: Any, masks: Any) -> Any:
        found = losses.dice_cross_entropy(y, masks)
        assert found.item() > 0
        return found

    with host_gpu.installed(), caplog.at_level("INFO", "minunet"):
        run = trainer(tmp_path, loss=reads)
        assert run.fit() == "finished"
        assert_identical(ended(run), without_graph)
    told = "" if host_gpu.real else "a copy to the processor is illegal"  # CUDA has words of its own
    assert f"Training goes on without a CUDA graph: _step cannot become a CUDA graph: {told}" in caplog.text


@pytest.mark.parametrize("batch", [0, 4, 5])
def test_a_run_with_a_graph_is_interrupted_and_resumed(tmp_path, without_graph, batch):
    class Stop:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

        def batch(self, run: Trainer) -> None:
            if 3 * run.run.epoch + run.run.batch == batch + 1:
                os.kill(os.getpid(), signal.SIGINT)

    with host_gpu.installed():
        run = trainer(tmp_path)
        run.display = Stop()
        assert run.fit() == "interrupted"
        mu.manual_seed(5)
        run = trainer(tmp_path)
        run.resume()
        assert run.fit() == "finished"
        assert_identical(ended(run), without_graph)


@pytest.mark.parametrize("bad", [1, 2, 7])
def test_a_loss_that_is_not_finite_ends_a_run_with_a_graph(tmp_path, bad):
    with host_gpu.installed():
        run = trainer(tmp_path)
        batches, count = run.loader.__class__.__iter__, iter(range(100))

        def spoilt(self: Batches) -> Any:
            for images, masks in batches(self):
                yield (images * np.float32("nan") if next(count) == bad else images), masks

        run.loader = type("Spoilt", (Batches,), {"__iter__": spoilt})()
        with pytest.raises(TrainingError, match=f"epoch {bad // 3 + 1}, batch {bad % 3 + 1} of 3: the loss became nan"):
            run.fit()
        assert run.last.exists() == (bad >= 3)


def test_a_number_is_read_later(monkeypatch):
    """On a stream of its own, once what was launched before it is done."""
    events: list[str] = []
    with host_gpu.pretended():
        monkeypatch.setattr(host_gpu.capture.Event, "record", lambda self: events.append("record"))
        monkeypatch.setattr(host_gpu.capture.Event, "synchronize", lambda self: events.append("wait"))
        monkeypatch.setattr(type(cupy_module().ones(1)), "get", lambda a: events.append(cupy_module().cuda.get_current_stream()) or a._host)
        number = cuda.Later(cupy_module().ones(()))
        assert number.item() == 1
    assert events[:2] == ["record", "wait"]
    assert events[2].non_blocking


# planted faults


class Forgotten:
    """A pool that nobody keeps."""

    @property
    def malloc(self) -> Any:
        return host_gpu.capture.MemoryPool().malloc


FAULTS = {
    "a learning rate by value": ("minunet.optim.varying", lambda values, again, like: cuda.on_gpu(values), "Mismatched elements"),
    "a seed by value": ("minunet.ops.dropout.varying", lambda values, again, like: cuda.on_gpu(values), "Mismatched elements"),
    "memory that others get": ("cupy.cuda.MemoryPool", Forgotten, "a graph uses memory that was freed"),
    "a table that a cache drops": ("minunet.optim.gpu.held", lambda table: table, "a graph uses memory that was freed"),
}


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_planted_faults_are_seen(fault, monkeypatch):
    with host_gpu.pretended():
        plain = Training()
        wanted = plain.run(plain.step)
        if fault:
            place, wrong, told = FAULTS[fault]
            monkeypatch.setattr(place, wrong)
        graphed = Training()
        step = cuda.graph(graphed.step)

        def forgetful(*batch: Any) -> Any:
            found = step(*batch)
            if step._launches is not None:
                optim_gpu._pieces.cache_clear()
            return found

        def same() -> None:
            assert_identical(graphed.run(forgetful), wanted)

        if fault:
            with pytest.raises(AssertionError, match=told):
                same()
        else:
            same()
