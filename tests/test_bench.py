"""Benchmarks: that they measure what they say and write what can be read again. No test looks at a time."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from minunet import cli, nn
from minunet.bench import measure, networks, ops, peaks, report, rivals, session
from minunet.bench.measure import Contestant, Effort
from minunet.inspection import summary
from minunet.models import UNet
from tests.conftest import require

ROOT = Path(__file__).parents[1]
LIMITS = {"gflops": 100.0, "gbytes": 10.0}
QUICK = measure.QUICK

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # PyTorch's


@pytest.fixture
def bench(capfd, monkeypatch, tmp_path):
    """Runs `minunet bench …` with results in tmp_path; (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setenv("TERM", "dumb")

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main(["bench", *map(str, arguments), "--out", str(tmp_path)])
        return (ended.value.code or 0, *capfd.readouterr())

    return run


def result(path: Path) -> dict:
    """A file of results, its head and the fields that all rows share checked."""
    found = json.loads(path.read_text(encoding="utf-8"))
    assert set(found) == {"date", "machine", "benchmark", "quick", "only", "runs", "rows"}
    assert {"processor", "cores", "python", "numpy", "numba", "torch"} <= set(found["machine"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"])
    for run in found["runs"]:
        assert set(run) == {"threads", "numba_threads", "torch_threads", "vector_bits", "torch_capability", "environment", "peaks"}
        assert "OMP_WAIT_POLICY" in run["environment"]
        assert run["numba_threads"] == run["threads"] == (run["torch_threads"] or run["threads"])
        assert min(run["peaks"]["gflops"], run["peaks"]["gbytes"]) > 0
    assert found["rows"]
    assert {row["threads"] for row in found["rows"]} <= {run["threads"] for run in found["runs"]}
    for row in found["rows"]:
        assert ("operation" in row) != ("network" in row)
        assert all(value > 0 for value in row.get("seconds", {}).values())
        if "seconds" in row and "ratio" in row:
            assert row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
            assert row["against"] in row["seconds"]
    return found


# taking turns


def test_contestants_take_turns():
    log: list[str] = []

    def contestant(name: str) -> Contestant:
        return Contestant(lambda prepared: log.append(f"{name}{prepared}"), lambda: log.append(f"({name})") or "!")

    times = measure.take_turns({"a": contestant("a"), "b": contestant("b")}, Effort(rounds=3, seconds=0.0))
    warm_up = ["(a)", "a!"] * 2 + ["(b)", "b!"] * 2
    assert log == warm_up + (["(a)", "a!"] * 2 + ["(b)", "b!"] * 2) * 3, "the first call of a turn is not counted"
    assert {name: len(samples) for name, samples in times.items()} == {"a": 3, "b": 3}


def test_a_short_operation_is_called_several_times():
    calls: list[int] = []
    (samples,) = measure.take_turns({"a": Contestant(calls.append, lambda: 1)}, Effort(rounds=2, seconds=1.0)).values()
    assert len(samples) == 2
    assert len(calls) >= 2 * measure.MOST_CALLS + 2


def test_the_ratio_is_paired_and_to_the_faster():
    times = {"ours": [1.0, 10.0, 1.0], "slow": [9.0, 90.0, 9.0], "fast": [2.0, 20.0, 3.0]}
    compared = measure.compare(times, "ours", ["slow", "fast", "absent"])
    assert compared["against"] == "fast"
    assert compared["ratio"] == {"median": 2.0, "low": 2.0, "high": 2.5}  # the slow second round met both
    assert measure.compare(times, "ours", ["absent"]) == {}


def test_relative_error():
    assert measure.relative_error(np.array([3.0, 5.0]), np.array([3.0, 4.0])) == pytest.approx(0.2)
    assert measure.relative_error([np.array([3.0]), np.array([5.0])], [np.array([3.0]), np.array([4.0])]) == pytest.approx(0.2)


def test_the_machine_has_limits():
    found = peaks.peaks(1, quick=True)
    assert all(0.1 < value < 1e5 for value in found.values())


# what is counted


@pytest.mark.parametrize(("images", "base", "size"), ops.NETS)
def test_every_convolution_of_a_unet_is_in_the_table_with_its_work(images, base, size):
    """The summary counts multiply-accumulates from the network itself."""
    table = list(ops.table())
    rows = [row for row in summary(UNet(1, 2, base_channels=base), (images, 1, size, size)).rows if row.macs]
    assert len(rows) == 23
    for row in rows:
        up = row.kind.startswith("ConvTranspose")
        kind = re.search(r"\d×\d", row.kind)[0]
        name = f"up-conv {kind}/2" if up else f"conv {kind}"
        place = f"{images}×{row.output_shape[2] // (2 if up else 1)}²,"
        fits = [
            op
            for op in table
            if op.operation.startswith(name) and op.shape.startswith(place) and op.shape.endswith(f"→ {row.output_shape[1]}")
        ]
        assert 2 * row.macs in {op.work["forward"].flops for op in fits}, row.name
        assert all(op.work["grad_x"] == op.work["grad_w"] == op.work["forward"] for op in fits)


def test_bytes_are_each_array_once():
    op = ops.conv((2, 3, 8, 8), 5, 3, padding=1)
    layer = op.ours(nn)
    assert op.work["forward"].bytes == 4 * (2 * 3 * 8 * 8 + layer.weight.size + 2 * 5 * 8 * 8)
    op = ops.conv_transpose((2, 6, 8, 8), 3, 2, stride=2)
    assert op.work["forward"].bytes == 4 * (2 * 6 * 8 * 8 + op.ours(nn).weight.size + 2 * 3 * 16 * 16)


def test_the_share_of_the_peak():
    work = ops.Work(flops=1e9, bytes=4e8)  # 10 ms by arithmetic, 40 ms by traffic
    row = ops.row({}, work, {"cpu": [0.08], "torch": [0.16]}, {}, LIMITS)
    assert row["share"] == pytest.approx(0.5)
    assert row["gflops"] == pytest.approx(12.5)
    assert row["ratio"]["median"] == pytest.approx(2.0)


@pytest.mark.parametrize("full", [False, True])
def test_the_table_names_each_row_once(full):
    names = [(op.operation, op.shape) for op in ops.table(quick=not full)]
    assert len(names) == len(set(names))


# the operations run, ours and PyTorch's


def _examples() -> dict[str, ops.Op]:
    """One row of each operation, of a small size."""
    return {op.operation: op for op in ops.table(quick=True)}


@pytest.mark.parametrize("name", _examples())
def test_an_operation_is_measured(name):
    op, torch = _examples()[name], require("torch")
    for direction, work in op.work.items():
        row = ops.measured(op, direction, work, torch, QUICK, LIMITS)
        assert {"cpu", *ops.FORMATS} <= set(row["seconds"])
        assert row["against"] in ops.FORMATS


@pytest.mark.parametrize(
    "name", ["conv 3×3", "up-conv 2×2/2", "max pool", "bilinear up", "group norm", "concatenate", "cross-entropy", "Dice"]
)
def test_both_sides_compute_the_same(name):
    """The inputs' gradients, by the very functions that are timed, with one set of weights."""
    op, torch = _examples()[name], require("torch")
    arrays = [np.random.default_rng(i).standard_normal(shape, np.float32) for i, shape in enumerate(op.inputs)]
    ours, theirs = op.ours(nn), op.their_function(torch)
    if isinstance(ours, nn.Module):
        rivals.load(theirs, ours, torch)
    y = ours(*map(ops.Tensor, arrays))
    z = theirs(*map(torch.from_numpy, arrays))
    assert measure.relative_error(y.data, z.detach().numpy()) < 1e-5


def test_gradients_alone_are_asked_for():
    """Timing the weight's gradient must not compute the input's, and the other way round."""
    op = ops.conv((1, 4, 8, 8), 4, 3, padding=1)
    x = [np.zeros((1, 4, 8, 8), np.float32)]
    for direction, needs in (("grad_x", (True, False, False)), ("grad_w", (False, True, True))):
        assert ops.our_contestant(op, direction, [x]).prepare()[0].node.needs == needs


# networks


@pytest.mark.parametrize("network", networks.UNETS + networks.MODELS, ids=lambda n: n.name)
def test_both_networks_have_the_same_weights(network):
    torch = require("torch")
    with torch.device("meta"):
        theirs = {name: tuple(p.shape) for name, p in network.theirs(torch).named_parameters()}
    assert theirs == {name: p.shape for name, p in network.ours().named_parameters()}


@pytest.mark.parametrize("network", networks.QUICK_UNETS + networks.QUICK_MODELS, ids=lambda n: n.name)
def test_both_networks_compute_the_same(network):
    errors = networks._errors(network, require("torch"))
    for side in ("ours", "torch"):
        assert errors["loss_error"][side] < 1e-5
        assert errors["gradient_error"][side] < 1e-3


def test_the_network_in_keras_has_as_many_weights():
    keras = require("keras")
    ours = sum(p.size for p in UNet(1, 2, base_channels=4, depth=2).parameters())
    assert rivals.keras_unet(keras, (16, 16, 1), 2, base_channels=4, depth=2).count_params() == ours


def test_without_pytorch_ours_is_measured_alone():
    training, prediction = networks.rows(networks.QUICK_UNETS[:1], None, QUICK, LIMITS)
    assert set(training["seconds"]) == set(prediction["seconds"]) == {"ours"}
    assert "ratio" not in training
    op = ops.conv((1, 4, 8, 8), 4, 3, padding=1)
    assert "ratio" not in ops.measured(op, "forward", op.work["forward"], None, QUICK, LIMITS)
    run = {
        "threads": 1,
        "peaks": LIMITS,
        "numba_threads": 1,
        "torch_threads": None,
        "vector_bits": 256,
        "torch_capability": None,
        "environment": {},
    }
    assert report.table(run, [{"threads": 1, **training}]).row_count == 1


def test_a_rival_takes_turns_with_ours():
    torch = require("torch")
    network = networks.QUICK_UNETS[1]
    assert list(networks.against(network, "Keras on JAX", torch, None, QUICK)) == []  # it has a norm, which Keras' network has not
    keras = require("keras")
    found = list(networks.against(networks.QUICK_UNETS[0], "Keras on JAX", torch, keras, QUICK))
    assert [f["mode"] for f in found] == ["training", "prediction"]
    assert all(f["seconds"] > 0 and f["ratio"]["low"] > 0 for f in found)


def test_a_rival_that_fails_takes_nothing_with_it(monkeypatch):
    rows = [
        {"threads": 1, "network": "UNet", "shape": "1", "mode": mode, "seconds": {"ours": 1.0}, "share": 1.0}
        for mode in ("training", "prediction")
    ]

    def dies(*_: object):
        yield {"mode": "training", "seconds": 2.0, "ratio": {"median": 2.0, "low": 2.0, "high": 2.0}}
        raise RuntimeError("ended with code -6")

    monkeypatch.setattr(session, "_worker", dies)
    session._add_rival(session.Request("unet", (1,)), "torch.compile", rows)
    assert rows[0]["rivals"]["torch.compile"]["seconds"] == 2.0
    assert rows[1]["rivals"]["torch.compile"] == {"failed": "ended with code -6"}
    run = {"threads": 1}
    columns = report.table(run, rows).columns
    assert list(columns[3].cells) == ["—", "2000 ms", "—", "failed"]
    assert list(columns[4].cells) == ["—", "2.00 ±0.00", "—", "—"]


# the command


def test_operations_from_the_command(bench, tmp_path):
    code, out, err = bench("ops", "--quick", "--threads", 1, "--only", "1×32², 16")
    assert code == 0, out + err
    found = result(tmp_path / "ops.json")
    assert found["quick"]
    assert found["only"] == "1×32², 16"
    for row in found["rows"]:
        assert {"operation", "shape", "direction", "flops", "bytes", "gflops", "gbytes", "share"} <= set(row)
        assert row["operation"] in out
    assert {"forward", "backward", "grad_x", "grad_w"} == {row["direction"] for row in found["rows"]}
    assert any("ref" in row["seconds"] for row in found["rows"])
    with Picture.open(tmp_path / "ops-roofline.png") as picture:
        assert picture.width > 1000
    assert "1 thread," in out
    assert "OMP_WAIT_POLICY=" in out


def test_networks_from_the_command(bench, tmp_path):
    require("torch")
    code, out, err = bench("unet", "--quick", "--threads", 1, "--only", "UNet, base")
    assert code == 0, out + err
    found = result(tmp_path / "unet.json")
    assert [row["mode"] for row in found["rows"]] == ["training", "prediction"] + ["memory"] * Path("/proc/self/status").exists()
    training = found["rows"][0]
    assert set(training["gradient_error"]) == {"ours", "torch"}
    assert training["flops"] == 3 * found["rows"][1]["flops"]
    assert all(set(row["mib"]) == set(networks.SIDES) for row in found["rows"][2:])
    assert "training" in out


def test_errors_from_the_command(bench, tmp_path):
    require("torch")
    code, out, err = bench("accuracy", "--quick", "--threads", 1)
    assert code == 0, out + err
    for row in result(tmp_path / "accuracy.json")["rows"]:
        assert 0 < row["error"]["ours"] < 1e-5
        assert 0 < row["error"]["torch"] < 1e-5
        assert row["ratio"] == pytest.approx(row["error"]["ours"] / row["error"]["torch"], rel=1e-2)


def test_where_pytorch_cannot_be_loaded(bench, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(session, "has_torch", lambda: False)
    code, out, err = bench("ops", "--quick", "--threads", 1, "--only", "max pool 1×32²")
    assert code == 0, out + err
    assert "PyTorch is not installed" in out
    found = result(tmp_path / "ops.json")
    assert found["runs"][0]["torch_threads"] is None
    assert all(set(row["seconds"]) == {"cpu", "ref"} for row in found["rows"])


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (("ups",), "there is no benchmark 'ups': choose among ops, unet, models, accuracy"),
        (("ops", "--threads", 0), "--threads 0 cannot be measured"),
        (("ops", "--threads", 100_000), "--threads 100000 cannot be measured"),
        (("--only", "conv"), "say which, ops, unet, models or accuracy"),
        (("ops", "--quick", "--threads", 1, "--only", "no such row"), "holds the text 'no such row'"),
    ],
)
def test_what_cannot_be_measured(bench, arguments, pattern):
    code, _, err = bench(*arguments)
    assert code == 2
    assert err.startswith("minunet: ")
    assert err.count("\n") == 1
    assert re.search(pattern, err), err


def test_avx2_is_for_x86(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(ValueError, match="--avx2 is for x86-64"):
        session.check(session.Request("ops", (1,), avx2=True))
    assert session.Request("ops", (1,), avx2=True).name == "ops-avx2"


def test_a_measuring_process_that_fails_is_told(monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(RuntimeError, match="the measuring process for ops ended with code 1: it said nothing"):
        next(session.measure(session.Request("ops", (1,))))


def test_a_benchmark_that_is_stopped_keeps_what_it_has_measured(bench, monkeypatch, tmp_path):
    before = tmp_path / "ops.json"
    before.write_text("an earlier result", encoding="utf-8")
    measured = session.measure

    def stopped(request):
        yield next(measured(request))
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "measure", stopped)
    code, out, _ = bench("ops", "--quick", "--threads", 1, "--only", "+ ReLU")
    assert code == 130
    assert re.search(r"^conv 3×3 \+ ReLU .*, 1 thread$", out, re.MULTILINE)
    assert len(result(tmp_path / "ops.partial.json")["rows"]) == 1
    assert before.read_text(encoding="utf-8") == "an earlier result"


APART = ("steps", "isbi2012", "noise2noise", "tomography")  # have tests of their own
SCRIPTS = sorted(p for p in (ROOT / "benchmarks").glob("*.py") if p.stem not in APART)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_the_scripts_run_the_command(script):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "dumb"}
    said = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, env=environment, check=True).stdout
    assert "minunet bench" in said


# what is kept


def test_kept_results_are_whole():
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        if path.stem in APART or path.stem.startswith(("gpu-", "noise2noise-")):
            continue
        found = result(path)
        assert not found["quick"], path
        assert not found["only"], path
        assert found["benchmark"] == path.stem
        assert found["machine"]["torch"], path


def test_the_pages_show_the_kept_results():
    tables = runpy.run_path(str(ROOT / "tools" / "benchmark_tables.py"))
    for path in tables["PAGES"]:
        page = path.read_text(encoding="utf-8")
        assert tables["filled"](page) == page, "run: python tools/benchmark_tables.py"


def test_the_page_s_tables_read_results(bench, tmp_path):
    """Of each kind of results one table is made, with all the rows that it should have."""
    table = runpy.run_path(str(ROOT / "tools" / "benchmark_tables.py"))["table"]
    run = {"threads": 1, "numba_threads": 1, "torch_threads": 1, "vector_bits": 512, "environment": {}, "peaks": LIMITS}
    paired = {
        "threads": 1,
        "seconds": {"ours": 0.01, "torch": 0.0125},
        "against": "torch",
        "ratio": {"median": 1.25, "low": 1.0, "high": 1.5},
    }
    rows = {
        "ops": [paired | {"operation": "ReLU", "shape": s, "direction": "forward"} for s in ("a", "b")],
        "unet-avx2": [
            paired | {"network": "UNet", "shape": "1×1", "mode": "training"},
            {
                "threads": 1,
                "network": "UNet",
                "shape": "1×1",
                "mode": "memory",
                "mib": {"ours": 10.0, "torch": 20.0},
                "against": "torch",
                "ratio": 2.0,
            },
        ],
        "accuracy": [
            {"threads": 1, "operation": "conv", "shape": "a", "direction": "forward", "error": {"ours": 2e-7, "torch": 1e-7}, "ratio": 2.0}
        ],
    }
    wanted = {
        "ops": "| ReLU | forward | 2 | 1.25 – 1.25 |",
        "unet-avx2": "| UNet | 1×1 | memory | 1 | 10 MiB | 20 MiB | 2.00 |",
        "accuracy": "| 2.0e-07 |",
    }
    for name, lines in rows.items():
        measure.write(tmp_path / f"{name}.json", {"benchmark": name, "quick": False, "only": "", "runs": [run]}, lines)
        assert wanted[name] in table(tmp_path / f"{name}.json")
    assert "Not measured" in table(tmp_path / "models.json")
