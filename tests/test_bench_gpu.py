"""`minunet bench gpu` without a GPU: that it measures what it says, on stand-ins, and what it says where there is none."""

from __future__ import annotations

import json
import runpy
import types
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minunet import cli, nn
from minunet.arrays import to_device
from minunet.bench import measure, networks, ops, report
from minunet.bench import on_gpu as gpu
from minunet.bench.measure import Contestant, Effort
from minunet.optim.scaling import LossScaler
from tests import host_gpu
from tests.conftest import require

ROOT = Path(__file__).parents[1]
TOLD = {
    "card": "Made-up GPU (TM) 80GB",
    "compute_capability": "7.0",  # none of the tensor cores that minunet uses
    "multiprocessors": 1,
    "memory": 1,
    "cache": 1 << 14,
    "driver": "1.2.3",
    "cuda": {"driver": 13000, "cupy": 13000, "torch": "13.0"},
    "cupy": "14.2",
    "torch": "2.13",
    "cudnn": 1,
    "triton": None,
}

pytestmark = [  # PyTorch's
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]


LIMITS = {"gflops": 1.0, "gbytes": 1.0}


def turns(**seconds: float) -> Any:
    """Stands for `take_turns`: times that are given."""
    return lambda contestants, effort, clock: {name: [taken] for name, taken in seconds.items()}


def with_compiler() -> Any:
    """PyTorch, and what it loads to compile, which warns as it is loaded."""
    require("torch._dynamo")
    return require("torch")


@pytest.fixture
def card() -> Iterator[gpu.Card]:
    """None: minunet computes on the stand-in, PyTorch on the processor, and the clock hangs on the wall."""
    with host_gpu.pretended():
        yield gpu.Card(TOLD, TOLD["cache"], measure.wall, place="cpu")


# the clock and the turns


def test_the_clock_is_two_events_around_the_calls():
    """It starts on a card that has done all before: what is still to do would hide how long a launch takes."""
    log: list[Any] = []

    class Event:
        def record(self) -> None:
            log.append(("record", self))

        def synchronize(self) -> None:
            log.append(("synchronize", self))

    elapsed = lambda start, end: log.append(("elapsed", start, end)) or 2500.0  # noqa: E731  milliseconds
    device = lambda: types.SimpleNamespace(synchronize=lambda: log.append("idle"))  # noqa: E731
    clock = gpu._events(types.SimpleNamespace(cuda=types.SimpleNamespace(Event=Event, Device=device, get_elapsed_time=elapsed)))
    assert clock(lambda: log.append("run")) == 2.5
    idle, (first, start), run, (second, end), (third, waited), told = log
    assert (idle, first, run, second, third) == ("idle", "record", "run", "record", "synchronize")
    assert waited is end
    assert told == ("elapsed", start, end)


def test_contestants_are_timed_by_the_clock_that_is_given():
    seconds = iter([1.0, 1.0, *[9.0, 2.0] * 3])  # warm-up, then of each turn a call that is not counted

    def clock(run: Any) -> float:
        run()
        return next(seconds)

    calls: list[Any] = []
    assert measure.take_turns({"a": Contestant(calls.append)}, Effort(3, 0.0), clock) == {"a": [2.0] * 3}
    assert len(calls) == 8
    assert gpu.FULL.rounds >= 7


# the cache


@pytest.mark.parametrize(("bytes_moved", "sets"), [(1, 4 * (1 << 14)), (1 << 14, 4), (10_000, 7), (1 << 20, 1), (0, 4 * (1 << 14))])
def test_the_sets_are_four_times_the_cache(card, bytes_moved, sets):
    assert gpu.sets_for(card, bytes_moved) == sets
    assert gpu.sets_for(gpu.Card(TOLD, 0, measure.wall), bytes_moved) == 1


@pytest.mark.parametrize(("precision", "sets"), [("float32", 25), ("bf16", 41)])
def test_a_set_has_all_that_a_call_reads_and_writes(card, monkeypatch, precision, sets):
    """Input, weights and output of this row are 2624 bytes in float32, of the 65536 that are wanted; 2048 of them are images."""
    found = []
    for name in ("our_contestant", "torch_contestant"):
        monkeypatch.setattr(ops, name, lambda op, direction, sets, *_: found.append(len(sets)) or Contestant(print))
    gpu._sides(ops.conv((1, 4, 8, 8), 4, 3, padding=1), "grad_w", card, require("torch"), gpu.PRECISIONS[precision])
    assert found == [sets] * (1 + len(gpu.PRECISIONS[precision].formats))


def test_a_row_begins_with_an_empty_card(monkeypatch):
    torch, freed = require("torch"), []
    monkeypatch.setattr(gpu, "take_turns", turns(ours=1.0, torch=1.0))
    monkeypatch.setattr(torch, "compile", lambda model: model)
    network = networks.unet((1, 1, 8, 8), base_channels=2, depth=1)
    with host_gpu.pretended():
        card = gpu.Card(TOLD, 0, measure.wall, "cpu", lambda: freed.append("all"))
        rows = list(gpu.operations(card, torch, gpu.PRECISIONS["float32"], gpu.QUICK, LIMITS, "max pool 1×32²"))
        assert len(freed) == len(rows) == 2
        assert list(gpu.steps(card, torch, gpu.PRECISIONS["float32"], (network,), gpu.QUICK, LIMITS))
        assert len(freed) == 3


def test_both_libraries_give_memory_back():
    freed = []
    pool = types.SimpleNamespace(free_all_blocks=lambda: freed.append("CuPy"))
    torch = types.SimpleNamespace(cuda=types.SimpleNamespace(empty_cache=lambda: freed.append("PyTorch")))
    gpu._free(types.SimpleNamespace(get_default_memory_pool=lambda: pool), torch)
    assert freed == ["CuPy", "PyTorch"]


@pytest.mark.parametrize("direction", ["forward", "grad_x", "grad_w"])
def test_inputs_rotate(direction):
    """On both sides successive calls read the next set, and a backward has its own output gradient, with the same numbers."""
    torch, op = require("torch"), ops.conv((1, 4, 8, 8), 4, 3, padding=1)
    sets = [[np.random.default_rng(i).standard_normal((1, 4, 8, 8), np.float32)] for i in range(3)]
    seen: dict[str, list[Any]] = {"ours": [], "torch": []}

    class Layer(nn.Conv2d):
        def forward(self, x: Any) -> Any:
            seen["ours"].append(x.data.ctypes.data)
            return super().forward(x)

    class Theirs(torch.nn.Conv2d):
        def forward(self, x: Any) -> Any:
            seen["torch"].append(x.data_ptr())
            return super().forward(x)

    op = ops.replace(op, ours=lambda _: Layer(4, 4, 3, padding=1), theirs=lambda _: Theirs(4, 4, 3, padding=1))
    tensors = [[torch.from_numpy(a) for a in arrays] for arrays in sets]
    for name, contestant in (
        ("ours", ops.our_contestant(op, direction, sets)),
        ("torch", ops.torch_contestant(op, direction, tensors, torch, last=True)),
    ):
        prepared = []
        for _ in range(6):
            prepared.append(contestant.prepare())
            contestant.run(prepared[-1])
        assert len(set(seen[name])) == 3
        assert seen[name][:3] == seen[name][3:]
        if direction != "forward":
            gradients = [np.asarray(p[-1]) for p in prepared]
            assert len({gy.ctypes.data for gy in gradients}) == 3
            assert all(np.array_equal(gy, gradients[0]) and gy.strides == gradients[0].strides for gy in gradients)


@pytest.mark.parametrize("make", [ops.our_adam, lambda base, sets: ops.torch_adam(base, require("torch"), None, sets=sets)])
def test_the_weights_of_adam_rotate(make):
    contestant = make(4, sets=2)
    turns = [contestant.prepare() for _ in range(4)]
    assert turns[0] is turns[2] is not turns[1]
    contestant.run(turns[0])


# precision


def test_pytorch_is_told_the_precision_and_told_back():
    torch = require("torch")
    flags = lambda: (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark)  # noqa: E731
    before = flags()
    for precision, want in ((gpu.PRECISIONS["float32"], False), (gpu.PRECISIONS["tf32"], True)):
        with gpu._torch_settings(torch, precision):
            assert flags() == (want, want, True)
        assert flags() == before


HALF = gpu.PRECISIONS["bf16"]


def test_a_convolution_of_pytorch_casts_nothing(card):
    """Image, weights and gradients have the dtype from the start."""
    torch, op = require("torch"), ops.conv((1, 4, 8, 8), 4, 3, padding=1)
    side = gpu._sides(op, "grad_w", card, torch, HALF)["torch channels-last"]
    y, wanted, gy = side.prepare()
    found = [y, gy, *wanted, *side.run((y, wanted, gy))]
    assert [t.dtype for t in found] == [torch.bfloat16] * 6


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_ours_has_images_of_16_bits(card, direction):
    op = next(op for op in ops.on_activations((1, 4, 8, 8)) if op.operation == "group norm + ReLU")
    side = gpu._sides(op, direction, card, require("torch"), HALF)["ours"]
    prepared = side.prepare()
    y = side.run(prepared) if direction == "forward" else prepared[0]
    assert y.dtype.name == "bfloat16"
    side.run(side.prepare())


@pytest.mark.parametrize(
    "op", [ops.conv((1, 4, 8, 8), 4, 3), *ops.on_activations((1, 4, 8, 8)), *ops.on_logits(1, 8)], ids=lambda op: op.operation
)
def test_images_of_16_bits_are_half_the_traffic(op):
    for work in op.work.values():
        assert work.stored_in(4) == replace(work, images=work.bytes if work.images is None else work.images)
        assert work.stored_in(2).bytes == work.bytes - work.stored_in(4).images / 2
        assert work.bytes / 2 <= work.stored_in(2).bytes < work.bytes


def test_an_autocast_is_around_a_network_of_pytorch(card):
    torch, network = require("torch"), networks.unet((1, 1, 8, 8), base_channels=2, depth=1)
    side = networks.torch_steps(network, torch, "torch", around=gpu._autocast(card, torch, HALF))
    assert side["prediction"].run(None).dtype == torch.bfloat16


@pytest.mark.parametrize("precision", ["float32", "tf32", "fp16"])
def test_what_is_as_in_float32_is_measured_once(card, monkeypatch, precision):
    monkeypatch.setattr(gpu, "take_turns", turns(ours=1.0, torch=1.0))
    rows = list(gpu.operations(card, require("torch"), gpu.PRECISIONS[precision], gpu.QUICK, LIMITS))
    names = {row["operation"].partition(" ")[0] for row in rows}
    assert {"conv", "up-conv"} <= names
    assert ("Adam" in names) == (precision == "float32")
    assert ({"ReLU", "cross-entropy"} <= names) == (precision != "tf32")
    assert precision != "tf32" or names == {"conv", "up-conv"}


def test_ours_runs_within_its_precision():
    log: list[str] = []

    @gpu.contextmanager
    def around() -> Iterator[None]:
        log.append("in")
        yield
        log.append("out")

    contestant = gpu._within(around, Contestant(lambda prepared: log.append(f"run {prepared}"), lambda: log.append("prepare") or 1))
    contestant.run(contestant.prepare())
    assert log == ["in", "prepare", "out", "in", "run 1", "out"]


# what is measured


@pytest.mark.parametrize("quick", [False, True])
def test_the_table_names_each_row_once(quick):
    names = [(op.operation, op.shape) for op in gpu.table(quick)]
    assert len(names) == len(set(names))
    assert {"conv 3×3", "up-conv 2×2/2", "max pool", "bilinear up", "group norm + ReLU", "dropout", "Dice"} <= {name for name, _ in names}


def test_limits_are_measured(card):
    found = gpu.peaks(card, require("torch"), HALF, quick=True)
    assert set(found) == {"gbytes", "gflops"}
    assert all(0.01 < value < 1e6 for value in found.values())


def measured(card: gpu.Card, monkeypatch: Any, only: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One tiny network and what `only` names; the compiler fails."""
    torch = with_compiler()

    def compiles(model: Any) -> Any:
        raise OSError("no compiler")

    monkeypatch.setattr(torch, "compile", compiles)
    monkeypatch.setattr(networks, "QUICK_UNETS", (networks.unet((1, 1, 8, 8), base_channels=2, depth=1),))
    return list(gpu.measure(card, torch, True, only))[-1]


@pytest.mark.parametrize("only", ["max pool 1×32²", "cross-entropy", "Adam", "UNet, base 2"])
def test_both_sides_are_measured(card, monkeypatch, only):
    run, rows = measured(card, monkeypatch, only)
    assert set(run["peaks"]) == {"float32"}
    assert rows
    for row in rows:
        assert row["precision"] == "float32"
        assert {"ours", "torch"} <= set(row["seconds"])
        assert row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
        assert row["share"] == pytest.approx(
            max(row["flops"] / run["peaks"]["float32"]["gflops"], row.get("bytes", 0) / run["peaks"]["float32"]["gbytes"])
            / (1e9 * row["seconds"]["ours"])
        )
        assert row["gflops"] == pytest.approx(row["flops"] / row["seconds"]["ours"] / 1e9)
    if "network" in rows[0]:
        assert [row["mode"] for row in rows] == ["training", "training, one graph", "prediction"]
        assert rows[0]["rivals"] == {"torch.compile": {"failed": "OSError"}}
    assert report.gpu_table(rows).row_count == len(rows)
    assert "Made-up GPU" in report.gpu_heading(run)


def test_no_row_is_told(card, monkeypatch):
    with pytest.raises(ValueError, match="no row of the benchmark gpu holds the text 'no such row'"):
        measured(card, monkeypatch, "no such row")


def test_a_compiled_network_takes_part(card, monkeypatch):
    torch = with_compiler()
    monkeypatch.setattr(torch, "compile", lambda model: model)
    network = networks.unet((1, 1, 8, 8), base_channels=2, depth=1)
    rows = list(gpu.steps(card, torch, gpu.PRECISIONS["float32"], (network,), gpu.QUICK, LIMITS))
    assert all("torch.compile" in row["seconds"] for row in rows)


def test_every_network_is_compiled(card, monkeypatch):
    """Unasked, PyTorch compiles a class for eight of its networks and modes, and runs the others as they are."""
    torch, count, shares = with_compiler(), [], []
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=lambda graph, _: count.append(graph) or graph.forward))
    monkeypatch.setattr(gpu, "take_turns", lambda *_: shares.append(len(count)) or {"ours": [1.0], "torch": [1.0]})
    chosen = tuple(networks.unet((1, 1, 4, 4), base_channels=base, depth=1) for base in range(1, 6))
    assert len(list(gpu.steps(card, torch, gpu.PRECISIONS["float32"], chosen, gpu.QUICK, LIMITS))) == 15
    assert shares[::3] == [2 * (i + 1) for i in range(5)]  # for training and for prediction
    assert shares[1::3] == shares[2::3] == shares[::3]


def test_the_fastest_adam_counts(card, monkeypatch):
    monkeypatch.setattr(gpu, "take_turns", turns(**{"ours": 1.0, "torch": 3.0, "torch fused": 2.0}))
    (row,) = gpu.operations(card, require("torch"), gpu.PRECISIONS["float32"], gpu.QUICK, LIMITS, "Adam")
    assert (row["against"], row["ratio"]["median"]) == ("torch fused", 2.0)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_step_of_both_sides_scales_the_loss_in_float16(card, monkeypatch, precision):
    torch, scaled = with_compiler(), []
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaled.append(enabled) or scaler(device, enabled=enabled))
    monkeypatch.setattr(networks, "LossScaler", lambda: scaled.append("ours") or LossScaler())
    monkeypatch.setattr(torch, "compile", lambda model: model)
    network = networks.unet((1, 1, 8, 8), base_channels=2, depth=1)
    rows = list(gpu.steps(card, torch, gpu.PRECISIONS[precision], (network,), gpu.QUICK, LIMITS))
    graph = [] if precision == "fp16" else [networks.GRAPH]  # a scaled step may be left out, and a graph leaves nothing out
    assert [row["mode"] for row in rows] == ["training", *graph, "prediction"]
    assert scaled == (["ours", True, True, True] if precision == "fp16" else [False] * 3)


def test_networks_of_pytorch_have_the_fused_adam(card, monkeypatch):
    torch, fused = require("torch"), []
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda *args, **options: fused.append(options["fused"]) or adam(*args, **options))
    monkeypatch.setattr(torch, "compile", lambda model: model)
    monkeypatch.setattr(gpu, "take_turns", turns(ours=1.0, torch=1.0))
    network = networks.unet((1, 1, 8, 8), base_channels=2, depth=1)
    assert list(gpu.steps(card, torch, gpu.PRECISIONS["float32"], (network,), gpu.QUICK, LIMITS))
    assert fused == [True, True]  # in one order, and compiled


# the command, and what is written


@pytest.fixture
def bench(capfd, monkeypatch, tmp_path):
    """Runs `minunet bench gpu …` with results in tmp_path/out; (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main(["bench", "gpu", *map(str, arguments), "--out", str(tmp_path / "out")])
        return (ended.value.code or 0, *capfd.readouterr())

    return run


@pytest.mark.parametrize(
    ("torch", "sentence"),
    [
        (None, "measures beside PyTorch on CUDA, and PyTorch is not installed: install it from https://pytorch.org."),
        (
            types.SimpleNamespace(__version__="2.13.0+cpu", cuda=types.SimpleNamespace(is_available=lambda: False)),
            "and PyTorch 2.13.0+cpu finds no GPU: install it from",
        ),
    ],
    ids=["absent", "without CUDA"],
)
def test_without_pytorch_on_cuda(bench, monkeypatch, tmp_path, torch, sentence):
    monkeypatch.setattr(cli, "_reference", lambda name: torch)
    with host_gpu.pretended():
        code, out, err = bench()
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_a_gpu(bench, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    code, out, err = bench("--quick")
    assert (code, out) == (2, "")
    assert err.startswith("minunet: device 'cuda' needs CuPy, which is not installed")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [("--threads", 1), ("--avx2",), ("--rivals",)])
def test_options_of_the_processors_benchmarks(bench, option):
    code, _, err = bench(*option)
    assert code == 2
    assert "belong to the processor's benchmarks" in err


def result(path: Path) -> dict[str, Any]:
    """A file of results, its fields checked."""
    found = json.loads(path.read_text(encoding="utf-8"))
    assert set(found) == {"date", "machine", "benchmark", "quick", "only", "complete", "runs", "rows"}
    assert found["benchmark"] == "gpu"
    (run,) = found["runs"]
    assert set(run) == {*TOLD, "cudnn_benchmark", "peaks"}
    assert gpu.Card(run, 0, measure.wall).file == path.stem
    for row in found["rows"]:
        assert ("operation" in row) != ("network" in row)
        assert {"precision", "shape", "seconds", "against", "ratio", "flops", "gflops", "share"} <= set(row)
        assert row["precision"] in run["peaks"]
    return found


def test_the_command_writes_a_file_for_the_card(bench, card, monkeypatch, tmp_path):
    require("torch")
    monkeypatch.setattr(gpu, "card", lambda torch: card)
    code, out, err = bench("--quick", "--only", "max pool 1×32²")
    assert code == 0, out + err
    found = result(tmp_path / "out" / "gpu-made-up-gpu-tm-80gb.json")
    assert found["quick"]
    assert found["complete"]
    assert [row["direction"] for row in found["rows"]] == ["forward", "backward"]
    assert "Made-up GPU (TM) 80GB, driver 1.2.3" in out
    assert "max pool" in out


def test_a_run_that_dies_leaves_what_it_measured(bench, card, monkeypatch, tmp_path):
    require("torch")
    monkeypatch.setattr(gpu, "card", lambda torch: card)
    measured: list[str] = []

    def once(contestants: Any, *_: Any) -> dict[str, list[float]]:
        if measured:
            raise RuntimeError("the card is gone.")
        measured.extend(contestants)
        return {"ours": [1.0], "torch": [2.0]}

    monkeypatch.setattr(gpu, "take_turns", once)
    code, _, err = bench("--quick", "--only", "max pool 1×32²")
    assert (code, err) == (2, "minunet: the card is gone.\n")
    (path,) = (tmp_path / "out").iterdir()
    found = result(path)
    assert [row["direction"] for row in found["rows"]] == ["forward"]
    assert not found["complete"]


def test_kept_results_are_measured_in_earnest_and_the_page_tells_which_are_a_part():
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for path in (ROOT / "benchmarks" / "results").glob("gpu-*.json"):
        found = result(path)
        assert not found["quick"], path
        if found["only"] or not found["complete"]:
            assert f"A part of the benchmark: rows with “{found['only']}”" in page, path


def test_the_page_has_a_table_for_each_card(tmp_path):
    filled = runpy.run_path(str(ROOT / "tools" / "benchmark_tables.py"))["filled"]
    page = "<!-- table: gpu -->\n<!-- end -->"
    assert "Not measured yet" in filled(page, tmp_path)
    ratio = {"median": 1.25, "low": 1.0, "high": 1.5}
    common = {"precision": "float32", "seconds": {"ours": 0.01, "torch": 0.0125}, "against": "torch", "ratio": ratio, "gflops": 2e4}
    rows = [
        common | {"network": "UNet, base 64", "shape": "8×1×512×512", "mode": "training", "flops": 2e11, "share": 0.5},
        *(common | {"operation": "ReLU", "shape": s, "direction": "forward", "flops": 1, "share": 0.8} for s in ("a", "b")),
    ]
    for name in ("Card A", "Card B"):
        run = {**TOLD, "card": name, "peaks": {"float32": {"gflops": 4e4, "gbytes": 3000.0}}}
        path = tmp_path / f"{gpu.Card(run, 0, measure.wall).file}.json"
        measure.write(path, {"benchmark": "gpu", "quick": False, "only": "", "complete": True, "runs": [run]}, rows)
    text = filled(page, tmp_path)
    assert text.index("**Card A**") < text.index("**Card B**")
    assert "driver 1.2.3, CUDA 13.0 for CuPy 14.2, 13.0 for PyTorch 2.13" in text
    assert "- float32: peak 40.0 TFLOP/s, 3000 GB/s" in text
    assert "| UNet, base 64 | 8×1×512×512 | training | float32 | 10 ms | 12.5 ms (torch) | 1.25 | 20.0 |" in text
    assert "| ReLU | forward | float32 | 2 | 1.25 – 1.25 | 80% – 80% |" in text


def test_the_card_tells_what_it_is(monkeypatch):
    """On fakes: that every name asked of CuPy and of PyTorch is put where it belongs."""
    about = {"name": b"Card", "major": 9, "minor": 0, "multiProcessorCount": 132, "totalGlobalMem": 1 << 36, "l2CacheSize": 50 << 20}
    runtime = types.SimpleNamespace(getDeviceProperties={1: about}.get, driverGetVersion=lambda: 13010, runtimeGetVersion=lambda: 13000)
    device = lambda: types.SimpleNamespace(id=1)  # noqa: E731
    cupy = types.SimpleNamespace(__version__="14.2", cuda=types.SimpleNamespace(runtime=runtime, Device=device))
    cudnn = types.SimpleNamespace(version=lambda: 91000)
    torch = types.SimpleNamespace(
        __version__="2.13.0+cu130",
        cuda=types.SimpleNamespace(is_available=lambda: True),
        version=types.SimpleNamespace(cuda="13.0"),
        backends=types.SimpleNamespace(cudnn=cudnn),
    )
    monkeypatch.setattr(gpu, "cupy_module", lambda: cupy)
    monkeypatch.setattr(gpu, "_driver", lambda: "580.1")
    found = gpu.card(torch)
    assert set(found.told) == set(TOLD)
    assert (found.told["card"], found.told["driver"], found.cache, found.file, found.place) == (
        "Card",
        "580.1",
        50 << 20,
        "gpu-card",
        "cuda",
    )


def test_ours_is_on_the_gpu(card):
    op = ops.conv((1, 4, 8, 8), 4, 3, padding=1)
    contestant = ops.our_contestant(op, "forward", [[to_device(np.ones((1, 4, 8, 8), np.float32), "cuda")]])
    assert contestant.run(contestant.prepare()).device == "cuda"
