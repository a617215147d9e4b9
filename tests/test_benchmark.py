"""The benchmark's harness: turns, ratios, comparison of outputs, contenders that cannot run or fail; its tables."""

import json
import time

import numpy as np
import pytest

from experiments.benchmark import data
from experiments.benchmark.harness import Contender, Program, Timing, UnavailableError, alternate
from experiments.benchmark.report import Report


def sleeping(seconds: float, output: float = 1.0) -> Program:
    return Program(lambda: time.sleep(seconds), np.full(3, output), {"flops": 1000})


def absent() -> Program:
    raise UnavailableError("no such library; pip install it")


def broken() -> Program:
    raise ZeroDivisionError("nothing works")


def dying() -> Program:
    return Program(lambda: __import__("os")._exit(3))


def test_slower_contenders_have_their_ratio_and_absent_ones_a_reason():
    first, absentee, slow = alternate(
        [
            Contender("first", sleeping, {"seconds": 0.01}),
            Contender("absentee", absent),
            Contender("slow", sleeping, {"seconds": 0.04}),
        ],
        rounds=3,
        turn_seconds=0.05,
        tolerance=1e-6,
    )
    assert absentee.unavailable == "no such library; pip install it"
    assert first.seconds.shape == slow.seconds.shape == (3,)
    median, low, high = slow.ratio_to(first)
    assert low <= median <= high
    assert 1.5 < median < 8
    assert first.peak_memory > 1e6


def test_nothing_is_timed_where_outputs_differ():
    contenders = [Contender("one", sleeping, {"seconds": 0}), Contender("two", sleeping, {"seconds": 0, "output": 1.1})]
    with pytest.raises(RuntimeError, match=r"two computes something else than one: relative difference 0\.1"):
        alternate(contenders, rounds=1, turn_seconds=0.01, tolerance=1e-3)
    assert len(alternate(contenders, rounds=1, turn_seconds=0.01)) == 2


@pytest.mark.parametrize(("make", "message"), [(broken, "ZeroDivisionError: nothing works"), (dying, "process died")])
def test_a_contender_that_fails_is_named(make, message):
    with pytest.raises(RuntimeError, match=f"(?s)culprit.*{message}"):
        alternate([Contender("culprit", make)], rounds=1)


def test_report_prints_and_writes_the_same(tmp_path, capsys):
    report = Report("python -m experiments.benchmark infer")
    timings = [
        Timing("ours", np.array([0.1, 0.1]), {"flops": 100}),
        Timing("theirs", np.array([0.2, 0.4]), {}),
        Timing("absent", np.array([]), {}, unavailable="not installed"),
    ]
    report.timings("a title", timings, units=2, unit="clip", ceiling=2000.0)
    report.write(tmp_path / "figures.json")
    printed = capsys.readouterr().out
    assert "| ours | 100.00 | 20.0 | 1 | 50% |" in printed
    assert "| theirs | 300.00 | 6.7 | 3.00 (2.50 to 3.50) | - |" in printed
    assert "not run: not installed" in printed
    stored = json.loads((tmp_path / "figures.json").read_text())
    assert stored["tables"][0]["timings"][1]["seconds"] == [0.2, 0.4]
    assert stored["machine"]["numpy"] == np.__version__


def test_walks_become_records_that_both_feeders_read(tmp_path):
    data.write_walks(tmp_path / "records", 450)
    data._write_array(tmp_path / "feeder.npz", 200)
    lengths = [len(walk) for walk in data.walks(450)]
    assert 70 < np.mean(lengths) < 90 and max(lengths) <= 300
    streamed = data._streaming(tmp_path / "records")
    assert streamed.details["clips"] == 450
    batch = streamed.run()
    assert batch["skeleton"].shape[0] == 200 and batch["skeleton"].shape[3:] == (25, 3)
    clips, _ = data._feeder(tmp_path / "feeder.npz").run()
    assert clips.shape == (200, 300, 2, 25, 3)
