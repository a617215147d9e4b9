"""Score files: ours and the released code's read alike, and malformed ones refused with the reason."""

import json
import pickle

import numpy as np
import pytest

from experiments.scores import ScoresError, read_scores, read_together, write_scores
from tests.helpers import score_files

NAMES = ["walk_1", "sit_1", "throw_1"]


def _pickle(path, contents, protocol=2):
    path.write_bytes(pickle.dumps(contents, protocol=protocol))
    return path


def _rows():
    return dict(zip(NAMES, score_files.contents()["scores"], strict=True))


def test_what_evaluation_wrote_is_read(finished_run):
    found = read_scores(finished_run)
    assert found.path == finished_run / "scores_test.npz"
    assert found.scores.shape == (12, 12) and len(found.class_names) == 12 and found.step > 0
    assert found.stream == "joint"  # of the config beside it


def test_a_written_file_is_read_again(tmp_path):
    first = read_scores(score_files.write(tmp_path / "a.npz"))
    write_scores(tmp_path / "new" / "b.npz", first)
    again = read_scores(tmp_path / "new" / "b.npz")
    np.testing.assert_array_equal(again.scores, first.scores)
    assert again.names.tolist() == NAMES and again.class_names == first.class_names and again.step == 7
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["b.npz"]


def test_hd_graph_is_another_stream(tmp_path):
    score_files.write(tmp_path / "scores_test.npz")
    (tmp_path / "config.json").write_text(json.dumps({"data": {"stream": "bone"}, "model": {"graph": "hierarchical"}}))
    assert read_scores(tmp_path).stream == "hd_bone"


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("form", [dict, lambda pairs: list(dict(pairs).items())])
def test_pickles_of_the_released_code_take_labels_by_name(tmp_path, form, protocol):
    ours = score_files.write(tmp_path / "ours.npz")
    backwards = form({name: _rows()[name] for name in reversed(NAMES)})
    theirs = _pickle(tmp_path / "epoch1_test_score.pkl", backwards, protocol)
    for order in ([ours, theirs], [theirs, ours]):
        for file in read_together(order):
            at = {name: place for place, name in enumerate(file.names.tolist())}
            for name, label in zip(NAMES, (0, 1, 2), strict=True):
                np.testing.assert_array_equal(file.scores[at[name]], _rows()[name])
                assert file.labels[at[name]] == label
            assert file.class_names == ("walk", "sit", "throw")


MALFORMED = {
    "no names": ({"names": None}, "has no names"),
    "no labels": ({"labels": None}, "has no labels"),
    "pickled names": ({"names": np.array(NAMES, object)}, "more than plain arrays"),
    "pickled scores": ({"scores": np.array([[1, None, 2]] * 3, object)}, "more than plain arrays"),
    "flat scores": ({"scores": np.zeros(9)}, r"float64 of shape \(9,\), expected numbers of shape \(clips, classes\)"),
    "bodies not pooled": ({"scores": np.zeros((3, 2, 3))}, r"shape \(3, 2, 3\), expected"),
    "scores as text": ({"scores": np.full((3, 3), "1.0")}, "<U3 of shape .* expected numbers"),
    "no clips": (
        {"names": np.array([], "U1"), "scores": np.zeros((0, 3)), "labels": np.zeros(0, int)},
        r"\(0, 3\), expected",
    ),
    "numbers as names": ({"names": np.arange(3)}, "names are int64 of shape .* expected text"),
    "too few names": ({"names": np.array(NAMES[:2])}, "2 names, but scores of 3 clips"),
    "a name twice": (
        {"names": np.array(["walk_1", "sit_1", "walk_1"])},
        "1 clips occur more than once, among them walk",
    ),
    "NaN": ({"scores": np.array([[1, 2, 3], [1, np.nan, 2], [1, 2, 3]])}, "1 clips are not finite, among them sit_1"),
    "infinite": ({"scores": np.array([[np.inf, 2, 3], [1, 1, 2], [1, 2, 3]])}, "1 clips are not finite.* walk_1"),
    "labels beyond the classes": ({"labels": np.array([0, 1, 3])}, "label 3, but the scores have 3 classes, 0 to 2"),
    "negative labels": ({"labels": np.array([-1, 1, 2])}, "label -1"),
    "labels with a fraction": ({"labels": np.array([0.0, 1.0, 2.0])}, "labels are float64 .* expected 3 integers"),
    "too few labels": ({"labels": np.array([0, 1])}, r"shape \(2,\), expected 3 integers"),
    "too few classes": ({"class_names": np.array(["walk", "sit"])}, "2 class names, but the scores have 3 classes"),
    "a step that is none": ({"step": np.array("last")}, "step is <U4"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_files_are_refused_by_name(tmp_path, kind):
    changes, message = MALFORMED[kind]
    path = score_files.write(tmp_path / "bad.npz", **changes)
    with pytest.raises(ScoresError, match=message) as refused:
        read_scores(path)
    assert str(path) in str(refused.value)


def _damaged(tmp_path):
    whole = score_files.write(tmp_path / "whole.npz").read_bytes()
    place = whole.index(b"scores.npy") + 140  # within the numbers: the checksum no longer fits
    flipped = bytearray(whole)
    flipped[place] ^= 255
    return {"text": b"name,score\n", "truncated": whole[: len(whole) // 2], "empty": b"", "flipped": bytes(flipped)}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "not an .npz, or truncated"),
        ("truncated", "not an .npz, or truncated"),
        ("empty", "an empty file"),
        ("flipped", "damaged"),
    ],
)
def test_files_that_are_no_npz_are_refused(tmp_path, kind, message):
    path = tmp_path / "bad.npz"
    path.write_bytes(_damaged(tmp_path)[kind])
    with pytest.raises(ScoresError, match=message):
        read_scores(path)


def test_a_single_array_is_no_score_file(tmp_path):
    np.save(tmp_path / "scores.npy", np.zeros((3, 3)))
    with pytest.raises(ScoresError, match=r"not an \.npz"):
        read_scores(tmp_path / "scores.npy")
    with pytest.raises(ScoresError, match="no such file"):
        read_scores(tmp_path / "none.npz")
    with pytest.raises(ScoresError, match=r"scores_test\.npz: no such file; evaluate the run first"):
        read_scores(tmp_path)


class _Harmful:
    """Unpickled by Python's own loader, it would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_code_in_a_pickle_is_not_run(tmp_path):
    bad = _pickle(tmp_path / "bad.pkl", {"walk_1": _Harmful(tmp_path / "proof")})
    with pytest.raises(ScoresError, match=r"bad\.pkl: names (_?io|builtins)\.open"):
        read_scores(bad)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (7, "holds a int, expected a dict of clip name -> scores"),
        ([1, 2], "holds a list, expected"),
        ({1: np.zeros(3)}, "the clip name 1 is not text"),
        ({"a": np.zeros(3), "b": np.zeros(4)}, "scores of its clips have 2 shapes"),
        ({"a": np.zeros((2, 3))}, r"shape \(1, 2, 3\), expected"),
        ({"a": "high"}, "expected numbers"),
        ({}, r"shape \(0,\), expected"),
        ([("a", np.zeros(3)), ("a", np.zeros(3))], "occur more than once"),
        ({"a": np.array([0, np.nan])}, "not finite, among them a"),
        ({"a": [[1, 2], [1]]}, "are not an array"),
    ],
)
def test_pickles_of_something_else_are_refused(tmp_path, contents, message):
    with pytest.raises(ScoresError, match=message):
        read_scores(_pickle(tmp_path / "bad.pkl", contents))


TWO_CLASSES = {
    "scores": np.zeros((3, 2)),
    "labels": np.array([0, 1, 1]),
    "class_names": np.array(["walk", "sit"]),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"names": np.array(["walk_1", "sit_1", "kick_1"])},
            r"1 clips \(throw_1\) not in it, 1 clips \(kick_1\) only in",
        ),
        (
            {"names": np.array(NAMES[:2]), "scores": np.zeros((2, 3)), "labels": np.array([0, 1])},
            r"1 clips \(throw_1\) not in it, 0 clips only in it",
        ),
        (TWO_CLASSES, "2 classes, but .*a.npz has 3"),
        ({"labels": np.array([0, 2, 2])}, "labels of 1 clips differ from .*, among them sit_1: 2 here, 1 there"),
        ({"class_names": np.array(["walk", "sit", "catch"])}, "class 'catch' is 'throw' in"),
    ],
)
def test_files_of_different_clips_or_classes_are_refused(tmp_path, changes, message):
    first, second = score_files.write(tmp_path / "a.npz"), score_files.write(tmp_path / "b.npz", **changes)
    with pytest.raises(ScoresError, match=message) as refused:
        read_together([first, second])
    assert str(second) in str(refused.value)


def test_a_file_counts_once_and_pickles_alone_have_no_labels(tmp_path):
    path = score_files.write(tmp_path / "a.npz")
    with pytest.raises(ScoresError, match="named twice"):
        read_together([path, tmp_path / "." / "a.npz"])
    theirs = [_pickle(tmp_path / f"{stream}.pkl", _rows()) for stream in ("joint", "bone")]
    with pytest.raises(ScoresError, match=r"have no labels, and no file is an \.npz"):
        read_together(theirs)
