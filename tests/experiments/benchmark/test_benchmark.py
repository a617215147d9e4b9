"""The benchmark's harness: turns, ratios, comparison of outputs, contenders that cannot run or fail; its tables."""

import argparse
import functools
import json
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable

import jax
import numpy as np
import pytest

from experiments.benchmark import __main__ as command
from experiments.benchmark import data, harness, infer, machine, streams, train
from experiments.benchmark.harness import Contender, Program, Timing, UnavailableError, alternate
from experiments.benchmark.report import Report
from mmcl_jax.data.records import Records
from mmcl_jax.runtime.backend import HASTY
from tests.helpers.runs import ROOT
from tests.helpers.shallow import make_shallow


def stand_still() -> Callable[[float], None]:
    """Stops the clock of the harness, in a contender's own process; returns a function that advances it by seconds."""
    now = 0.0

    def move_on(seconds: float) -> None:
        nonlocal now
        now += seconds

    harness.time = types.SimpleNamespace(perf_counter=lambda: now)
    return move_on


def taking(seconds: float, output: float = 1.0) -> Program:
    return Program(functools.partial(stand_still(), seconds), np.full(3, output), {"flops": 1000})


def absent() -> Program:
    raise UnavailableError("no such library; pip install it")


def four_at_once() -> Program:
    return Program(functools.partial(stand_still(), 0.25), repeats=4)


def broken() -> Program:
    raise ZeroDivisionError("nothing works")


def dying() -> Program:
    return Program(lambda: os._exit(3))


def failing_later() -> Program:
    """Works when it is built, and fails at its first turn."""
    runs = iter([None])

    def run() -> None:
        if next(runs, "none left") is not None:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand more lines")

    return Program(run, np.full(3, 1.0))


def never_built() -> Program:
    threading.Event().wait()
    raise AssertionError("not reached")


def test_slower_contenders_have_their_ratio_and_absent_ones_a_reason():
    first, absentee, slow = alternate(
        [
            Contender("first", taking, {"seconds": 0.25}),
            Contender("absentee", absent),
            Contender("slow", taking, {"seconds": 1.0}),
        ],
        rounds=3,
        turn_seconds=2,
        tolerance=1e-6,
    )
    assert absentee.unavailable == "no such library; pip install it"
    assert first.seconds.shape == slow.seconds.shape == (3,)
    assert slow.ratio_to(first) == (4.0, 4.0, 4.0)
    assert first.peak_memory > 1e6


def test_nothing_is_timed_where_outputs_differ():
    contenders = [Contender("one", taking, {"seconds": 1}), Contender("two", taking, {"seconds": 1, "output": 1.1})]
    with pytest.raises(RuntimeError, match=r"two computes something else than one: relative difference 0\.1"):
        alternate(contenders, rounds=1, turn_seconds=1, tolerance=1e-3)
    assert len(alternate(contenders, rounds=1, turn_seconds=1)) == 2


@pytest.mark.parametrize(
    ("culprit", "reason"),
    [
        (broken, "ZeroDivisionError: nothing works"),
        (dying, "its process died, exit status 3"),
        (failing_later, "RuntimeError: RESOURCE_EXHAUSTED: Out of memory"),
    ],
)
def test_a_contender_that_does_not_run_has_a_reason_and_the_others_are_timed(culprit, reason):
    contenders = [Contender("culprit", culprit), Contender("one", taking, {"seconds": 1}), Contender("two", absent)]
    given_up, timed, _ = alternate(contenders, rounds=2, turn_seconds=1, tolerance=1e-3)
    assert given_up.unavailable.startswith(reason) and given_up.failed and not len(given_up.seconds)
    assert len(timed.seconds) == 2 and not timed.failed


def test_contenders_that_take_too_long_to_build_are_left_out():
    (given_up,) = alternate([Contender("slow", never_built)], rounds=1, ready_within=1)
    assert given_up.unavailable == "not ready within 1 s" and not given_up.failed


def test_report_prints_and_writes_the_same(tmp_path, capsys):
    report = Report("python -m experiments.benchmark infer", tmp_path / "figures.json")
    assert list(report.machine.ceilings.products) == ["float32"]
    timings = [
        Timing("ours", np.array([0.1, 0.1]), {"flops": 100}),
        Timing("theirs, eager", np.array([0.2, 0.4]), {}),
        Timing("absent", np.array([]), {}, unavailable="not installed"),
        Timing("broken", np.array([]), {}, unavailable="1|2", failed=True),
    ]
    report.timings("A title, float32", timings, units=2, unit="clip", ceiling=2000.0)
    stored = json.loads((tmp_path / "figures.json").read_text())  # before the report is closed
    report.close()
    printed = capsys.readouterr().out
    assert "| ours | 100.00 | 20.0 | 1 | 50% |" in printed
    assert "| theirs, eager | 300.00 | 6.7 | 3.00 (2.50 to 3.50) | - |" in printed
    assert "not run: not installed" in printed
    assert printed.splitlines()[-1] == "ratio a-title-float32 theirs-eager 3 2.5 3.5"
    assert report.failures == ["broken: 1/2"]
    assert [table["title"] for table in stored["tables"]] == ["Ceilings", "A title, float32"]
    assert stored["tables"][1]["timings"][1]["seconds"] == [0.2, 0.4]
    assert stored["machine"]["numpy"] == np.__version__
    assert report.machine.description["device"] in printed and "| float32 |" in printed


def test_without_the_first_contender_there_is_no_ratio(capsys):
    report = Report("command")
    timings = [Timing("ours", np.array([]), {}, unavailable="gone"), Timing("theirs", np.array([0.1]), {})]
    report.timings("a title", timings, units=1, unit="clip")
    report.close()
    printed = capsys.readouterr().out
    assert "| theirs | 100.00 | 10.0 | - | - |" in printed
    assert "ratio a-title" not in printed


_STOPPED = """
import os, signal, sys
import numpy as np
from experiments.benchmark import __main__ as command, infer
from experiments.benchmark.harness import Timing

def run(options, report):
    timings = [Timing(name, np.array([seconds]), {}) for name, seconds in (("ours", 0.1), ("theirs", 0.3))]
    report.timings("a title", timings, units=1, unit="clip")
    if sys.argv[2] == "stopped":
        os.kill(os.getpid(), signal.SIGTERM)
    report.failures.append("theirs: no memory")

infer.run = run
command.main(["infer", "--json", sys.argv[1]])
"""


@pytest.mark.parametrize(("how", "message"), [("stopped", "stopped"), ("failed", "failed:\ntheirs: no memory")])
def test_what_was_finished_is_there_where_a_benchmark_is_stopped_or_a_contender_fails(how, message, tmp_path):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-c", _STOPPED, str(tmp_path / "figures.json"), how]
    ended = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stderr.strip().endswith(message), ended.stderr
    assert ended.stdout.splitlines()[-1] == "ratio a-title theirs 3 3 3"
    assert len(json.loads((tmp_path / "figures.json").read_text())["tables"]) == 2


def test_the_help_says_what_scripts_can_read(capsys):
    with pytest.raises(SystemExit):
        command.main(["streams", "--help"])
    assert "ratio CASE CONTENDER MEDIAN LOW HIGH" in capsys.readouterr().out


@pytest.mark.parametrize(("backend", "titles"), [("cpu", 3), ("gpu", 6)])
def test_cases_of_inference_name_the_precision_on_gpus(backend, titles):
    cases = infer._cases(backend, infer._CASES, ["TF32", "bfloat16"])
    assert len(cases) == titles
    assert all(precision in infer._TOLERANCE for _, _, precision in cases)
    assert all(title.endswith(f", {precision}") == (backend == "gpu") for title, _, precision in cases)


def test_ceilings_of_gpus_are_of_each_precision(monkeypatch):
    monkeypatch.setattr(machine, "_SIZES", {"gpu": 32})
    monkeypatch.setattr(machine, "_COPIED_BYTES", {"gpu": 1024})
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    ceilings = machine.measure_ceilings()
    assert set(ceilings.products) == set(infer._TOLERANCE) == set(train._TOLERANCE)
    assert min(*ceilings.products.values(), ceilings.copy) > 0


def test_a_unit_s_time_is_its_share_of_a_run_and_copies_have_their_ceiling(capsys):
    (timing,) = alternate([Contender("four at once", four_at_once)], rounds=2, turn_seconds=1)
    assert timing.seconds.tolist() == [0.0625, 0.0625]
    timing = Timing("ours", np.array([0.1]), {"flops": 100, "bytes": 30})
    Report("command").timings("a title", [timing], units=2, unit="clip", ceiling=2000.0, copy_ceiling=1000.0)
    printed = capsys.readouterr().out
    assert "| ceiling | copy ceiling |" in printed
    assert "| ours | 100.00 | 20.0 | 1 | 50% | 30% |" in printed


# Shallow models, compiled in no time; nothing but jax, flax, optax, orbax, numpy and torch.
_PROGRAM = """
import json, pathlib, sys
absent = "grain array_record ml_collections tensorflow_datasets tensorboardX tqdm PIL onnx onnxruntime transformers"
sys.modules |= dict.fromkeys(absent.split())
import numpy as np
from experiments.benchmark import __main__ as command, infer, train
from tests.helpers.shallow_benchmark import make_shallow
make_shallow()
found = {}
for name, dtype, repeats in (("ctrgcn", "bfloat16", 2), ("mmcl", "float32", 1)):
    case, inputs = train.Case(name, 4, 4, 75, dtype), pathlib.Path(sys.argv[1]) / "inputs.npz"
    train.write_inputs(case, inputs)
    shared = {"case": case, "repeats": repeats}
    programs = [
        train.jax_program(**shared, clips=None),
        train.torch_program(**shared, inputs=inputs, released=False, compiled=False),
        train.torch_program(**shared, inputs=inputs, released=True, compiled=False),
    ]
    for program in programs:
        program.run()
    found[name] = [[*program.outputs.tolist(), program.details["flops"]] for program in programs]
model = {"backbone": "ctrgcn", "base_channels": 4}
shared = {"bodies": (2, 1), **model, "variables": infer.random_variables(**model), "precision": "float32"}
programs = [infer.jax_program(**shared), infer.torch_program(**shared, order="as released", compiled=False)]
found["infer"] = [program.outputs.tolist() for program in programs]
print(json.dumps(found))
"""


@pytest.mark.long
def test_infer_and_train_need_nothing_but_jax_flax_optax_and_torch(tmp_path):
    pytest.importorskip("torch")
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    for name, tolerance in (("ctrgcn", train._TOLERANCE["bfloat16"]), ("mmcl", 1e-5)):
        (ours, our_flops), *others = found[name]
        for loss, flops in others:
            assert abs(loss / ours - 1) < tolerance
            assert 0.8 < flops / our_flops < 1.5
    ours, theirs = np.array(found["infer"])
    assert np.linalg.norm(theirs - ours) < 1e-4 * np.linalg.norm(ours)


@pytest.mark.parametrize(
    "backbone",
    ["ctrsgcn", pytest.param("hdgcn", marks=pytest.mark.long), pytest.param("infogcn", marks=pytest.mark.long)],
)
def test_contenders_of_every_backbone_have_the_same_logits(backbone, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime", reason="no onnxruntime; pip install '.[onnx]'")
    from experiments.pytorch_baselines import gcn, infogcn

    stages = ((1, 1), (2, 2))
    make_shallow(monkeypatch.setitem, stages)
    for baselines in (gcn, infogcn):
        monkeypatch.setattr(baselines, "WIDTHS", (1, 2))
        monkeypatch.setattr(baselines, "STRIDES", (1, 2))
    measured = infer.MEASURED[backbone]
    shallower = {key: functools.partial(getattr(measured, key), stages=stages) for key in ("module", "entries")}
    monkeypatch.setitem(infer.MEASURED, backbone, measured._replace(**shallower))
    monkeypatch.setattr(infer, "tune_compiler", lambda: None)
    monkeypatch.setattr(jax, "jit", functools.partial(jax.jit, compiler_options=HASTY))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    model = {"backbone": backbone, "base_channels": 4}
    shared = {"bodies": (2, 1, 1), **model, "variables": infer.random_variables(**model)}
    contenders = infer._contenders(shared, "float32", "cpu", compiled=False)
    assert len(contenders) == 2 + 2 * len(measured.baselines)
    ours, *others = (contender.make(**contender.options).outputs for contender in contenders)
    assert np.ptp(ours, axis=0).max() > 1e-2  # the clips differ
    for logits in others:
        np.testing.assert_allclose(logits, ours, atol=1e-4 * np.abs(ours).max())


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], ["this library", "PyTorch eager, mean first", "PyTorch eager, as released", "torch.compile, mean first"]),
        (["--no-eager", "--no-compile"], ["this library", "PyTorch eager, as released"]),
        (["--no-released"], ["this library", "PyTorch eager, mean first", "torch.compile, mean first"]),
    ],
)
def test_contenders_of_training_can_be_left_out(arguments, names, tmp_path):
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    case = train.Case("ctrgcn", 4, 4, 75, "float32")
    contenders = train._contenders(case, 1, tmp_path, parser.parse_args(arguments))
    assert [contender.name for contender in contenders] == names


def test_walks_become_records_that_both_feeders_read(tmp_path):
    data.write_walks(tmp_path / "records", 450)
    data._write_array(tmp_path / "feeder.npz", 200)
    lengths = [len(walk) for walk in data.walks(450)]
    assert 70 < np.mean(lengths) < 90 and max(lengths) <= 300
    streamed = data._streaming(tmp_path / "records", workers=1)
    assert streamed.details["clips"] == 450
    batch = streamed.run()
    streamed.close()
    assert batch["skeleton"].shape[0] == 200 and batch["skeleton"].shape[3:] == (25, 3)
    clips, _ = data._feeder(tmp_path / "feeder.npz").run()
    assert clips.shape == (200, 300, 2, 25, 3)


def test_walks_have_mosaics_where_asked_for(tmp_path):
    data.write_walks(tmp_path, 20, mosaics=True)
    assert Records(tmp_path).image(19, 299).shape == (299, 299, 3)


def test_what_is_ahead_is_not_timed_and_what_was_started_is_closed():
    (timing,) = alternate([Contender("ahead", _ahead)], rounds=1, turn_seconds=1)
    assert timing.seconds.tolist() == [0.25]
    assert timing.worker_memory > 1e6


def _ahead() -> Program:
    """A program that has three units ready, and a process."""
    ready, move_on = iter([0, 0, 0, 0]), stand_still()
    child = subprocess.Popen(["sleep", "600"])
    return Program(lambda: move_on(next(ready, 0.25)), close=lambda: (child.kill(), child.wait()), ahead=3)


@pytest.mark.long
def test_streams_trained_together_have_the_losses_of_streams_trained_alone(monkeypatch):
    monkeypatch.setattr(train, "CTRGCN", functools.partial(train.CTRGCN, stages=((1, 1), (2, 2))))
    monkeypatch.setattr(train, "WINDOW", 16)
    for settings_of_a_process in ("keep_memory", "tune_compiler"):
        monkeypatch.setattr(streams, settings_of_a_process, lambda: None)
    case = train.Case("ctrgcn", 2, 4, 0, "float32")
    alone, together = (make(case, streams=2).outputs for make in (streams.one_by_one, streams.together))
    assert alone.shape == (2,) and alone[0] != alone[1]
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_memory_of_contenders_of_one_name():
    seconds = np.array([0.1, 0.2])
    one, same = (Timing("threads", seconds, {"clips": clips}, 10**9, 2 * 10**8) for clips in (4000, 1000))
    absent = Timing("absent", np.array([]), {}, unavailable="not installed")
    rows = data.memory_rows({"": [one, absent], ", mosaics": [same]})
    assert rows == [("threads", "4,000", "1.00", "0.20"), ("threads, mosaics", "1,000", "1.00", "0.20")]
