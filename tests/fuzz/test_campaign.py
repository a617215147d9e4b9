"""Three hundred damaged inputs, those that failed once, and that the verdicts see what they should."""

import pathlib

import numpy as np
import pytest

from tests.fuzz import campaign, mutations, readers, verdicts, workers
from tests.fuzz.mutations import MUTATIONS, Step
from tests.fuzz.readers import Outcome, Reader

KEPT = sorted((pathlib.Path(__file__).parent / "kept").glob("*.json"))


@pytest.mark.slow
def test_three_hundred_damaged_inputs_and_those_kept(tmp_path):
    report, bad = campaign.Report(), []
    for drawn, verdict in campaign.run(seed=0, inputs=300, names=list(readers.READERS), folder=tmp_path):
        report.add(drawn, verdict)
        bad += [f"{drawn}: {verdict.kind}: {verdict.detail}"] if verdict.is_bad else []
    kept = [campaign.read_kept(path) for path in KEPT]
    tasks = [(name, [], tree) for name, tree in kept]
    for path, verdict in zip(KEPT, workers.judge_all(tasks, 1), strict=True):
        bad += [f"{path.name}: {verdict.kind}: {verdict.detail}"] if verdict.is_bad else []
    assert not bad, "\n\n".join(bad)
    # Neither does every input fail at once, nor does none change anything.
    assert all(report.verdicts[kind] > 20 for kind in ("refused", "set aside", "same", "changed")), report.lines()


def test_inputs_depend_on_seed_and_number_alone(tmp_path):
    names = ["nw_ucla", "label_map"]
    formats = campaign.formats(names, tmp_path)
    first = [campaign.draw(1, number, names, formats) for number in range(20)]
    assert first == [campaign.draw(1, number, names, formats) for number in range(20)]
    assert first != [campaign.draw(2, number, names, formats) for number in range(20)]


def test_every_mutation_is_drawn_for_some_reader(tmp_path):
    names = [name for name in readers.READERS if not name.startswith(("weights", "checkpoint"))]
    formats = set().union(*campaign.formats(names, tmp_path).values())
    assert {known.format for known in MUTATIONS.values()} - {"", "tree", "torch"} <= formats


def test_a_changed_matlab_file_does_not_depend_on_the_time(tmp_path, monkeypatch):
    sound = readers.sound_tree("sysu", tmp_path)
    steps = [Step("mat_array", seed) for seed in range(20)]
    first = [mutations.apply(sound, [step]) for step in steps]
    assert sum(tree != sound for tree in first) > 10
    monkeypatch.setattr("time.asctime", lambda: "Thu Jan  1 00:00:00 1970")  # what SciPy writes into the header
    assert first == [mutations.apply(sound, [step]) for step in steps]


@pytest.fixture
def watch(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return verdicts.Watch(tmp_path_factory.mktemp("canary"))


def _raises(_source, _work):
    raise KeyError("x")


def _refuses_without_a_name(_source, _work):
    from mmcl_jax.runtime.errors import PreparationError

    raise PreparationError("something is wrong")


def _refuses(source, _work):
    from mmcl_jax.runtime.errors import PreparationError

    raise PreparationError(f"{source / 'a.txt'}: wrong")


def _runs_code(_source, _work):
    import os

    os.system("true")
    return Outcome({"a": "1", "b": "2"})


def _leaves_a_file(_source, work):
    (work / "scratch").write_text("x")
    return Outcome({"a": "1", "b": "2"})


def _takes_memory(_source, _work):
    assert np.ones(100_000_000).any()
    return Outcome({"a": "1", "b": "2"})


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (_takes_memory, "memory"),
        (_takes_memory, "memory"),  # the second one, too
        (_raises, "traceback"),
        (_refuses_without_a_name, "unnamed"),
        (_refuses, "refused"),
        (_runs_code, "code ran"),
        (_leaves_a_file, "left behind"),
        (lambda source, work: Outcome({"a": "1"}), "lost"),
        (lambda source, work: Outcome({"a": "1"}, ("b: damaged",)), "set aside"),
        (lambda source, work: Outcome({"a": "1", "b": "3"}), "changed"),
        (lambda source, work: Outcome({"a": "1", "b": "2"}), "same"),
    ],
)
def test_verdicts(tmp_path, monkeypatch, watch, read, kind):
    def reads(source, work):
        sound = (source / "a.txt").read_text() == "sound"
        return Outcome({"a": "1", "b": "2"}) if sound else read(source, work)

    made = Reader(lambda folder: (folder / "a.txt").write_text("sound") and None, reads, "")
    monkeypatch.setitem(readers.READERS, "made_up", made)
    verdicts.sound.cache_clear()
    found = verdicts.judge("made_up", {"a.txt": b"damaged"}, False, watch, tmp_path)
    verdicts.sound.cache_clear()
    assert found.kind == kind, found
    assert found.is_bad == (kind in verdicts.BAD)


def test_a_shrunk_input_still_fails_and_comes_back_from_its_file(tmp_path):
    tree = {"a.txt": b"x" * 100, "b": campaign.trees.Link("a.txt")}
    path = campaign.keep(tmp_path, "nw_ucla", "why", tree)
    assert campaign.read_kept(path) == ("nw_ucla", tree)
    assert campaign.keep(tmp_path, "nw_ucla", "why", tree) != path
